import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.request import url2pathname

import pytest
from mlflow.tracking._tracking_service import utils as tracking_utils

from lab import paths
from lab.errors import LabError
from lab.study import leases, store, tracking, tracking_server


@pytest.mark.slow
def test_two_processes_that_create_one_store_at_once_get_the_same_whole_store() -> None:
    code = "from lab.study import store; print(store.ensure_store())"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        answers = [process.communicate(timeout=250) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], answers
    assert answers[0][0] == answers[1][0] != ""
    assert [path.name for path in paths.mlruns_dir().glob("mlflow.db.*")] == ["mlflow.db.lock"]
    with closing(sqlite3.connect(store.database())) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        names = connection.execute("SELECT name FROM experiments ORDER BY experiment_id").fetchall()
    assert names == [("Default",), (store.EXPERIMENT,)]


def test_a_store_that_exists_is_found_without_importing_mlflow(store_maker: Callable[[], None]) -> None:
    store_maker()
    code = "import sys; from lab.study import store; store.ensure_store(); print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_store_of_another_mlflow_is_left_to_mlflows_own_upgrade(store_maker: Callable[[], None]) -> None:
    store_maker()
    with closing(sqlite3.connect(store.database())) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        connection.commit()
    # In another process, as this one's MLflow remembers that it has looked.
    done = subprocess.run(
        [sys.executable, "-c", "from lab.study import tracking; tracking.Recorder()"], capture_output=True, text=True
    )
    assert re.search(r"mlflow\.db is of another MLflow; .*run `mlflow db upgrade sqlite:///.*mlflow\.db`", done.stderr)


def test_a_store_that_is_no_database_is_refused_and_left_as_it_is() -> None:
    paths.mlruns_dir().mkdir(parents=True)
    store.database().write_bytes(b"not a database, but quite long" * 100)
    with pytest.raises(LabError, match=r"mlflow.db cannot be used \(file is not a database\); restore it"):
        store.read_runs()
    with pytest.raises(LabError, match="the store cannot be read: "):
        store.ensure_store()
    assert store.database().read_bytes().startswith(b"not a database")


def test_without_a_store_there_are_no_runs() -> None:
    assert store.read_runs() == []
    assert not paths.mlruns_dir().exists()


def test_the_reader_agrees_with_mlflows_client(store_maker: Callable[[], None]) -> None:
    store_maker()
    recorder = tracking.Recorder()
    one = recorder.start("one", {"size": 1}, {"kind": "cell", "row": "small"})
    tracking.cell_run(one, {}).set_results({"error": 0.1})
    recorder.finish(one, "FINISHED")
    two = recorder.start("two", {}, {"kind": "cell"})
    recorder.finish(two, "FAILED", "no reason")
    runs = {run.run_id: run for run in store.read_runs()}
    assert set(runs) == {one, two}
    for run_id, run in runs.items():
        theirs = recorder._client.get_run(run_id)
        assert (run.status, int(run.start * 1000)) == (theirs.info.status, theirs.info.start_time)
        assert run.end == theirs.info.end_time / 1000
        ours = {name.removeprefix(store.PREFIX): value for name, value in theirs.data.tags.items() if "omni" in name}
        assert dict(run.tags) == ours
        assert str(run.artifact("x")).startswith(theirs.info.artifact_uri.removeprefix("file://"))
    assert runs[one].results == {"error": 0.1}
    assert runs[two].tags["error"] == "no reason"


def record(name: str) -> tuple[str, Path]:
    """A finished run with an artifact and a model, and where MLflow says that its artifacts are."""
    recorder = tracking.Recorder()
    run_id = recorder.start(name, {}, {"kind": "cell"})
    run = tracking.cell_run(run_id, {})
    run.log_json({"of": name}, "facts")
    run.artifact("model").mkdir()
    run.artifact("model/model.json").write_text("{}")
    run.set_results({"error": 0.1})
    recorder.finish(run_id, "FINISHED")
    uri = recorder._client.get_run(run_id).info.artifact_uri
    assert [file.path for file in recorder._client.list_artifacts(run_id)] == ["facts.json", "model"]
    return run_id, Path(url2pathname(uri.removeprefix("file://")))


