"""Thousands of tracked runs in seconds: the Recorder's own calls, written into MLflow's tables in one transaction.

MLflow's client takes 40 ms a run and more, so 10,000 runs 7 minutes. What a run consists of is not written down here a
second time: the `Recorder` decides it, and this takes the place of its client. A test holds a run written like this
against one that went through MLflow's client.
"""

import json
import sqlite3
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lab import paths
from lab.study import store
from lab.study.ablation import Cell
from lab.study.tracking import Recorder


class TableClient:
    """What the Recorder uses of `MlflowClient`; `write` puts all of it into the store."""

    def __init__(self) -> None:
        self._runs: dict[str, dict[str, Any]] = {}
        self._rows: dict[str, list[tuple[Any, ...]]] = {"tags": [], "params": [], "metrics": [], "latest_metrics": []}

    def create_run(self, experiment_id: str, tags: Mapping[str, str], run_name: str) -> SimpleNamespace:
        """A RUNNING run."""
        run_id = uuid.uuid4().hex
        self._runs[run_id] = {
            "run_uuid": run_id,
            "name": run_name,
            "source_type": "UNKNOWN",
            "source_name": "",
            "entry_point_name": "",
            "user_id": "unknown",
            "status": "RUNNING",
            "start_time": int(time.time() * 1000),
            "end_time": None,
            "source_version": "",
            "lifecycle_stage": "active",
            "artifact_uri": (paths.mlruns_dir().resolve() / "artifacts" / run_id / "artifacts").as_uri(),
            "experiment_id": int(experiment_id),
        }
        self._rows["tags"] += [(run_id, *tag) for tag in {**tags, "mlflow.runName": run_name}.items()]
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    def log_batch(
        self, run_id: str, metrics: Sequence[Any] = (), params: Sequence[Any] = (), tags: Sequence[Any] = ()
    ) -> None:
        """Metric points, parameters and tags."""
        for point in metrics:
            self._rows["metrics"].append((run_id, point.key, point.value, point.timestamp, point.step, False))
        latest = {point.key: point for point in metrics}
        for key, point in latest.items():
            self._rows["latest_metrics"].append((run_id, key, point.value, point.timestamp, point.step, False))
        self._rows["params"] += [(run_id, param.key, param.value) for param in params]
        self._rows["tags"] += [(run_id, tag.key, tag.value) for tag in tags]

    def log_inputs(self, run_id: str, inputs: Sequence[object]) -> None:
        """Leave them out: no command that is timed asks for the data sets of a run."""

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        """As the client's."""
        self.log_batch(run_id, tags=[SimpleNamespace(key=key, value=value)])

    def log_artifacts(self, run_id: str, local_dir: str) -> None:
        """Files, at once; moved, as removing a folder takes 2 ms."""
        target = paths.mlruns_dir() / "artifacts" / run_id / "artifacts"
        target.parent.mkdir(parents=True)
        Path(local_dir).rename(target)

    def set_terminated(self, run_id: str, status: str) -> None:
        """The end."""
        self._runs[run_id] |= {"status": status, "end_time": int(time.time() * 1000)}

    def write(self) -> None:
        """All of it, or nothing."""
        measured = ("run_uuid", "key", "value", "timestamp", "step", "is_nan")
        columns = {"tags": measured[:3], "params": measured[:3], "metrics": measured, "latest_metrics": measured}
        with closing(sqlite3.connect(store.database())) as connection, connection:
            names = list(next(iter(self._runs.values())))
            _insert(connection, "runs", names, [tuple(run.values()) for run in self._runs.values()])
            for table, rows in self._rows.items():
                _insert(connection, table, columns[table], rows)


def _insert(
    connection: sqlite3.Connection, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> None:
    values = ", ".join("?" * len(columns))
    connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values})", rows)


def record(recorder: Recorder, cell: Cell, tags: Mapping[str, str], status: str, results: Mapping[str, float]) -> None:
    """A run of that cell as a worker leaves it: closed with that status, or open where it is RUNNING."""
    run_id = recorder.start_cell(cell, tags, "")
    if status == "RUNNING":
        return
    if status == "FINISHED":
        (store.spool_dir(run_id) / "results.json").write_text(json.dumps(dict(results)), encoding="utf-8")
    recorder.finish(run_id, status, "" if status == "FINISHED" else "the loss is not finite at step 17")
