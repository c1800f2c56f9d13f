"""The MLflow store on disk: made and migrated once under a lock, read with plain SQLite.

Writing goes through MLflow's client. Reading does not: importing mlflow and connecting take 4 to 5 s, more than a sweep
that finds everything done may take in all, and a second ledger beside the store could contradict it. The tables read
here (runs, tags, experiments) are MLflow's own; a test holds this reader against MLflow's client.

Layout of `mlruns/`: `mlflow.db`; `artifacts/RUN_ID/artifacts/`; `notebooks/` (executed copies); `spool/RUN_ID/` (what a
running cell has written and MLflow has not taken yet); `owners/` and `leases/` (see `lab.study.leases`); `logs/`.
"""

import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock

from lab import paths
from lab.errors import LabError
from lab.study.identity import package_versions

EXPERIMENT = "omni-lab"
PREFIX = "omni_lab."
"""Of every tag that the sweep reads back."""

PLAN_TAGS = ("kind", "ablation", "row", "rung", "seed", "key", "owner", "host", "pid", "error", "results", "adopted")
"""What a plan and the results file need of a cell's run; what else it has (commit, packages, ...) is for people."""


@dataclass(frozen=True)
class RunRecord:
    """One MLflow run as the store has it; times in seconds since 1970."""

    run_id: str
    status: str
    start: float
    end: float | None
    tags: Mapping[str, str]
    """Those with our prefix, without it: kind, ablation, row, rung, seed, key, owner, host, error, results..."""

    @property
    def seconds(self) -> float | None:
        """How long it ran, None while it does."""
        return None if self.end is None else self.end - self.start

    @cached_property
    def results(self) -> dict[str, float]:
        """The measured numbers of a finished cell."""
        return dict(json.loads(self.tags.get("results", "{}")))

    def artifact(self, name: str) -> Path:
        """Where that artifact of it lies on this machine."""
        return artifact(self.run_id, name)


def artifact(run_id: str, name: str) -> Path:
    """Where that artifact of a run lies on this machine."""
    return paths.mlruns_dir() / "artifacts" / run_id / "artifacts" / name


def database() -> Path:
    """The SQLite file of the store."""
    return paths.mlruns_dir() / "mlflow.db"


def store_uri(path: Path | None = None) -> str:
    """The store as MLflow's tracking URI."""
    return f"sqlite:///{path or database()}"


FULL_BYTES = 1_000_000  # with less than that free, a database cannot be written any more


def trouble(error: BaseException | str) -> str:
    """Why the store cannot be used, and what helps, as the rest of a sentence."""
    reason = (str(error).strip().splitlines() or ["no message"])[0]
    with suppress(OSError):
        if shutil.disk_usage(paths.mlruns_dir()).free < FULL_BYTES:
            return f"the disk is full ({reason}); free some space and run it again, nothing recorded is lost"
    if any(sign in reason for sign in ("readonly", "read-only", "Read-only", "unable to open")):
        return f"{paths.mlruns_dir()} cannot be written ({reason}); make it writable, or name another: OMNI_LAB_MLRUNS"
    return f"{database()} cannot be used ({reason}); restore it from a copy, or move {paths.mlruns_dir()} away"


@contextmanager
def _connection() -> Iterator[sqlite3.Connection]:
    try:
        with closing(_open()) as connection:
            connection.execute("PRAGMA query_only = ON")
            yield connection
    except sqlite3.DatabaseError as error:
        raise LabError(f"the store cannot be read: {trouble(error)}") from None


def _open() -> sqlite3.Connection:
    """A connection to read from, on a full or read-only disk too."""
    connection = sqlite3.connect(database(), timeout=30)
    try:
        connection.execute("SELECT 1 FROM runs LIMIT 1")
    except sqlite3.OperationalError:
        connection.close()
        # In WAL mode even a reader makes files beside the store; without a log to heed it need not.
        log = database().with_name(f"{database().name}-wal")
        if log.exists() and log.stat().st_size:
            raise
        uri = f"{database().resolve().as_uri()}?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True)
    return connection


def read_runs(tags: Collection[str] | None = None) -> list[RunRecord]:
    """Every run that is not deleted, the oldest first; none where there is no store yet.

    Args:
        tags: those to read; all of ours where None. Of 10,000 runs all 30 take 0.22 s, and `PLAN_TAGS` 0.11 s.
    """
    if tags is None:
        return _read("TRUE", "key GLOB :ours")
    # Going through the whole table takes half of what looking each name up in an index does.
    return _read("TRUE", "key IN (SELECT :prefix || value FROM json_each(:names))", tags)