@pytest.mark.parametrize("go", [Path.rename, shutil.copytree])
def test_a_store_that_was_moved_or_copied_goes_on_where_it_is(
    go: Callable[[Path, Path], None], store_maker: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_maker()
    before = paths.mlruns_dir()
    old, _ = record("old")
    go(before, tmp_path / "moved here")
    monkeypatch.setenv("OMNI_LAB_MLRUNS", str(tmp_path / "moved here"))
    left = sorted(before.rglob("*"))
    tracking_utils._artifact_repos_cache.clear()  # MLflow remembers where each run's artifacts were
    new, place = record("new")
    assert place == store.artifact(new, "").resolve()
    assert json.loads(store.artifact(new, "facts.json").read_text()) == {"of": "new"}
    assert sorted(before.rglob("*")) == left
    client = tracking.Recorder()._client
    assert [file.path for file in client.list_artifacts(old)] == ["facts.json", "model"]
    here = (paths.mlruns_dir() / "artifacts").resolve().as_uri()
    assert all(run.info.artifact_uri.startswith(f"{here}/") for run in map(client.get_run, (old, new)))
    models = client.search_logged_models([client.get_experiment_by_name(store.EXPERIMENT).experiment_id])
    assert len(models) == 2
    assert all(model.artifact_location.startswith(f"{here}/models/") for model in models)


@pytest.mark.parametrize("name", ["feature%2Fbeam%20search", "what?", "issue #7", "a:b@c"])
def test_a_store_may_lie_on_any_path(
    name: str, store_maker: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNI_LAB_MLRUNS", str(tmp_path / name / "mlruns"))
    store_maker()
    run_id, place = record("one")
    assert place == store.artifact(run_id, "").resolve()
    assert [run.results for run in store.read_runs()] == [{"error": 0.1}]
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.slow
def test_a_server_serves_a_store_on_any_path(
    store_maker: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNI_LAB_MLRUNS", str(tmp_path / "feature%2Fx y?#" / "mlruns"))
    store_maker()
    run_id, _ = record("one")
    server = tracking_server.TrackingServer("127.0.0.1")
    try:
        tracking_server.check_store(server.wait(), run_id)
    finally:
        server.stop()


def test_a_run_is_abandoned_once_the_process_that_owns_it_is_gone(store_maker: Callable[[], None]) -> None:
    store_maker()
    recorder = tracking.Recorder()
    with leases.owner() as owner:
        run_id = recorder.start("alive", {}, {"kind": "cell", **owner})
        tracking.cell_run(run_id, {}).log_metrics({"train_loss": [(0, 1.0), (1, 0.5)]})
        (run,) = store.read_runs()
        assert not leases.is_abandoned(run)
        assert tracking.close_abandoned(recorder) == []
    assert leases.is_abandoned(run)
    assert tracking.close_abandoned(recorder) == [run_id]
    (run,) = store.read_runs()
    assert run.status == "KILLED"
    assert "died" in run.tags["error"]
    assert len(recorder._client.get_metric_history(run_id, "train_loss")) == 2
    assert not Path(store.spool_dir(run_id)).exists()


def test_deleted_runs_are_not_read_and_others_can_be_chosen(store_maker: Callable[[], None]) -> None:
    assert store.running_runs() == store.tagged_runs("kind", "study") == []
    store_maker()
    recorder = tracking.Recorder()
    study = recorder.study("toy", "cpu", {"claim": "none"})
    ended, deleted = (recorder.start(name, {}, {"kind": "cell", "row": name}) for name in ("ended", "deleted"))
    recorder.finish(ended, "FINISHED")
    recorder._client.delete_run(deleted)
    everything = {run.run_id: run for run in store.read_runs()}
    assert set(everything) == {study, ended}
    assert store.running_runs() == store.tagged_runs("kind", "study") == [everything[study]]
    assert everything[study].tags == {"kind": "study", "ablation": "toy", "rung": "cpu", "claim": "none"}
    assert [run.run_id for run in store.tagged_runs("row", "ended")] == [ended]


def test_a_run_that_ends_well_while_somebody_looks_for_the_dead_is_not_killed(
    store_maker: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    store_maker()
    recorder = tracking.Recorder()
    run_id = recorder.start("cell", {}, {"kind": "cell"})
    tracking.cell_run(run_id, {}).set_results({"error": 1.0})

    def ends_just_now(run: store.RunRecord) -> bool:
        recorder.finish(run_id, "FINISHED")
        return True

    monkeypatch.setattr(leases, "is_abandoned", ends_just_now)
    assert tracking.close_abandoned(recorder) == []
    (run,) = store.read_runs()
    assert (run.status, run.results) == ("FINISHED", {"error": 1.0})


def test_results_longer_than_a_tag_are_read_back_whole():
    results = {f"metric_{number:04}": number / 3 for number in range(1000)}
    tags = store.results_tags(results)
    assert len(tags) > 1
    assert all(len(value) <= 8000 for value in tags.values())
    assert store.RunRecord("run", "FINISHED", 0.0, 1.0, {**tags, "key": "0"}).results == results
    assert store.RunRecord("run", "FINISHED", 0.0, 1.0, store.results_tags({"a": 1.0})).results == {"a": 1.0}
    assert store.RunRecord("run", "RUNNING", 0.0, None, {}).results == {}
