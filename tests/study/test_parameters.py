from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabError
from lab.study.cells import Cell
from lab.study.parameters import check_parameters, notebook_parameters
from tests.conftest import TOY_PARAMETERS, write_notebook

GOOD = {"size": 1, "noise": 0.5, "mode": "plain", "steps": 3, "seed": 0}


def cell(**changes: Any) -> Cell:
    return Cell(ablation="toy", row="small", rung="cpu", seed=0, parameters={**GOOD, **changes})


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    return write_notebook(tmp_path / "toy.ipynb")


def test_fitting_parameters_pass_and_an_int_serves_as_float(notebook: Path) -> None:
    check_parameters([cell(), cell(noise=1)], notebook)


def test_a_misspelt_parameter_is_named_with_its_closest_match_and_the_choices(notebook: Path) -> None:
    wrong = replace(cell(), parameters={**GOOD, "sise": 1})
    with pytest.raises(
        LabError, match=r"'sise' is unknown \(did you mean 'size'\?\).*has: mode, noise, seed, size, steps"
    ):
        check_parameters([cell(), wrong], notebook)


def test_a_missing_parameter_is_named(notebook: Path) -> None:
    lacking = replace(cell(), parameters={name: value for name, value in GOOD.items() if name != "noise"})
    with pytest.raises(LabError, match=r"of 'small' at rung 'cpu' do not fit toy.ipynb: 'noise' is missing"):
        check_parameters([lacking], notebook)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("size", True, r"'size' is True \(bool\), not int"),
        ("size", 1.5, r"'size' is 1.5 \(float\), not int"),
        ("noise", "3e-4", r"'noise' is '3e-4' \(str\), not float"),
        ("mode", 7, r"'mode' is 7 \(int\), not str"),
        ("mode", None, r"'mode' is None \(NoneType\), not str"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(notebook: Path, name: str, value: Any, message: str) -> None:
    with pytest.raises(LabError, match=message):
        check_parameters([cell(**{name: value})], notebook)


def test_a_notebook_without_the_tag_is_refused(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "toy.ipynb", tag="parameter")
    with pytest.raises(LabError, match=r"toy.ipynb has 0 cells tagged 'parameters'"):
        check_parameters([cell()], path)


def test_a_notebook_without_run_id_is_refused(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "toy.ipynb", parameters="size: int = 1")
    with pytest.raises(LabError, match="has no parameter 'run_id'; add the line run_id: str"):
        check_parameters([cell()], path)


def test_unions_lists_strings_and_bare_assignments_are_read(tmp_path: Path) -> None:
    text = 'a: int | None = None\nb: "list[int]" = [1]\nc = 2\nd = None\n"""about e"""\ne: "str | None" = ""'
    found = notebook_parameters(write_notebook(tmp_path / "n.ipynb", parameters=text))
    assert {name: entry.types for name, entry in found.items()} == {
        "a": ("int", "None"),
        "b": ("list",),
        "c": ("int",),
        "d": (),
        "e": ("str", "None"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import os", "line 1 of the parameters cell of n.ipynb is not of the form"),
        ("a: int", "line 1 of the parameters cell"),
        ("a: = 1", "the parameters cell of n.ipynb is not Python"),
        ("a: Path = 1", "parameter 'a' of n.ipynb is annotated 'Path'; use one of: int, float"),
    ],
)
def test_anything_but_a_plain_parameter_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LabError, match=message):
        notebook_parameters(write_notebook(tmp_path / "n.ipynb", parameters=text))


def test_what_is_no_notebook_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="missing"):
        notebook_parameters(tmp_path / "gone.ipynb")
    (tmp_path / "text.ipynb").write_text("hello")
    with pytest.raises(LabError, match=r"text.ipynb is not a notebook"):
        notebook_parameters(tmp_path / "text.ipynb")


def test_papermill_reads_the_same_names(notebook: Path) -> None:
    papermill = pytest.importorskip("papermill")
    unquoted = write_notebook(notebook, parameters=TOY_PARAMETERS.replace('"str"', "str"))
    inspected = papermill.inspect_notebook(str(unquoted))
    own = notebook_parameters(unquoted)
    assert list(inspected) == list(own)
    assert {name: entry["inferred_type_name"] for name, entry in inspected.items()} == {
        name: entry.types[0] for name, entry in own.items()
    }