def read_curve(run_id: str, name: str) -> list[tuple[int, float]]:
    """The points (step, value) of a metric by rising step, from the spool of a run that goes on, or the store.

    None where the run has not logged it.
    """
    spooled: dict[int, float] = {}
    with suppress(FileNotFoundError), (spool_dir(run_id) / "metrics.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            with suppress(ValueError):  # a line that is being written
                metric, step, value, _ = json.loads(line)
                if metric == name:
                    spooled[step] = value
    if spooled or not database().exists():
        return sorted(spooled.items())
    with _connection() as connection:
        points = connection.execute(
            "SELECT step, value FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY step, timestamp", (run_id, name)
        ).fetchall()
    return [(int(step), float(value)) for step, value in points]


def running_runs() -> list[RunRecord]:
    """The runs that say RUNNING."""
    return _few("status = 'RUNNING'")


def study_runs() -> list[RunRecord]:
    """The parent runs of studies."""
    return _few("run_uuid IN (SELECT run_uuid FROM tags WHERE key = :prefix || 'kind' AND value = 'study')")


def _few(which: str) -> list[RunRecord]:
    return _read(which, f"key GLOB :ours AND run_uuid IN (SELECT run_uuid FROM runs WHERE {which})", index="")


def _read(which: str, tags: str, names: Collection[str] = (), index: str = "NOT INDEXED") -> list[RunRecord]:
    """The runs for which one condition holds, with the tags for which the other does."""
    if not database().exists():
        return []
    values = {"prefix": PREFIX, "ours": f"{PREFIX}*", "names": json.dumps(list(names))}
    with _connection() as connection:
        rows = connection.execute(
            f"SELECT run_uuid, status, start_time, end_time FROM runs WHERE lifecycle_stage = 'active' AND {which} "
            "ORDER BY start_time, run_uuid",
            values,
        ).fetchall()
        found: dict[str, dict[str, str]] = {run_id: {} for run_id, *_ in rows}
        for run_id, key, value in connection.execute(
            f"SELECT run_uuid, key, value FROM tags {index} WHERE {tags}", values
        ):
            if run_id in found:
                found[run_id][key[len(PREFIX) :]] = value
    return [
        RunRecord(run_id, status, start / 1000, None if end is None else end / 1000, found[run_id])
        for run_id, status, start, end in rows
    ]


def is_done(key: str) -> bool:
    """Whether a run of the cell of that key has finished."""
    if not database().exists():
        return False
    with _connection() as connection:
        found = connection.execute(
            "SELECT 1 FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = ? AND t.value = ? "
            "JOIN tags k ON k.run_uuid = r.run_uuid AND k.key = ? AND k.value = 'cell' "
            "WHERE r.lifecycle_stage = 'active' AND r.status = 'FINISHED' LIMIT 1",
            (f"{PREFIX}key", key, f"{PREFIX}kind"),
        ).fetchone()
    return found is not None


def _experiment() -> tuple[str, str] | None:
    """The experiment's id and the MLflow version that last migrated the store; None before it was made."""
    if not database().exists():
        return None
    with _connection() as connection:
        found = connection.execute(
            "SELECT experiment_id, (SELECT value FROM experiment_tags t WHERE t.experiment_id = e.experiment_id "
            "AND key = ?) FROM experiments e WHERE name = ?",
            (f"{PREFIX}mlflow_version", EXPERIMENT),
        ).fetchone()
    return (str(found[0]), found[1] or "") if found else None


def ensure_store() -> str:
    """Make the store, or migrate it to the installed MLflow, unless that is done; return the experiment's id.

    One process does it, under a lock, into a file of another name: processes that create one store together break it
    for good, and so does a creation that is killed half way.

    Raises:
        LabError: the store cannot be read, made or migrated.
    """
    version = package_versions(["mlflow"])["mlflow"]
    if (found := _experiment()) and found[1] == version:
        return found[0]
    folder = paths.mlruns_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "mlflow.db.lock"):
        if (found := _experiment()) and found[1] == version:
            return found[0]
        quiet_mlflow()
        fresh = folder / f"mlflow.db.{uuid.uuid4().hex}"
        try:
            if database().exists():
                _copy(fresh)
                _upgrade(fresh)
            experiment_id = _create_experiment(fresh, version)
            fresh.replace(database())
        finally:
            fresh.unlink(missing_ok=True)
        with closing(sqlite3.connect(database())) as connection:
            connection.execute("PRAGMA journal_mode = WAL")  # a metric point costs half of what it does without
        return experiment_id


def _copy(target: Path) -> None:
    try:
        with closing(sqlite3.connect(database(), timeout=5)) as source, closing(sqlite3.connect(target)) as copy:
            # Leaves nothing beside the file, which is about to be replaced; refused while somebody writes to it.
            source.execute("PRAGMA journal_mode = DELETE")
            source.backup(copy)
    except sqlite3.DatabaseError as error:
        raise LabError(
            f"the store {database()} has to be migrated to the installed mlflow ({error}); close what has it open, "
            "such as MLflow's page or a running sweep"
        ) from None


def _upgrade(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", "db", "upgrade", store_uri(path)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise LabError(
            f"the store {database()} could not be migrated to the installed mlflow ({last}); it is unchanged"
        )


def _create_experiment(path: Path, version: str) -> str:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=store_uri(path))
    found = client.get_experiment_by_name(EXPERIMENT)
    location = (paths.mlruns_dir().resolve() / "artifacts").as_uri()
    experiment_id = found.experiment_id if found else client.create_experiment(EXPERIMENT, artifact_location=location)
    client.set_experiment_tag(experiment_id, f"{PREFIX}mlflow_version", version)
    return str(experiment_id)


def quiet_mlflow() -> None:
    """Before mlflow is imported: no usage reports, no lines about migrations."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # tracebacks of what we say in one sentence


def spool_dir(run_id: str) -> Path:
    """What a running cell has written for MLflow."""
    return paths.mlruns_dir() / "spool" / run_id


def remove_spool(run_id: str) -> None:
    """Forget the spool of a run that is closed."""
    shutil.rmtree(spool_dir(run_id), ignore_errors=True)


def read_ingredients(run: RunRecord) -> dict[str, Any]:
    """What the run's identity was made of; empty where its artifacts are not on this machine."""
    try:
        return dict(json.loads(run.artifact("ingredients.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}
