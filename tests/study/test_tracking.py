import json
from collections.abc import Callable

import pandas
import pytest

from lab.errors import LabError
from lab.study import leases, store, tracking


@pytest.fixture
def recorder(store_maker: Callable[[], None]) -> tracking.Recorder:
    store_maker()
    return tracking.Recorder()


def test_points_reach_mlflow_once_however_often_they_are_published(recorder: tracking.Recorder) -> None:
    run_id = recorder.start("curve", {}, {})
    run = tracking.cell_run(run_id, {})
    for begin in range(0, 3000, 1500):
        run.log_metrics({"train_loss": [(step, 1.0 / (step + 1)) for step in range(begin, begin + 1500)]})
        recorder.publish(run_id)
        recorder.publish(run_id)
    mark = store.spool_dir(run_id) / "published"
    mark.unlink()  # a driver that died before it noted what it had sent
    recorder.publish(run_id)
    mark.write_text("")  # or while it did
    recorder.publish(run_id)
    history = recorder._client.get_metric_history(run_id, "train_loss")
    assert sorted(point.step for point in history) == list(range(3000))


def test_a_half_written_line_waits_for_its_other_half(recorder: tracking.Recorder) -> None:
    run_id = recorder.start("curve", {}, {})
    path = store.spool_dir(run_id) / "metrics.jsonl"
    path.write_text('["loss", 0, 1.0, 5]\n["loss", 1, 0.')
    recorder.publish(run_id)
    path.write_text('["loss", 0, 1.0, 5]\n["loss", 1, 0.5, 6]\n')
    recorder.publish(run_id)
    assert [point.value for point in recorder._client.get_metric_history(run_id, "loss")] == [1.0, 0.5]


def test_a_closed_run_has_its_tables_results_and_no_spool(recorder: tracking.Recorder) -> None:
    run_id = recorder.start("cell", {"size": 1}, {"kind": "cell"})
    with tracking.cell_run(run_id, {}) as run:
        run.log_table(pandas.DataFrame({"id": ["a"]}))
        run.set_results({"error": 1})
    assert store.read_runs()[0].status == "RUNNING"  # the sweep closes it
    assert recorder.finish(run_id, "FINISHED") == {"error": 1.0}
    (record,) = store.read_runs()
    assert (record.status, record.results) == ("FINISHED", {"error": 1.0})
    assert pandas.read_parquet(record.artifact("utterances.parquet"))["id"].tolist() == ["a"]
    assert not store.spool_dir(run_id).exists()
    theirs = recorder._client.get_run(run_id)
    assert theirs.data.params == {"size": "1"}
    assert theirs.data.metrics == {"error": 1.0}


def test_what_is_logged_as_json_is_an_artifact_of_its_name(recorder: tracking.Recorder) -> None:
    run_id = recorder.start("cell", {}, {"kind": "cell"})
    ancestry = [{"stage": "staged_1", "weights": {"video_projector": "ab"}, "parents": ()}]
    with tracking.cell_run(run_id, {}) as run:
        run.log_json([], "ancestry")
        run.log_json(ancestry, "ancestry")
        run.set_results({"error": 1})
    recorder.finish(run_id, "FINISHED")
    (record,) = store.read_runs()
    kept = json.loads(record.artifact("ancestry.json").read_text(encoding="utf-8"))
    assert kept == [{"stage": "staged_1", "weights": {"video_projector": "ab"}, "parents": []}]


def test_a_result_that_is_not_finite_is_refused(recorder: tracking.Recorder) -> None:
    run = tracking.cell_run(recorder.start("cell", {}, {}), {})
    with pytest.raises(LabError, match="a result is not a finite number: error = nan"):
        run.set_results({"error": float("nan"), "loss": 1.0})


def test_a_run_id_that_no_sweep_drives_is_refused() -> None:
    with pytest.raises(LabError, match="no sweep drives the run 'abc'; leave run_id empty"):
        tracking.cell_run("abc", {})


def test_a_notebook_by_hand_makes_a_run_of_its_own(store_maker: Callable[[], None]) -> None:
    store_maker()
    with tracking.cell_run("", {"size": 3, "run_id": ""}) as run:
        run.log_metrics({"train_loss": [(0, 2.0)]})
        run.set_results({"error": 0.5})
    (record,) = store.read_runs()
    assert (record.status, record.tags["kind"], record.results) == ("FINISHED", "by hand", {"error": 0.5})
    assert {"git_commit", "git_dirty", "python", "package.torch", "package.jiwer"} <= record.tags.keys()


def test_a_notebook_by_hand_that_raises_ends_as_failed(store_maker: Callable[[], None]) -> None:
    store_maker()
    with pytest.raises(ZeroDivisionError), tracking.cell_run(None, {}):
        1 / 0  # noqa: B018
    (record,) = store.read_runs()
    assert (record.status, record.tags["error"]) == ("FAILED", "ZeroDivisionError: division by zero")


def test_the_parent_of_a_study_is_found_again(recorder: tracking.Recorder) -> None:
    first = recorder.study("toy", "cpu", {"prepared": "{}"})
    recorder.finish(first, "FINISHED")
    assert recorder.study("toy", "cpu", {"prepared": '{"corpus": "aa"}'}) == first
    assert recorder.study("toy", "smoke", {}) != first
    found = tracking.find_study("toy", "cpu")
    assert found is not None
    assert (found.status, found.tags["prepared"]) == ("RUNNING", '{"corpus": "aa"}')


@pytest.mark.parametrize(("delivered", "status"), [("FINISHED", "FINISHED"), ("FAILED", "KILLED")])
def test_a_run_whose_sweep_died_after_all_was_delivered_is_done(
    recorder: tracking.Recorder, delivered: str, status: str
) -> None:
    with leases.owner() as owner:
        run_id = recorder.start("cell", {}, {"kind": "cell", **owner})
        tracking.cell_run(run_id, {}).set_results({"error": 0.5})
        assert recorder.deliver(run_id, delivered) == {"error": 0.5}
        assert recorder.is_open(run_id)
    assert tracking.close_abandoned(recorder) == [run_id]
    assert [(run.status, run.results) for run in store.read_runs()] == [(status, {"error": 0.5})]


def test_what_a_study_prepared_is_kept_whole_or_refused(recorder: tracking.Recorder) -> None:
    with pytest.raises(LabError, match=r"'prepared' of study 'toy' has 8,001 letters, and MLflow keeps 8,000; run"):
        recorder.study("toy", "cpu", {"claim": "none", "prepared": "x" * 8001})
    assert tracking.find_study("toy", "cpu") is None
    run_id = recorder.study("toy", "cpu", {"prepared": "x" * 8000})
    assert len(store.read_runs()[0].tags["prepared"]) == 8000
    with pytest.raises(LabError, match="MLflow keeps"):
        recorder.study("toy", "cpu", {"prepared": "x" * 9000})
    recorder.close(run_id, "FINISHED")
