import json
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabError
from lab.study import identity
from lab.study.ablation import Cell
from lab.study.definitions import code_hash
from lab.study.parameters import read_notebook
from lab.study.reach import decides, our_modules
from tests.conftest import TOY_CODE, saved_elsewhere, write_notebook

MODULE = '''"""What it is for."""
RATE = 2


class Part:
    """A part."""

    width: int = 3
    """In frames."""

    def size(self) -> int:
        """How large."""
        return RATE * self.width  # frames
'''


def cell(**changes: Any) -> Cell:
    parameters = {"size": 1, "noise": 0.5, "corpus": "espeak", "seed": 0, **changes}
    return Cell(ablation="toy", row="small", rung="cpu", seed=0, parameters=parameters)


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    return write_notebook(tmp_path / "toy.ipynb")


def key_of(notebook: Path, one: Cell, prepared: dict[str, Any] | None = None) -> str:
    return identity.identify([one], notebook, prepared or {})[0].key


def test_the_same_parameters_in_another_row_are_the_same_cell(notebook: Path) -> None:
    other = Cell(ablation="other", row="baseline", rung="gpu", seed=0, parameters=cell().parameters)
    assert key_of(notebook, other) == key_of(notebook, cell())
    assert len(key_of(notebook, cell())) == 16


def test_no_options_are_as_no_parameter_for_them(notebook: Path) -> None:
    assert key_of(notebook, cell(options={})) == key_of(notebook, cell())
    assert key_of(notebook, cell(options={"width": 3})) != key_of(notebook, cell())


def test_a_changed_parameter_or_seed_is_another_cell(notebook: Path) -> None:
    keys = {key_of(notebook, cell(**changes)) for changes in ({}, {"size": 2}, {"noise": 0.25}, {"seed": 1})}
    assert len(keys) == 4


def test_the_order_of_parameters_and_the_spelling_of_a_whole_number_do_not_count(notebook: Path) -> None:
    backwards = dict(reversed(list(cell(size=1.0).parameters.items())))
    assert key_of(notebook, Cell(ablation="", row="", rung="", seed=0, parameters=backwards)) == key_of(
        notebook, cell()
    )


def test_a_changed_corpus_is_another_cell_and_another_corpus_is_not(notebook: Path) -> None:
    before = key_of(notebook, cell(), {"corpus": {"espeak": "aa", "asterisk": "bb"}})
    assert key_of(notebook, cell(), {"corpus": {"espeak": "aa"}}) == before
    assert key_of(notebook, cell(), {"corpus": {"espeak": "a2", "asterisk": "bb"}}) != before


def test_what_belongs_to_a_mapping_is_found_by_a_short_key(notebook: Path) -> None:
    told = [{"stages": {f"stage_{n}": {"share": n}}} for n in range(200, 202)]
    prepared = {"stages": {identity.value_key(one["stages"]): f"kept {n}" for n, one in enumerate(told)}}
    cells = identity.identify([cell(**one) for one in told], notebook, prepared)
    assert [one.ingredients["prepared.stages"] for one in cells] == ["kept 0", "kept 1"]
    # MLflow keeps few letters of what a study with many rows was given.
    assert {len(key) for key in prepared["stages"]} == {16}


def test_a_corpus_that_was_not_prepared_is_named(notebook: Path) -> None:
    with pytest.raises(LabError, match="nothing was prepared for corpus = 'espeak', which small, seed 0 needs"):
        key_of(notebook, cell(), {"corpus": {"asterisk": "bb"}})


def test_docstrings_comments_and_formatting_do_not_change_a_module() -> None:
    before = code_hash(MODULE, ())
    other = MODULE.replace("What it is for.", "Why.").replace("In frames.", "Frames.").replace("How large.", "Size.")
    other = other.replace("  # frames", "").replace("RATE = 2", "RATE  =  2")
    assert code_hash(other + "\n\n# the end\n", ()) == before


def test_a_constant_changes_a_module() -> None:
    assert code_hash(MODULE.replace("RATE = 2", "RATE = 3"), ()) != code_hash(MODULE, ())


def test_the_modules_that_decide_results_are_those_of_four_rooms() -> None:
    names = {name for name in our_modules() if decides(name)}
    assert "lab.parts.audio_projectors" in names
    assert not [name for name in names if name.startswith(("lab.study", "lab.paper", "lab.cli"))]


def test_a_notebooks_prose_and_comments_do_not_count_but_its_code_does(tmp_path: Path) -> None:
    path = tmp_path / "toy.ipynb"
    before = identity.notebook_hash(write_notebook(path))
    assert identity.notebook_hash(write_notebook(path, code=TOY_CODE + "# well\n")) == before
    path.write_text(path.read_text().replace("Does a toy learn?", "Does it?"))
    assert identity.notebook_hash(path) == before
    assert identity.notebook_hash(write_notebook(path, code=TOY_CODE.replace("600", "601"))) != before
    magic = identity.notebook_hash(write_notebook(path, code="%matplotlib inline\n"))
    assert identity.notebook_hash(write_notebook(path, code="%matplotlib agg\n")) != magic


def test_what_jupyterlab_and_editors_write_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "toy.ipynb"
    before = identity.notebook_hash(write_notebook(path))
    content = saved_elsewhere(path)
    assert identity.notebook_hash(path) == before
    assert "tags" not in read_notebook(path)["cells"][-1]["metadata"]
    for number, cell in enumerate(content["cells"]):
        cell["id"] = f"cell-{number}"
        cell["source"] = cell["source"].replace("\n", "\r\n").splitlines(keepends=True)
    path.write_text(json.dumps(content | {"nbformat_minor": 5}, indent=1).replace("\n", "\r\n") + "\r\n")
    assert identity.notebook_hash(path) == before


def test_a_line_separator_within_a_text_ends_no_line(tmp_path: Path) -> None:
    said = identity.notebook_hash(write_notebook(tmp_path / "toy.ipynb", code="print('a\u2028b')"))
    assert said != identity.notebook_hash(write_notebook(tmp_path / "toy.ipynb", code="print('a b')"))


def test_what_changed_is_named(notebook: Path) -> None:
    before = identity.identify([cell()], notebook, {"corpus_sha256": "aa"})[0].ingredients
    after = identity.identify([cell(size=2)], notebook, {"corpus_sha256": "bb"})[0].ingredients
    assert identity.changed_ingredients(before, after) == ["parameter.size: 1 -> 2", "prepared.corpus_sha256: aa -> bb"]
    assert identity.changed_ingredients({"code.train": "1"}, {}) == ["code.train: 1 -> absent"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_a_parameter_without_an_identity_is_refused(notebook: Path, value: Any) -> None:
    with pytest.raises(LabError, match="a parameter is"):
        key_of(notebook, cell(noise=value))


def test_a_package_that_is_not_installed_counts_as_missing() -> None:
    assert identity.package_versions(["no-such-package"]) == {"no-such-package": "missing"}
