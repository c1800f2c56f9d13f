import shutil
from pathlib import Path
from typing import Any

import pytest

from lab import paths
from lab.errors import LabError
from lab.study import results
from lab.study.ablation import Ablation, load_ablation
from lab.study.sweep import load_prepare

pytestmark = pytest.mark.slow  # the sweep that the tests share takes over five seconds


@pytest.fixture
def ablation(swept: Path) -> Any:
    """The toy with its results file, which is put back afterwards."""
    path = swept / "checkout" / "ablations" / "results" / "toy.csv"
    shutil.copy(path, swept / "kept.csv")
    yield load_ablation("toy")
    shutil.copy(swept / "kept.csv", path)


def file(ablation: Ablation) -> Path:
    return results.results_path(ablation, "cpu")


def other_lines(ablation: Ablation, *lines: dict[str, str]) -> None:
    """Put lines into the file as the sweep of somebody else would have."""
    results._write(ablation, "cpu", [*results.read_lines(ablation, "cpu"), *lines])


def line(**changes: str) -> dict[str, str]:
    fields = {"row": "small", "rung": "cpu", "seed": "7", "key": "0" * 16, "run_id": "f" * 32, "size": "1"}
    return {**fields, "mode": "plain", "test_character_error_rate": "0.5", **changes}


def test_the_file_has_one_line_a_done_cell(ablation: Ablation) -> None:
    head, *lines = file(ablation).read_text().splitlines()[1:]
    assert head == "row,rung,seed,key,run_id,size,mode,test_character_error_rate,steps_done"
    fields = [entry.split(",") for entry in lines]
    assert [entry[:3] for entry in fields] == [["small", "cpu", "0"], ["large", "cpu", "0"]]
    assert [entry[5:] for entry in fields] == [["1", "plain", "0.25", "3"], ["4", "plain", "0.0625", "3"]]


def test_the_file_reads_as_a_frame_with_keys_as_text(ablation: Ablation) -> None:
    other_lines(ablation, line(key="12e3456789012345"))
    frame = results.load_results(ablation, "cpu")
    assert frame["key"].tolist()[1] == "12e3456789012345"
    frame = frame[frame["seed"] == 0]
    assert frame["size"].tolist() == [1, 4]
    assert frame["test_character_error_rate"].tolist() == [0.25, 0.0625]


def test_a_file_changed_by_hand_is_refused_and_left_as_it_is(ablation: Ablation) -> None:
    path = file(ablation)
    edited = path.read_text().replace("0.25", "0.05")
    path.write_text(edited)
    message = "ablations/results/toy.csv was changed by hand.*git checkout.*lab results toy --rebuild"
    for call in (
        lambda: results.read_lines(ablation, "cpu"),
        lambda: results.load_results(ablation, "cpu"),
        lambda: results.update_results(ablation, "cpu", load_prepare("toy")([])),
    ):
        with pytest.raises(LabError, match=message):
            call()
    assert path.read_text() == edited
    path.write_text("\n".join(edited.splitlines()[1:]))
    with pytest.raises(LabError, match="was changed by hand"):
        results.read_lines(ablation, "cpu")


def test_line_ends_of_another_system_are_no_change(ablation: Ablation) -> None:
    path = file(ablation)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(results.read_lines(ablation, "cpu")) == 2


def test_a_file_can_be_rebuilt_from_the_tracked_runs(ablation: Ablation) -> None:
    before = file(ablation).read_text()
    file(ablation).write_text("nonsense")
    assert results.rebuild_results(ablation) == [file(ablation)]
    assert file(ablation).read_text() == before


def test_without_tracked_runs_nothing_is_rebuilt(
    ablation: Ablation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OMNI_LAB_MLRUNS", str(tmp_path / "empty"))
    with pytest.raises(LabError, match="has no tracked run of 'toy' to write results from"):
        results.rebuild_results(ablation)


def test_cells_of_other_rungs_stay_and_outdated_ones_of_this_rung_go(ablation: Ablation) -> None:
    other_lines(ablation, line(rung="gpu"), line(), line(row="gone"))
    results.update_results(ablation, "cpu", load_prepare("toy")([]))
    left = [(entry["row"], entry["rung"], entry["seed"]) for entry in results.read_lines(ablation, "cpu")]
    assert left == [("small", "cpu", "0"), ("large", "cpu", "0"), ("small", "gpu", "7")]


def test_a_line_whose_cell_cannot_be_identified_stays(ablation: Ablation) -> None:
    other_lines(ablation, line(row="slow", mode="sleep"))
    results.update_results(ablation, "cpu", {"corpus": "c0ffee", "mode": {"plain": "PLAIN"}})
    assert "slow" in {entry["row"] for entry in results.read_lines(ablation, "cpu")}


def test_a_rung_that_is_not_recorded_writes_beside_the_store(ablation: Ablation) -> None:
    assert results.results_path(ablation, "smoke") == paths.mlruns_dir() / "results" / "toy.csv"


def test_utterances_come_with_their_row_seed_and_parameters(ablation: Ablation) -> None:
    frame = results.load_utterances(ablation, "cpu")
    assert frame["row"].tolist() == ["small", "small", "large", "large"]
    assert frame["character_errors"].tolist() == [1, 0, 4, 0]
    assert frame["size"].tolist() == [1, 1, 4, 4]
    assert set(frame["seed"]) == {0}


def test_utterances_measured_elsewhere_are_named(ablation: Ablation) -> None:
    other_lines(ablation, line())
    with pytest.raises(LabError, match=r"the utterances of small, seed 7 .run ffff.*lab reproduce toy --rung cpu"):
        results.load_utterances(ablation, "cpu")


def test_results_that_are_not_there_are_named(ablation: Ablation) -> None:
    with pytest.raises(LabError, match="no results of 'toy' at rung 'smoke'; run `lab reproduce toy --rung smoke`"):
        results.load_results(ablation, "smoke")


def test_the_summary_is_in_the_tables_units(ablation: Ablation) -> None:
    table = results.summary(ablation, "cpu")
    assert table.index.tolist() == ["Small", "Large"]
    assert table["CER (%)"].tolist() == pytest.approx([25.0, 6.25])
