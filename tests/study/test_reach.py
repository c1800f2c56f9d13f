import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lab import paths
from lab.errors import LabError
from lab.study import identity, reach
from lab.study.cells import Cell
from lab.study.plan import PlannedCell, reason
from tests.conftest import write_notebook

# left imports right lazily, right imports the package's own constant; nobody imports alone.
SOURCES = {
    "data/__init__.py": '"""Data."""\nSIZE = 1\n',
    "data/left.py": '"""Left."""\n\n\ndef load():\n    from lab.data.right import RATE\n\n    return RATE\n',
    "data/right.py": '"""Right."""\nfrom lab.data import SIZE\n\nRATE = 2 * SIZE\n',
    "data/alone.py": '"""Alone."""\nRATE = 3\n',
    "data/typed.py": '"""Only named in an annotation."""\nRATE = 4\n',
    "study/tracking.py": '"""Records."""\nfrom lab.data import alone\n',
}
CODE = """\
%matplotlib inline
from typing import TYPE_CHECKING
from lab.data.left import load
from lab.study.tracking import cell_run
if TYPE_CHECKING:
    from lab.data.typed import RATE
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `lab` of six files in place of ours."""
    root = tmp_path / "lab"
    for name, source in SOURCES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(source)
    monkeypatch.setattr(reach.lab, "__file__", str(root / "__init__.py"))
    return root


def key_and_ingredients(notebook: Path) -> Cell:
    cell = Cell(ablation="toy", row="small", rung="cpu", seed=0, parameters={"size": 1})
    return identity.identify([cell], notebook, {})[0]


def test_a_notebook_reaches_what_it_imports_and_what_that_imports(library: Path, tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "toy.ipynb", code=CODE)
    assert list(reach.reached_modules(notebook)) == ["lab.data", "lab.data.left", "lab.data.right"]
    other = write_notebook(tmp_path / "other.ipynb", code="import lab.data.typed\nfrom lab.data import alone\n")
    assert list(reach.reached_modules(other)) == ["lab.data", "lab.data.alone", "lab.data.typed"]


@pytest.mark.parametrize("name", ["data/left.py", "data/right.py", "data/__init__.py"])
def test_a_constant_in_a_module_that_a_cell_reaches_makes_it_stale_and_is_named(
    library: Path, tmp_path: Path, name: str
) -> None:
    notebook = write_notebook(tmp_path / "toy.ipynb", code=CODE)
    before = key_and_ingredients(notebook)
    (library / name).write_text(SOURCES[name] + "OTHER = 5\n")
    after = key_and_ingredients(notebook)
    module = ".".join(("lab", *Path(name).with_suffix("").parts)).removesuffix(".__init__")
    assert after.key != before.key
    changed = tuple(identity.changed_ingredients(before.ingredients, after.ingredients))
    assert len(changed) == 1
    told = reason(PlannedCell(cell=after, state="stale", changed=changed))
    assert re.fullmatch(rf"changed: source\.{module}: [0-9a-f]{{16}} -> [0-9a-f]{{16}}", told)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("data/alone.py", "RATE = 30\n"),
        ("study/tracking.py", "KEPT = 1\n"),
        ("data/left.py", '"""Said otherwise."""\n'),
    ],
)
def test_what_a_cell_does_not_reach_or_what_does_nothing_leaves_it_done(
    library: Path, tmp_path: Path, name: str, more: str
) -> None:
    notebook = write_notebook(tmp_path / "toy.ipynb", code=CODE)
    before = key_and_ingredients(notebook).key
    (library / name).write_text(SOURCES[name] + more)
    assert key_and_ingredients(notebook).key == before


def test_a_missing_notebook_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"notebook .*gone\.ipynb is missing"):
        reach.reached_modules(tmp_path / "gone.ipynb")


IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*(name for name in sys.modules if name.split(".")[:2] in [["lab", room] for room in {rooms!r}]))
"""


@pytest.mark.slow
def test_no_module_is_loaded_by_the_study_that_was_not_reached() -> None:
    notebook = paths.repository_root() / "notebooks" / "conv_gmlp_rate.ipynb"
    reached = reach.reached_modules(notebook)
    assert {"lab.parts.audio_projectors", "lab.training.loop", "lab.evaluation.decoding"} <= reached.keys()
    assert not {"lab.evaluation.statistics", "lab.evaluation.verdict"} & reached.keys()
    program = IMPORT_ALL.format(rooms=reach.ROOMS)
    done = subprocess.run([sys.executable, "-c", program, *reached], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= reached.keys()


def test_no_module_of_the_rooms_imports_another_of_ours_by_a_name_made_at_run_time() -> None:
    for name, path in reach.lab_modules().items():
        assert importlib.util.find_spec(name) is not None
        for call in re.findall(r"(?:import_module|__import__)\(([^)]*)\)", path.read_text()):
            assert call == "module", f"{name} imports {call}"  # kokoro's: a package of the user's
