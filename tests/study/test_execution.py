import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from lab import paths
from lab.errors import LabError
from lab.study import execution, leases, sweep, tracking, tracking_server
from lab.study.ablation import load_ablation
from lab.study.limits import Limits
from lab.study.machines import Machines
from lab.study.tracking_server import TrackingServer
from lab.study.worker import Job, Worker, run_once
from tests.conftest import TOY_ABLATION
from tests.study.clusters import processes, wait_for, write_checkout


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


def job_of(row: str, seed: int = 0, uri: str = "http://127.0.0.1:9") -> Job:
    (cell,), _ = sweep.prepare_cells(load_ablation("toy"), "cpu", [row], [seed])
    return {
        "cell": json.loads(json.dumps(asdict(cell))),
        "notebook": "toy",
        "parent": "parent",
        "kind": "cell",
        "limits": asdict(Limits()),
        "owner": {"owner": "nobody", "host": "driver", "pid": "1"},
        "node": "",
        "tracking_uri": uri,
        "experiment_id": "1",
    }


def test_a_checkout_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMNI_LAB_CHECKOUT", raising=False)
    assert (paths.repository_root() / "lab" / "paths.py").samefile(paths.__file__)
    monkeypatch.setenv("OMNI_LAB_CHECKOUT", str(tmp_path))
    assert paths.repository_root() == tmp_path


def test_a_cell_that_would_be_another_one_on_the_node_is_refused_with_what_differs(checkout: Path) -> None:
    job = job_of("large")
    execution.check_identity(job)  # the same here
    text = TOY_ABLATION.replace('"corpus": "c0ffee"', '"corpus": "decaf"')
    (checkout / "ablations" / "toy.py").write_text(text)
    with pytest.raises(LabError, match=r"another cell than the one asked for: prepared.corpus: c0ffee -> decaf; bring"):
        execution.check_identity(job)
    (checkout / "notebooks" / "toy.ipynb").unlink()
    with pytest.raises(LabError, match=r"toy.ipynb is not there; the checkout of every node has to be the driver's"):
        execution.check_identity(job)


def test_a_node_that_differs_starts_no_kernel(checkout: Path, healthy: str) -> None:
    job = job_of("slow", uri=healthy)
    (checkout / "ablations" / "toy.py").write_text(TOY_ABLATION.replace("c0ffee", "decaf"))
    result = run_once(job, "far (1)", 1)
    assert (result.status, result.refused, result.node, result.run_id) == ("FAILED", True, "far (1)", "")
    assert result.error.startswith("node far (1): it would run another cell than the one asked for: prepared.corpus")


def test_a_node_that_cannot_reach_the_server_says_so(checkout: Path) -> None:
    result = run_once(job_of("small"), "far", 1)
    assert result.error.startswith("node far: no MLflow tracking server can be reached at http://127.0.0.1:9: ")


def while_preparing(checkout: Path, statement: str) -> None:
    """Have a node's preparation do that."""
    text = TOY_ABLATION.replace('    return {"corpus"', f'    {statement}\n    return {{"corpus"')
    (checkout / "ablations" / "toy.py").write_text(text)


def test_a_process_that_dies_is_told_with_its_last_words(checkout: Path, healthy: str) -> None:
    job = job_of("small", uri=healthy)
    while_preparing(checkout, "import os; os.abort()")
    result = run_once(job, "far", 1)
    assert (result.status, result.passing, result.run_id) == ("FAILED", False, "")
    assert result.error.startswith("its worker on node far died (signal SIGABRT; log: ")


def test_a_worker_whose_input_ends_ends_itself_and_its_cell(checkout: Path, healthy: str) -> None:
    job = job_of("small", uri=healthy)
    while_preparing(checkout, "import subprocess; subprocess.run(['sleep', '4321'])")
    worker = Worker()
    running = threading.Thread(target=worker.run, args=({**job, "node": "far"},))
    running.start()
    wait_for(lambda: processes("4321"), 60)
    begun = time.monotonic()
    worker.close()
    running.join()
    assert time.monotonic() - begun < 3
    assert not processes("4321")
    worker.end()


def test_a_worker_that_cannot_start_says_why_with_its_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nbformat.py").write_text("raise OSError('no nbformat today')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    with pytest.raises(LabError, match=r"a worker could not start: OSError: no nbformat today \(log: .*log\)"):
        Worker().run({})


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
        ("localhost:5000", "can be reached at localhost:5000: .*; expected an address such as http://HOST:5000"),
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
    wait_for(lambda: not processes(server.uri.rpartition(":")[2]), 10)  # they are killed, and have to be gone


def test_a_cell_that_the_driver_has_closed_or_left_ends_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked:
        answer: bool | Exception = True

        def is_open(self, run_id: str) -> bool:
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(execution.os, "_exit", leave)
    recorder = Asked()
    publisher = execution.Publisher(recorder, "run")  # type: ignore[arg-type]
    publisher.stop()
    publisher.look()
    recorder.answer = ConnectionError("busy")
    publisher.look()
    publisher._heard -= leases.SILENT_SECONDS + 1
    with pytest.raises(SystemExit):
        publisher.look()
    recorder.answer = False
    with pytest.raises(SystemExit):
        publisher.look()
