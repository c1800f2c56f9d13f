"""Every notebook to explore in runs from a clean kernel to its end, its panels without an error in them."""

import nbformat
import numpy as np
import papermill
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lab.data.filters.loss_filters import LOSS_COLUMNS, SUMMARY
from lab.data.instructions.instructions import read_instructions
from lab.paths import repository_root

# What makes each quick, or gives it something to look at where no study has been run.
PARAMETERS = {
    "explore_corpora": {"corpora": ["asterisk"]},
    "explore_packing": {"num_samples": 60},
    "explore_vision": {},
    "explore_sweep": {"study": "visual_projector"},
    "explore_loss_filter": {},
    # Its panel needs a trained cell: tests/explore/test_projectors.py makes one.
    "explore_projectors": None,
}


@pytest.fixture
def scores(tmp_path):
    """A folder as `lab score chatterbot` writes it, with losses made up."""
    ids = [one.id for one in read_instructions("chatterbot", limit=50).samples]
    columns = {
        "id": ids,
        "loss": np.random.default_rng(0).gamma(4.0, 0.5, len(ids)),
        "loss_without_prompt": [None] * len(ids),
        "num_tokens": [3] * len(ids),
        "prompt_tokens": [3] * len(ids),
    }
    pq.write_table(pa.table(columns, schema=LOSS_COLUMNS), tmp_path / "part-000000.parquet")
    (tmp_path / SUMMARY).write_text("{}")
    return str(tmp_path)


def test_all_of_them_are_run_here():
    assert {path.stem for path in (repository_root() / "notebooks").glob("explore_*.ipynb")} == set(PARAMETERS)


@pytest.mark.slow
@pytest.mark.usefixtures("shared_packages")
@pytest.mark.parametrize("name", [name for name, own in PARAMETERS.items() if own is not None])
def test_it_runs_to_its_end(name, scores, tmp_path):
    parameters = {**PARAMETERS[name], **({"scores": scores} if name == "explore_loss_filter" else {})}
    executed = tmp_path / "executed.ipynb"
    papermill.execute_notebook(
        repository_root() / "notebooks" / f"{name}.ipynb",
        executed,
        parameters=parameters,
        cwd=repository_root() / "notebooks",
        progress_bar=False,
    )
    cells = [cell for cell in nbformat.read(executed, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    shown = [data for cell in cells for output in cell.outputs for data in output.get("data", {})]
    if name != "explore_corpora":
        assert "application/vnd.jupyter.widget-view+json" in shown
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
