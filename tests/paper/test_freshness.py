from pathlib import Path

import pytest

from lab import paths
from lab.errors import LabError
from lab.paper import tables
from lab.paper.figures import drawn, resting_on
from lab.study.results import read_lines
from tests.paper.fakes import GROWING_GAP, NAME, write_checkout, write_results


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "checkout"
    write_checkout(root)
    monkeypatch.setattr(paths, "repository_root", lambda: root)
    return root


def states(checkout: Path) -> dict[str, str]:
    return {str(one.path.relative_to(checkout)): one.state for one in drawn([NAME])}


def test_a_table_matches_its_runs_until_they_are_others(checkout: Path) -> None:
    assert drawn([NAME]) == []
    write_results(GROWING_GAP)
    table = f"ablations/results/{NAME}.cpu.md"
    assert states(checkout)[table] == "missing"
    tables.write_tables(NAME, "cpu")
    assert states(checkout)[table] == "matches"
    write_results(GROWING_GAP, seeds=(0, 1))
    assert states(checkout)[table] == "no longer matches"


def test_a_figure_matches_where_it_names_the_runs_of_the_results(checkout: Path) -> None:
    ablation = write_results(GROWING_GAP)
    (checkout / "figures").mkdir(exist_ok=True)
    (checkout / "figures" / f"{NAME}.py").write_text("")
    figure = checkout / "figures" / f"{NAME}.svg"
    assert states(checkout)[f"figures/{NAME}.svg"] == "missing"
    runs = [line["run_id"] for line in read_lines(ablation, "cpu") if line["rung"] == "cpu"]
    figure.write_text(f"<svg>MLflow runs: {', '.join(runs)}</svg>")
    assert states(checkout)[f"figures/{NAME}.svg"] == "matches"
    figure.write_text(f"<svg>MLflow runs: {', '.join(runs[:-1])}</svg>")
    assert states(checkout)[f"figures/{NAME}.svg"] == "no longer matches"


def test_what_rests_on_a_run_is_found_by_its_first_letters(checkout: Path) -> None:
    ablation = write_results(GROWING_GAP)
    tables.write_tables(NAME, "cpu")
    run = read_lines(ablation, "cpu")[0]["run_id"]
    assert [one.path.name for one in resting_on(run)] == [f"{NAME}.cpu.md"]
    with pytest.raises(LabError, match="run 'none such': no file of ablations/results names such a run"):
        resting_on("none such")
    with pytest.raises(LabError, match="runs begin with it"):
        resting_on("")


def test_an_unknown_ablation_is_refused(checkout: Path) -> None:
    with pytest.raises(LabError, match="unknown figure 'no_such'"):
        drawn(["no_such"])
