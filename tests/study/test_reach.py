import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab import paths
from lab.errors import LabError
from lab.study import identity, reach
from lab.study.ablation import Ablation, Cell, cells, load_ablation, notebook_path
from lab.study.plan import PlannedCell, reason
from tests.conftest import write_notebook

# The notebook calls `load`, which takes a part by its name; `alone` is reached by nobody.
SOURCES = {
    "__init__.py": "",
    "data/__init__.py": '"""Data."""\nSIZE = 1\n',
    "data/left.py": '''"""Left."""
from lab.errors import choose
from lab.parts.pieces import PIECES


def load(name):
    """Load it."""
    from lab.data.right import RATE as rate

    return choose(PIECES, name, "piece")(rate)


def unused():
    return 1
''',
    "data/right.py": '"""Right."""\nfrom lab import data\n\nRATE = 2 * data.SIZE\nOTHER = 3\n',
    "data/alone.py": '"""Alone."""\nRATE = 3\n',
    "data/listed.py": '"""All."""\nfrom lab.parts.pieces import PIECES\n\nALL = [one(1) for one in PIECES.values()]\n',
    "parts/__init__.py": "",
    "parts/pieces.py": '''"""Pieces."""


class One:
    """One."""

    def __init__(self, rate: int) -> None:
        self.rate = rate * FACTOR


class Two(One):
    pass


FACTOR = 7
PIECES: dict[str, type[One]] = {"one": One, "two": Two}
''',
    "study/__init__.py": "",
    "study/tracking.py": '"""Records."""\nfrom lab.data import alone\n\n\ndef cell_run():\n    return alone.RATE\n',
}
CODE = """\
%matplotlib inline
from typing import TYPE_CHECKING
from lab.data.left import load
if TYPE_CHECKING:
    from lab.data.alone import RATE
load(piece)
"""
PARAMETERS = 'piece: str = "two"\nsize: int = 1\nrun_id: str = ""\n'


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small `lab` in place of ours."""
    root = tmp_path / "lab"
    for name, source in SOURCES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(source)
    monkeypatch.setattr(reach.lab, "__file__", str(root / "__init__.py"))
    return root


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    return write_notebook(tmp_path / "toy.ipynb", parameters=PARAMETERS, code=CODE)


def identified(notebook: Path, piece: str = "one") -> Cell:
    cell = Cell(ablation="toy", row="small", rung="cpu", seed=0, parameters={"size": 1, "piece": piece})
    return identity.identify([cell], notebook, {})[0]


def reached(notebook: Path, piece: str = "one") -> set[str]:
    return set(reach.reached_by_notebook(notebook)({"piece": piece}))


def change(path: Path, before: str, after: str) -> None:
    source = path.read_text()
    assert before in source
    path.write_text(source.replace(before, after))


def test_a_cell_reaches_what_its_code_uses_and_of_a_dict_the_entry_that_it_chose(library: Path, notebook: Path) -> None:
    assert reached(notebook) == {"load", "RATE", "SIZE", "PIECES", "PIECES[one]", "One", "FACTOR"}
    assert reached(notebook, "two") == {"load", "RATE", "SIZE", "PIECES", "PIECES[two]", "Two", "One", "FACTOR"}


def test_a_key_within_a_longer_parameter_is_chosen(library: Path, notebook: Path) -> None:
    assert "PIECES[two]" in reached(notebook, "hub:two,three")


def test_where_no_key_is_known_every_entry_counts(library: Path, notebook: Path) -> None:
    assert {"PIECES[one]", "PIECES[two]"} <= reached(notebook, "made_at_run_time")


def test_of_a_dict_that_is_gone_through_every_entry_counts(library: Path, tmp_path: Path) -> None:
    code = "from lab.data.left import load\nfrom lab.data.listed import ALL\nload(piece), ALL\n"
    notebook = write_notebook(tmp_path / "all.ipynb", parameters=PARAMETERS, code=code)
    assert {"PIECES[one]", "PIECES[two]"} <= reached(notebook)


def test_a_module_used_as_a_value_counts_whole(library: Path, tmp_path: Path) -> None:
    code = "from lab.data import right\ngetattr(right, piece)\n"
    assert "OTHER" in reached(write_notebook(tmp_path / "whole.ipynb", parameters=PARAMETERS, code=code))
    code = "from lab.data import right\nright.RATE\n"
    assert "OTHER" not in reached(write_notebook(tmp_path / "one.ipynb", parameters=PARAMETERS, code=code))


def test_what_the_studys_room_uses_of_the_others_counts_but_not_that_room(library: Path, tmp_path: Path) -> None:
    code = "from lab.study.tracking import cell_run\ncell_run()\n"
    assert reached(write_notebook(tmp_path / "tracked.ipynb", parameters=PARAMETERS, code=code)) == {"RATE"}


@pytest.mark.parametrize(
    ("name", "before", "after", "named"),
    [
        ("data/left.py", "(rate)", "(rate + 1)", "load"),
        ("data/right.py", "2 * data", "4 * data", "RATE"),
        ("data/__init__.py", "SIZE = 1", "SIZE = 2", "SIZE"),
        ("parts/pieces.py", "FACTOR = 7", "FACTOR = 8", "FACTOR"),
        ("parts/pieces.py", "rate * FACTOR", "rate / FACTOR", "One"),
        ("parts/pieces.py", '"one": One', '"one": One or Two', r"PIECES\[one\]"),
    ],
)
def test_a_changed_definition_that_a_cell_reaches_makes_it_stale_and_is_named(
    library: Path, notebook: Path, name: str, before: str, after: str, named: str
) -> None:
    old = identified(notebook)
    change(library / name, before, after)
    new = identified(notebook)
    assert new.key != old.key
    changed = tuple(identity.changed_ingredients(old.ingredients, new.ingredients))
    told = reason(PlannedCell(cell=new, state="stale", changed=changed))
    assert re.match(rf"changed: code\.{named}: [0-9a-f]{{16}} -> [0-9a-f]{{16}}", told)


def test_a_renamed_definition_makes_a_cell_stale(library: Path, notebook: Path) -> None:
    old = identified(notebook)
    change(library / "data/right.py", "RATE =", "SPEED =")
    change(library / "data/left.py", "RATE as rate", "SPEED as rate")
    changed = identity.changed_ingredients(old.ingredients, identified(notebook).ingredients)
    assert {line.split(":")[0] for line in changed} == {"code.RATE", "code.SPEED", "code.load"}


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("data/alone.py", "RATE = 3", "RATE = 30"),
        ("data/right.py", "OTHER = 3", "OTHER = 4\nMORE = 5"),
        ("data/left.py", "return 1", "return 2"),
        ("data/left.py", '"""Load it."""', '"""Load it by its name."""\n    # why'),
        ("data/left.py", "def load(name)", "def load(name: str) -> object"),
        ("data/right.py", "RATE = 2 * data.SIZE\nOTHER = 3", "OTHER = 3\nRATE = (2 *\n    data.SIZE)"),
        ("parts/pieces.py", '"two": Two}', '"two": Two, "three": lambda rate: rate}'),
        ("parts/pieces.py", "class Two(One):\n    pass", "class Two(One):\n    WIDTH = 3"),
        ("data/right.py", "RATE =", "RATE: int ="),
        ("study/tracking.py", "return alone", "return 1 + alone"),
    ],
)
def test_what_a_cell_does_not_reach_or_what_does_nothing_leaves_it_done(
    library: Path, notebook: Path, name: str, before: str, after: str
) -> None:
    old = identified(notebook).key
    change(library / name, before, after)
    assert identified(notebook).key == old


def test_a_definition_that_moves_to_another_file_or_is_imported_otherwise_changes_nothing(
    library: Path, notebook: Path
) -> None:
    old = identified(notebook).key
    (library / "data/speed.py").write_text('"""Speed."""\nfrom lab.data import SIZE\n\nRATE = 2 * SIZE\n')
    change(library / "data/left.py", "from lab.data.right import RATE", "from lab.data.speed import RATE")
    (library / "data/loading.py").write_text((library / "data/left.py").read_text())
    (library / "data/left.py").unlink()
    change(notebook, "from lab.data.left import load", "from lab.data.loading import load")
    assert identified(notebook).key == old


def test_an_import_that_moves_out_of_a_function_changes_nothing(library: Path, notebook: Path) -> None:
    old = identified(notebook).key
    line = "from lab.data.right import RATE as rate\n"
    change(library / "data/left.py", f"    {line}\n", "")
    change(library / "data/left.py", "from lab.errors", f"{line}from lab.errors")
    assert identified(notebook).key == old


def test_two_definitions_of_one_name_are_told_apart_by_what_is_meant(library: Path, tmp_path: Path) -> None:
    code = "from lab.data.alone import RATE\nfrom lab.data.left import load\nprint(RATE)\nload(piece)\n"
    notebook = write_notebook(tmp_path / "two.ipynb", parameters=PARAMETERS, code=code)
    old = identified(notebook).key
    # Both are still reached, and no tree has changed: `load` takes the other one.
    change(library / "data/left.py", "lab.data.right import RATE as rate", "lab.data.alone import RATE as rate")
    change(notebook, "from lab.data.alone import RATE", "from lab.data.right import RATE")
    assert identified(notebook).key != old


@pytest.mark.parametrize("more", ["PIECES['four'] = 1\n", "for name in ():\n    print(name)\n"])
def test_a_statement_at_the_top_level_of_an_imported_module_counts(library: Path, notebook: Path, more: str) -> None:
    old = identified(notebook)
    with (library / "data/right.py").open("a") as file:
        file.write(more)
    changed = identity.changed_ingredients(old.ingredients, identified(notebook).ingredients)
    assert [line.split(":")[0] for line in changed] == ["code.(on import)"]


def test_a_definition_that_a_decorator_may_register_counts_where_its_module_is_imported(
    library: Path, notebook: Path
) -> None:
    registered = "def registered(f):\n    return f\n\n\n@registered\ndef g():\n    return 1"
    change(library / "data/right.py", "OTHER = 3", registered)
    old = identified(notebook).key
    change(library / "data/right.py", "return 1", "return 2")
    assert identified(notebook).key != old


def test_what_a_word_list_beside_a_module_says_counts(library: Path, notebook: Path) -> None:
    (library / "data" / "words.txt").write_text("one\n")
    change(library / "data/right.py", "2 * data.SIZE", "2 * len(open('words.txt').read())")
    old = identified(notebook).key
    (library / "data" / "words.txt").write_text("two\n")
    assert identified(notebook).key != old


def test_a_missing_notebook_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"notebook .*gone\.ipynb is missing"):
        reach.reached_by_notebook(tmp_path / "gone.ipynb")


def test_no_module_of_ours_is_imported_by_a_relative_name_or_one_made_at_run_time() -> None:
    for name, path in reach.our_modules().items():
        if not reach.decides(name):
            continue
        source = path.read_text()
        assert not re.search(r"^\s*from \.", source, re.MULTILINE), name
        # Classes that are found as subclasses, and names looked up in a module's dict, would not be followed.
        assert not re.search(r"__init_subclass__|__subclasses__|\bglobals\(\)|sys\.modules", source), name
        for call in re.findall(r"(?:import_module|__import__)\(([^)]*)\)", source):
            assert call == "module", f"{name} imports {call}"  # kokoro's: a package of the user's


BUILD = "def build():\n    return 1\n"
CALLS = "def f(p):\n    return build()\n"
A = "class A1:\n    v = 1\nclass A2:\n    v = 2\nA = {'one': A1, 'other': A2}\n"
TAKES_A = "from lab.data.y import A\n"
GOES_THROUGH = "def f(p):\n    return [A[name] for name in p]\n"
EITHER = "if {}:\n    from lab.data.y import build\nelse:\n    from lab.data.alone import RATE as build\n"


def in_function(source: str) -> str:
    return "def f(p):\n" + "".join(f"    {line}\n" for line in source.splitlines()) + "    return build()\n"


@pytest.mark.parametrize(
    ("x", "y", "before", "after"),
    [
        pytest.param("import os\n" + EITHER.format("os.sep == '/'") + CALLS, BUILD, "1", "2", id="two branches"),
        pytest.param(in_function(EITHER.format("p")), BUILD, "1", "2", id="two branches of a function"),
        pytest.param(
            "try:\n    from lab.data.y import build\nexcept ImportError:\n    build = None\n" + CALLS,
            BUILD, "1", "2", id="try and except",
        ),
        pytest.param(
            "from typing import TYPE_CHECKING\nif not TYPE_CHECKING:\n    from lab.data.y import build\n" + CALLS,
            BUILD, "1", "2", id="not only for the type checker",
        ),
        pytest.param("for _ in 'a':\n    from lab.data.y import build\n" + CALLS, BUILD, "1", "2", id="in a loop"),
        pytest.param(
            TAKES_A + "ALL = {**A, 'two': 3}\ndef f(p):\n    return list(ALL.values())\n", A, "v = 2", "v = 3",
            id="spread",
        ),
        pytest.param(
            TAKES_A + "MIX = {'other': 0.5}\ndef f(p):\n    return [A[name] for name in MIX]\n",
            A, "v = 2", "v = 3", id="keys of another dict",
        ),
        pytest.param(
            TAKES_A + "def f(p):\n    return list(A)\n", A, "'one': A1, 'other': A2", "'other': A2, 'one': A1",
            id="order",
        ),
    ],
)  # fmt: skip
def test_what_is_hard_to_follow_is_followed(
    library: Path, tmp_path: Path, x: str, y: str, before: str, after: str
) -> None:
    (library / "data/x.py").write_text(x)
    (library / "data/y.py").write_text(y)
    code = "from lab.data.x import f\nf(piece)\n"
    notebook = write_notebook(tmp_path / "x.ipynb", parameters=PARAMETERS, code=code)
    old = identified(notebook).key
    change(library / "data/y.py", before, after)
    assert identified(notebook).key != old


def test_a_fallback_of_an_import_counts(library: Path, tmp_path: Path) -> None:
    source = "try:\n    from lab.data.y import build\nexcept ImportError:\n    def build():\n        return 1\n"
    (library / "data/x.py").write_text(source + CALLS)
    code = "from lab.data.x import f\nf(piece)\n"
    notebook = write_notebook(tmp_path / "x.ipynb", parameters=PARAMETERS, code=code)
    old = identified(notebook).key
    change(library / "data/x.py", "return 1", "return 2")
    assert identified(notebook).key != old


@pytest.mark.parametrize("extra", [["other"], {"other": 1}, "one;other=1"])
def test_a_key_in_a_list_or_a_dict_or_after_any_sign_is_chosen(library: Path, notebook: Path, extra: object) -> None:
    change(library / "parts/pieces.py", '"two": Two', '"other": Two')
    reach_of = reach.reached_by_notebook(notebook)
    assert "PIECES[other]" in reach_of({"piece": "one", "extra": extra})


@pytest.mark.parametrize(
    "code",
    [
        "from lab.data.right import {} as a\nfrom lab.data.alone import {} as b\nprint(a / b)\n",
        "from lab.data import right, alone\nprint(right.{}, alone.{}, right.RATE)\n",
    ],
)
def test_a_notebook_that_swaps_two_definitions_of_one_name_is_another(library: Path, tmp_path: Path, code: str) -> None:
    notebook = write_notebook(tmp_path / "two.ipynb", parameters=PARAMETERS, code=code.format("RATE", "RATE"))
    old = identified(notebook).key
    swapped = notebook.read_text().replace("right", "~").replace("alone", "right").replace("~", "alone")
    notebook.write_text(swapped)
    assert identified(notebook).key != old


def test_two_definitions_of_one_name_and_text_are_told_apart_by_what_they_use(library: Path, tmp_path: Path) -> None:
    for name in ("right", "alone"):
        with (library / f"data/{name}.py").open("a") as file:
            file.write("\n\ndef g():\n    return RATE\n")
    source = "from lab.data import alone, right\ndef f(p):\n    return right.g()\ndef h(p):\n    return 3 * alone.g()\n"
    (library / "data/x.py").write_text(source)
    code = "from lab.data.x import f, h\nf(1), h(1)\n"
    notebook = write_notebook(tmp_path / "deep.ipynb", parameters=PARAMETERS, code=code)
    old = identified(notebook).key
    swapped = source.replace("right.g", "~.g").replace("alone.g", "right.g").replace("~.g", "alone.g")
    (library / "data/x.py").write_text(swapped)
    assert identified(notebook).key != old


@pytest.mark.parametrize(
    "line", ["await load(piece)", "a = !ls\nload(piece)", "%time load(piece)", "y = (load(piece)\n% 3)"]
)
def test_what_a_notebook_writes_beside_plain_python_is_followed(library: Path, tmp_path: Path, line: str) -> None:
    code = f"from lab.data.left import load\n{line}\n"
    assert "load" in reached(write_notebook(tmp_path / "magic.ipynb", parameters=PARAMETERS, code=code))


def test_a_notebook_cell_that_is_not_python_is_named(library: Path, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"a cell of .*broken\.ipynb is not Python"):
        reached(write_notebook(tmp_path / "broken.ipynb", parameters=PARAMETERS, code="def (\n"))


@pytest.mark.parametrize("line", ["from lab.data.alone import *", "from . import alone"])
def test_an_import_that_cannot_be_followed_is_refused(library: Path, notebook: Path, line: str) -> None:
    change(library / "data/right.py", "from lab import data", f"from lab import data\n{line}")
    with pytest.raises(LabError, match=r"`from .*` in lab\.data\.right cannot be followed; import each name"):
        reached(notebook)


@pytest.mark.parametrize("written", [b"def (", b"RATE = '\xe9'", b"RATE = 1\0"])
def test_a_module_that_is_not_python_is_named(library: Path, notebook: Path, written: bytes) -> None:
    (library / "data/right.py").write_bytes(written)
    with pytest.raises(LabError, match=r"right\.py is not Python"):
        reached(notebook)


def test_an_editors_lock_and_imports_in_a_circle_are_no_matter(library: Path, notebook: Path) -> None:
    (library / "data/.#right.py").symlink_to("nobody@nowhere")
    (library / "data/__init__.py").write_text("from lab.data import gone\nSIZE = 1\n")
    change(library / "data/right.py", "2 * data.SIZE", "data.gone")
    assert "RATE" in reached(notebook)


# The real library, copied so that it can be changed.


def studies() -> list[Ablation]:
    found = sorted((paths.repository_root() / "ablations").glob("[a-z]*.py"))
    return [load_ablation(path.stem) for path in found]


def keys() -> dict[tuple[str, str], str]:
    """The key of each row of every study at the rung cpu."""
    found = {}
    for ablation in studies():
        chosen = cells(ablation, "cpu", "all", ablation.seeds[:1])
        for cell in identity.identify(chosen, notebook_path(ablation), {}):
            found[ablation.name, cell.row] = cell.key
    return found


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for package in reach.OURS:
        if (paths.repository_root() / package).is_dir():
            shutil.copytree(paths.repository_root() / package, tmp_path / package)
    monkeypatch.setattr(reach.lab, "__file__", str(tmp_path / "lab" / "__init__.py"))
    return tmp_path


@pytest.mark.slow
def test_the_tutorials_projector_makes_no_row_stale(copy: Path) -> None:
    before = keys()
    tutorial = (paths.repository_root() / "docs" / "own_projector.md").read_text()
    found = re.search(r"```diff.*?\n(.*?)```", tutorial, re.DOTALL)
    assert found
    subprocess.run(["patch", "-p1"], input=found[1], text=True, cwd=copy, check=True, capture_output=True)
    assert "MaxPoolMLP" in (copy / "lab" / "parts" / "audio_projectors.py").read_text()
    assert keys() == before


@pytest.mark.slow
def test_a_change_of_the_training_loop_makes_every_row_of_every_study_stale(copy: Path) -> None:
    before = keys()
    change(copy / "lab" / "training" / "loop.py", "max_grad_norm: float = 1.0", "max_grad_norm: float = 1.5")
    after = keys()
    assert len(before) > 60
    assert [place for place in before if before[place] == after[place]] == []


@pytest.mark.slow
def test_a_change_of_one_projector_makes_its_own_rows_stale_alone(copy: Path) -> None:
    before = keys()
    change(copy / "lab" / "parts" / "audio_projectors.py", "queries.flatten(1)", "queries.flatten(start_dim=1)")
    after = keys()
    changed = {place for place in before if before[place] != after[place]}
    assert changed
    assert all(study == "conv_gmlp_rate" and "q_former" in row for study, row in changed)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("study", ["conv_gmlp_rate", "loss_filter", "loss_filter_images", "video_pretraining"])
def test_what_runs_in_a_cell_was_reached(study: str) -> None:
    ablation = load_ablation(study)
    parameters = ablation.resolve(ablation.rows[0].key, "smoke").as_dict()
    notebook = notebook_path(ablation)
    command = [sys.executable, "-m", "tests.study.ran", str(notebook), json.dumps(parameters)]
    environment = os.environ | {"MPLBACKEND": "agg"}
    done = subprocess.run(command, cwd=paths.repository_root(), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    ran = [line.split() for line in done.stdout.splitlines() if re.fullmatch(r"(lab|standins)\.[\w.]+ \w+", line)]
    decisive = {name for module, name in ran if reach.decides(module)}
    assert len(decisive) > 50
    # A name that several definitions have stands with its module.
    reached = {name.rpartition(".")[2] for name in reach.reached_by_notebook(notebook)(parameters)}
    assert decisive - reached == set()
