"""The process of one cell on a node: checks that it would run the very cell that was asked for, and runs it.

What it measures goes to the driver's store through MLflow's tracking server. It never gives the run its last status:
the driver does, so that a node that is cut off cannot finish a cell that has meanwhile been given to another.
"""

import json
import os
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab import paths
from lab.errors import LabError
from lab.study import claims, store, tracking, worker
from lab.study.cells import Cell
from lab.study.execution import Event, Execution, reason_of
from lab.study.identity import changed_ingredients, identify
from lab.study.limits import PASSING
from lab.study.remote import STOP_SECONDS
from lab.study.tracking_server import check_server


class NodeRecorder(tracking.Recorder):
    """Writes to the driver's store through its tracking server."""

    def __init__(self, uri: str, experiment_id: str) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # MLflow's 7 are minutes
        store.quiet_mlflow()
        from mlflow.tracking import MlflowClient

        self.experiment_id, self._uri = experiment_id, uri.rstrip("/")
        self._client = MlflowClient(tracking_uri=uri)

    def close(self, run_id: str, status: str, error: str = "") -> None:
        """Say that all is delivered, and leave the run's status, and why, to the driver."""
        self._client.set_tag(run_id, f"{store.PREFIX}delivered", status)
        store.remove_spool(run_id)

    def is_open(self, run_id: str) -> bool:
        """Whether the run is still RUNNING, in the driver's eyes."""
        return bool(self._client.get_run(run_id).info.status == "RUNNING")

    def _keep(self, run_id: str, folder: str) -> None:
        # The experiment's artifacts have a file: address, which the client would write to on this machine's disk.
        from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

        address = f"{self._uri}/api/2.0/mlflow-artifacts/artifacts/{run_id}/artifacts"
        HttpArtifactRepository(address, tracking_uri=self._uri).log_artifacts(folder)


class NodeExecution(Execution):
    """One try of a cell whose claim, run and further tries are the driver's."""

    _recorder: NodeRecorder
    _heard = 0.0

    def run(self) -> Event:
        """Run the cell once; the event says too whether another try could end otherwise."""
        self._heard = time.monotonic()
        event, passing = self._try()
        return {**event, "passing": passing}

    def _beat(self, run_id: str) -> None:
        """Look whether the driver still wants the cell: one that died, or gave it to another node, does not."""
        wanted = time.monotonic() - self._heard < claims.SILENT_SECONDS
        with suppress(Exception):  # the server may be busy; it is silence that counts
            wanted, self._heard = self._recorder.is_open(run_id), time.monotonic()
        if not wanted:
            worker.kill_children()
            store.remove_spool(run_id)
            os._exit(3)


def check_identity(job: Mapping[str, Any]) -> None:
    """Refuse a cell that would be another one on this machine than on the driver's.

    Raises:
        LabError: something that decides the result differs from the driver's; the message says what.
    """
    from lab.study.sweep import load_prepare

    asked = Cell(**job["cell"])
    notebook = paths.repository_root() / "notebooks" / Path(job["notebook"]).name
    if not notebook.exists():
        raise LabError(f"{notebook} is not there; the checkout of every node has to be the driver's")
    prepared = dict(load_prepare(asked.ablation)([dict(asked.parameters)]))
    (cell,) = identify([replace(asked, key="", ingredients={})], notebook, prepared)
    if cell.key != asked.key:
        changes = "; ".join(changed_ingredients(asked.ingredients, json.loads(json.dumps(dict(cell.ingredients)))))
        raise LabError(
            f"it would run another cell than the one asked for: {changes}; bring its checkout, packages and data to "
            "the driver's state"
        )


def execute(job: Mapping[str, Any], orders: worker.Orders, started: threading.Event) -> Event:
    """Run the job; returns the event that says how it ended. `started` is set when there is something to deliver."""
    import psutil

    failed = {"event": "finished", "status": "FAILED", "run_id": "", "results": {}}
    try:
        check_server(job["tracking_uri"])
        check_identity(job)
    except Exception as raised:
        name, error = reason_of(raised)
        passing, refused = name in PASSING, name == "LabError"
        return {**failed, "error": f"node {job['node']}: {error}", "passing": passing, "refused": refused}
    started.set()
    here = {**tracking.provenance(), "node": job["node"]}
    with tempfile.TemporaryDirectory(prefix="omni-lab-") as folder:
        own = {
            **job,
            "notebook": str((paths.repository_root() / "notebooks" / Path(job["notebook"]).name).resolve()),
            "executed": str(Path(folder) / "notebook.ipynb"),
            "tags": {**job["tags"], **here},
        }
        recorder = NodeRecorder(job["tracking_uri"], job["experiment_id"])
        children = psutil.Process().children
        return NodeExecution(
            own, recorder, job["owner"], orders.stopping, worker.emit, lambda: children(recursive=True)
        ).run()


def _leave(orders: worker.Orders, started: threading.Event) -> None:
    """However long a preparation or the server takes, a stopped cell is gone in time."""
    orders.stopping.wait()
    if started.is_set():
        time.sleep(STOP_SECONDS)
    worker.kill_children()
    os._exit(1)


def main() -> None:
    """Run the one job that comes in."""
    worker.keep_output_for_events()
    orders = worker.Orders(0)
    orders.ready, started = True, threading.Event()
    threading.Thread(target=_leave, args=(orders, started), daemon=True).start()
    job = orders.jobs.get()
    if job is not None:
        worker.emit(execute(job, orders, started))
    os._exit(0)


if __name__ == "__main__":
    main()
