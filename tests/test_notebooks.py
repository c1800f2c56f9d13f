import ast
import json

import pytest

from lab.paths import repository_root
from lab.study.parameters import DRIVER_PARAMETERS, notebook_parameters

NOTEBOOKS = sorted((repository_root() / "notebooks").glob("*.ipynb"))
DRIVEN = [path for path in NOTEBOOKS if not path.stem.startswith(("explore_", "scheduled_"))]


def code_cells(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_committed_without_outputs_and_with_its_language(path):
    notebook = json.loads(path.read_text())
    assert notebook["metadata"]["kernelspec"]["language"] == "python"
    for cell in code_cells(path):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_defines_nothing_and_has_no_long_cell(path):
    for cell in code_cells(path):
        source = "".join(cell["source"])
        tree = ast.parse(source)
        assert not [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)]
        if "parameters" not in cell["metadata"].get("tags", []):
            assert len(source.splitlines()) <= 25, source.splitlines()[0]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_parameter_is_typed_and_explained(path):
    tagged = [cell for cell in code_cells(path) if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    for line in "".join(tagged[0]["source"]).splitlines():
        name, _, rest = line.partition(":")
        assert "=" in rest, line
        assert "#" in rest, f"{name} says nothing of its unit"
    assert notebook_parameters(path)


@pytest.mark.parametrize("path", DRIVEN, ids=lambda path: path.stem)
def test_a_driven_notebook_takes_the_sweeps_run(path):
    assert set(DRIVER_PARAMETERS) <= set(notebook_parameters(path))


@pytest.mark.parametrize("path", DRIVEN, ids=lambda path: path.stem)
def test_a_driven_notebook_is_read_in_a_dozen_cells(path):
    assert len(json.loads(path.read_text())["cells"]) <= 12
