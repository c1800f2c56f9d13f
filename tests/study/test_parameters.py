import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.study.parameters import (
    cell_source,
    check_notebook,
    given_parameters,
    notebook_parameters,
    parameters_cell,
    write_parameters,
)
from lab.training.parameters import Parameters, SpeechParameters, VisionParameters
from tests.conftest import TOY_PARAMETERS, saved_elsewhere, write_notebook


@dataclass(frozen=True, kw_only=True)
class ToyParameters(Parameters):
    size: int = 1
    noise: float = 0.5
    mode: str = "plain"
    steps: int = 3


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    return write_notebook(tmp_path / "toy.ipynb")


def test_a_notebook_of_its_kinds_parameters_is_let_pass(notebook: Path) -> None:
    check_notebook(notebook, ToyParameters)


def test_what_a_notebook_lacks_or_has_besides_is_named(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "toy.ipynb", parameters=TOY_PARAMETERS.replace("noise", "nose"))
    with pytest.raises(LabError, match=r"does not hold the ToyParameters: 'noise' is missing, 'nose' is none"):
        check_notebook(path, ToyParameters)


def test_a_notebook_without_the_tag_is_refused(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "toy.ipynb", tag="parameter")
    with pytest.raises(LabError, match=r"toy.ipynb has 0 cells tagged 'parameters'"):
        check_notebook(path, ToyParameters)


def test_a_notebook_without_run_id_is_refused(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "toy.ipynb", parameters=TOY_PARAMETERS.replace("run_id", "run"))
    with pytest.raises(LabError, match="'run_id' is missing"):
        check_notebook(path, ToyParameters)


def test_any_kernel_of_python_is_let_pass_and_no_other(notebook: Path) -> None:
    content = saved_elsewhere(notebook)
    check_notebook(notebook, ToyParameters)
    named = [{"kernelspec": {"name": "ir", "language": "R"}}, {"kernelspec": None, "language_info": {"name": "R"}}]
    for metadata in named:
        notebook.write_text(json.dumps(content | {"metadata": metadata}))
        with pytest.raises(LabError, match=r"toy.ipynb was saved with a kernel of R; expected one of python"):
            check_notebook(notebook, ToyParameters)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import os", "line 1 of the parameters cell of n.ipynb is not of the form"),
        ("a = 1", "line 1 of the parameters cell"),
        ("a: int", "line 1 of the parameters cell"),
        ("a: = 1", "the parameters cell of n.ipynb is not Python"),
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
    assert list(papermill.inspect_notebook(str(notebook))) == notebook_parameters(notebook)


def test_a_written_cell_runs_and_gives_the_defaults(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "n.ipynb")
    before = json.loads(path.read_text(encoding="utf-8"))["cells"]
    write_parameters(path, VisionParameters)
    check_notebook(path, VisionParameters)
    after = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert [before[0], before[2]] == [after[0], after[2]]
    namespace: dict[str, object] = {}
    exec(cell_source(after[1]), namespace)
    assert given_parameters(VisionParameters, namespace) == VisionParameters()
    assert namespace["run_id"] == ""


def test_every_line_of_a_written_cell_tells_its_unit() -> None:
    lines = parameters_cell(SpeechParameters).splitlines()
    assert "steps: int = 340  # training steps" in lines
    assert "learning_rate: float = 1e-3  # peak, of AdamW" in lines
    assert 'device: str = "auto"  # cpu, cuda, or auto: cuda where there is one' in lines
    assert "projector_options: dict = {}  # of its class, beside those above" in lines
    assert all("  # " in line for line in lines)
