import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from lab import paths
from lab.errors import LabError
from lab.study import claims, remote, remote_pool, remote_worker, store, sweep, tracking, tracking_server
from lab.study.ablation import load_ablation
from lab.study.machines import Machines
from lab.study.pool import Event, Job
from lab.study.remote_pool import RemotePool
from lab.study.tracking_server import TrackingServer
from tests.conftest import TOY_ABLATION
from tests.study.clusters import assert_nothing_is_open, processes, write_checkout


class Healthy(BaseHTTPRequestHandler):
    """Answers as MLflow's server does where it is asked whether it is well."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"OK" if self.path == "/health" else b"?")

    def log_message(self, *arguments: Any) -> None:
        return


@pytest.fixture
def healthy() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Healthy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = write_checkout(tmp_path / "checkout")
    monkeypatch.setenv("OMNI_LAB_CHECKOUT", str(root))
    return root


def job_of(row: str, seed: int = 0, uri: str = "http://127.0.0.1:9", **limits: Any) -> Job:
    toy = load_ablation("toy")
    chosen, _ = sweep.prepare_cells(toy, "cpu", [row], [seed])
    (job,) = sweep._jobs(chosen, sweep.notebook_path(toy), "parent", {}, sweep.Limits(**limits))
    owner = {"owner": "nobody", "host": "driver", "pid": "1"}
    return {**job, "tracking_uri": uri, "experiment_id": "1", "owner": owner}


def test_a_checkout_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMNI_LAB_CHECKOUT", raising=False)
    assert (paths.repository_root() / "lab" / "paths.py").samefile(paths.__file__)
    monkeypatch.setenv("OMNI_LAB_CHECKOUT", str(tmp_path))
    assert paths.repository_root() == tmp_path


def test_a_cell_that_would_be_another_one_on_the_node_is_refused_with_what_differs(checkout: Path) -> None:
    job = job_of("large")
    remote_worker.check_identity(json.loads(json.dumps(job)))  # the same here
    text = TOY_ABLATION.replace('"corpus": "c0ffee"', '"corpus": "decaf"')
    (checkout / "ablations" / "toy.py").write_text(text)
    with pytest.raises(LabError, match=r"another cell than the one asked for: prepared.corpus: c0ffee -> decaf; bring"):
        remote_worker.check_identity(job)
    (checkout / "notebooks" / "toy.ipynb").unlink()
    with pytest.raises(LabError, match=r"toy.ipynb is not there; the checkout of every node has to be the driver's"):
        remote_worker.check_identity(job)


def test_a_node_that_differs_starts_no_kernel(checkout: Path, healthy: str) -> None:
    job = job_of("slow", uri=healthy)
    (checkout / "ablations" / "toy.py").write_text(TOY_ABLATION.replace("c0ffee", "decaf"))
    (event,) = remote.run_cell(job, "far (1)")
    assert (event["event"], event["status"], event["refused"], event["run_id"]) == ("finished", "FAILED", True, "")
    assert event["error"].startswith("node far (1): it would run another cell than the one asked for: prepared.corpus:")
    assert not store.spool_dir("").exists()


def test_a_node_that_cannot_reach_the_server_says_so(checkout: Path) -> None:
    (event,) = remote.run_cell(job_of("small"), "far")
    assert event["error"].startswith("node far: no MLflow tracking server can be reached at http://127.0.0.1:9: ")


def test_a_process_that_dies_is_told_with_its_last_words(checkout: Path, healthy: str) -> None:
    (checkout / "ablations" / "toy.py").write_text(TOY_ABLATION)
    job = job_of("small", uri=healthy)
    text = TOY_ABLATION.replace('    return {"corpus"', '    import os; os.abort()\n    return {"corpus"')
    (checkout / "ablations" / "toy.py").write_text(text)
    (event,) = remote.run_cell(job, "far")
    assert event["event"] == "lost"
    assert event["error"].startswith("its process on node far died (signal SIGABRT; log there: ")


def test_a_cell_is_stopped_by_closing_its_generator_or_by_its_question(checkout: Path, healthy: str) -> None:
    job = job_of("small", uri=healthy)
    text = TOY_ABLATION.replace('    return {"corpus"', '    import time; time.sleep(280)\n    return {"corpus"')
    (checkout / "ablations" / "toy.py").write_text(text)
    begun = time.monotonic()
    (event,) = remote.run_cell(job, "far", stopped=lambda: time.monotonic() - begun > 1)
    assert event == {"event": "lost", "error": "it was stopped"}
    assert time.monotonic() - begun < 60
    assert not processes("remote_worker")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ray": "a:1", "slurm": "slurm"}, "--ray and --slurm exclude each other"),
        ({"slurm_options": ("a=1",)}, "--slurm-option is for --slurm"),
        ({"tracking_uri": "http://a:1"}, "--tracking-uri is for cells on other machines"),
        ({"gpus": 1.5}, "--gpus is 1.5; expected GPUs of each cell"),
        ({"gpus": -1.0}, "--gpus is -1; expected GPUs"),
        ({"gpus": float("nan")}, "--gpus is nan; expected GPUs"),
    ],
)
def test_machines_that_make_no_sense_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(LabError, match=message):
        Machines(**fields)


def test_a_tracking_server_that_is_none_is_refused(healthy: str) -> None:
    for uri, message in [
        ("localhost:5000", "the tracking server is 'localhost:5000'; expected an address such as http://HOST:5000"),
        ("http://127.0.0.1:9", "no MLflow tracking server can be reached at http://127.0.0.1:9: .*does not answer"),
        (healthy + "/elsewhere", "is no MLflow tracking server; expected one started with `mlflow server`"),
    ]:
        with pytest.raises(LabError, match=message):
            tracking_server.check_server(uri)
    with pytest.raises(LabError, match=r"does not serve this store \(.* answered 501 .*\); expected: -m mlflow server"):
        tracking_server.check_store(healthy, "run")


@pytest.mark.slow
def test_a_server_of_another_store_is_refused_and_none_outlives_its_sweep(
    store_maker: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_maker()
    run_id = tracking.Recorder().start("study", {}, {"kind": "study"})
    server = TrackingServer("127.0.0.1")
    try:
        tracking_server.check_store(server.wait(), run_id)
        assert not list((paths.mlruns_dir() / "artifacts" / run_id / "artifacts").iterdir())
        with pytest.raises(LabError, match=r"does not serve this store .* answered 404"):
            tracking_server.check_store(server.uri, "0" * 32)
        monkeypatch.setenv("OMNI_LAB_MLRUNS", str(tmp_path / "another"))
        with pytest.raises(LabError, match="keeps artifacts elsewhere than in this store; expected: -m mlflow server"):
            tracking_server.check_store(server.uri, run_id)
    finally:
        server.stop()
    assert not processes(server.uri.rpartition(":")[2])


class FakeCluster:
    """Answers each submission with the next of the prepared answers."""

    host = "127.0.0.1"

    def __init__(self, *answers: list[Event], others: bool = False) -> None:
        self.answers, self.others = list(answers), others
        self.waiting: list[tuple[int, Event]] = []
        self.left_out: list[str] = []

    def slots(self) -> int:
        return 1

    def submit(self, job: Job) -> None:
        self.waiting += [(job["id"], event) for event in self.answers.pop(0)]

    def events(self, seconds: float) -> list[tuple[int, Event]]:
        told, self.waiting = self.waiting, []
        return told

    def leave_out(self, node: str) -> bool:
        self.left_out.append(node)
        return self.others

    def stop(self, seconds: float, at_once: Callable[[], bool] = lambda: False) -> None:
        return


@pytest.fixture
def pool_of(
    checkout: Path, store_maker: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> Callable[[FakeCluster], tuple[RemotePool, list[Event]]]:
    store_maker()
    monkeypatch.setattr(remote_pool, "check_store", lambda uri, run_id: None)
    monkeypatch.setattr(remote_pool, "PAUSES", (0.01,))
    owner = {"owner": "driver-1", "host": "driver", "pid": "1"}

    def make(cluster: FakeCluster) -> tuple[RemotePool, list[Event]]:
        told: list[Event] = []
        pool = RemotePool(cluster, "http://server", owner, None, lambda job, event: told.append(event), lambda: None)
        return pool, told

    return make


def start(job: Job) -> str:
    """A run that a node made for that job."""
    recorder = tracking.Recorder()
    tags = {"owner": "driver-1", "host": "driver"}
    return recorder.start_cell(sweep.Cell(**job["cell"]), tags, job["parent"])


PLACED = {"event": "placed", "node": "far"}
REFUSED = {"event": "finished", "status": "FAILED", "error": "no", "run_id": "", "results": {}, "refused": True}
DIED = {"event": "lost", "error": "its node died", "passing": True}


def test_a_node_that_refuses_is_left_out_and_its_refusal_kept(pool_of: Any) -> None:
    job = job_of("small")
    run_id = start(job)
    done = {"event": "finished", "status": "FINISHED", "error": "", "run_id": run_id, "results": {"a": 1.0}}
    cluster = FakeCluster([PLACED, REFUSED], [PLACED, {"event": "started", "run_id": run_id}, done], others=True)
    pool, told = pool_of(cluster)
    pool.run([job])
    assert [event["event"] for event in told] == ["retrying", "started", "finished"]
    assert cluster.left_out == ["far"]
    assert sorted((run.status, run.tags.get("error", "")) for run in store.read_runs()) == [
        ("FAILED", "no"),
        ("FINISHED", ""),
    ]
    pool, told = pool_of(FakeCluster([PLACED, REFUSED]))
    pool.run([job_of("small", seed=1)])
    assert [(event["event"], event.get("status")) for event in told] == [("finished", "FAILED")]
    assert_nothing_is_open()


def test_a_cell_whose_nodes_die_is_tried_as_often_as_its_limits_say(pool_of: Any) -> None:
    pool, told = pool_of(FakeCluster([DIED], [DIED]))
    pool.run([job_of("small", retries=1)])
    assert [event["event"] for event in told] == ["retrying", "finished"]
    assert (told[-1]["status"], told[-1]["error"]) == ("FAILED", "its node died")
    pool, told = pool_of(FakeCluster([{**DIED, "passing": False}]))
    pool.run([job_of("small", retries=1)])
    assert [event["event"] for event in told] == ["finished"]


def test_a_cell_that_had_delivered_all_is_done_though_its_node_died(pool_of: Any) -> None:
    job = job_of("small")
    run_id = start(job)
    results = {"test_character_error_rate": 0.25}
    spool = store.spool_dir(run_id)
    (spool / "results.json").write_text(json.dumps(results))
    recorder = tracking.Recorder()
    recorder.deliver(run_id)
    recorder._client.set_tag(run_id, "omni_lab.delivered", "FINISHED")
    pool, told = pool_of(FakeCluster([{"event": "started", "run_id": run_id}, DIED]))
    pool.run([job])
    assert [event["event"] for event in told] == ["started", "finished"]
    assert (told[-1]["status"], told[-1]["results"]) == ("FINISHED", results)
    assert [(run.status, run.results) for run in store.read_runs()] == [("FINISHED", results)]
    assert_nothing_is_open()


def test_a_job_that_a_queue_starts_again_closes_its_first_run(pool_of: Any) -> None:
    job = job_of("small")
    first = start(job)

    again = {"event": "started", "run_id": "f" * 32}
    pool, _ = pool_of(FakeCluster([{"event": "started", "run_id": first}, again, {**DIED, "passing": False}]))
    pool.run([job])
    (run,) = store.read_runs()
    assert (run.status, run.tags["error"]) == ("FAILED", "its node died, and the cluster started it again")


def test_what_another_sweep_has_or_has_done_is_left_to_it(pool_of: Any) -> None:
    job = job_of("small")
    other = {"owner": "other", "host": "another host", "pid": "1"}
    claims.claim(job["cell"]["key"], "small", other)
    pool, told = pool_of(FakeCluster())
    pool.run([job])
    claims.release(job["cell"]["key"], other)
    tracking.Recorder().finish(start(job), "FINISHED")
    pool.run([job])
    pool.run([job], lambda job: False)
    assert [event["event"] for event in told] == ["elsewhere", "elsewhere", "left_out"]
    assert_nothing_is_open()


def test_stopping_closes_what_runs_as_killed(pool_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of("slow")
    start(job)
    pool, told = pool_of(FakeCluster([PLACED]))

    def interrupt(seconds: float) -> list[tuple[int, Event]]:
        raise KeyboardInterrupt

    monkeypatch.setattr(pool._cluster, "events", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pool.run([job])
    pool.stop()
    assert [(event["event"], event["status"]) for event in told] == [("finished", "KILLED")]
    assert [(run.status, run.tags["error"]) for run in store.read_runs()] == [("KILLED", "the sweep was stopped")]
    assert_nothing_is_open()


def test_a_cell_that_the_driver_has_closed_or_left_ends_itself(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked:
        answer: bool | Exception = True

        def is_open(self, run_id: str) -> bool:
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(remote_worker.os, "_exit", leave)
    recorder, stopping = Asked(), threading.Event()
    cell = remote_worker.NodeExecution(job_of("small"), recorder, {}, stopping, lambda event: None, list)  # type: ignore[arg-type]
    cell._heard = time.monotonic()
    cell._beat("run")
    recorder.answer = ConnectionError("busy")
    cell._beat("run")
    cell._heard -= claims.SILENT_SECONDS + 1
    with pytest.raises(SystemExit):
        cell._beat("run")
    recorder.answer = False
    cell._heard = time.monotonic()
    with pytest.raises(SystemExit):
        cell._beat("run")
