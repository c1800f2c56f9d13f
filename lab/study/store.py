"""The MLflow store on disk: made once under a lock, read with plain SQLite.

Writing goes through MLflow's client. Reading does not: importing mlflow and connecting take 4 to 5 s, more than a sweep
that finds everything done may take in all, and a second ledger beside the store could contradict it. The tables read
here (runs, tags, experiments) are MLflow's own; a test holds this reader against MLflow's client. MLflow keeps the
place of artifacts as whole addresses, so those of a store that was moved or copied are written anew (`ensure_store`).

Layout of `mlruns/`: `mlflow.db`; `artifacts/RUN_ID/artifacts/`; `notebooks/` (executed copies); `spool/RUN_ID/` (what a
running cell has written and MLflow has not taken yet); `owners/` and `leases/` (see `lab.study.leases`); `logs/`.
"""

import json
import logging
import os
import shlex
import shutil
import sqlite3
import uuid
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock

from lab import paths
from lab.errors import LabError

EXPERIMENT = "omni-lab"
PREFIX = "omni_lab."
"""Of every tag that the sweep reads back."""
_TAG_LETTERS = 7_000
MODEL, DESCRIPTION = "model", "model.json"
"""The artifact of a run that kept its model, and the file by which a folder is known as one."""
# Of ids in messages, enough of one to name a run, and runs in a message.
_LETTERS, _LEAST_LETTERS, _SHOWN = 8, 4, 10
# MLflow's tables and columns with an address in the folder of artifacts.
_ADDRESSES = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"))
FULL_BYTES = 1_000_000  # with less than that free, a database cannot be written any more


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
        written = [self.tags[name] for name in sorted(self.tags) if name.partition(".")[0] == "results"]
        return dict(json.loads("".join(written) or "{}"))

    def artifact(self, name: str) -> Path:
        """Where that artifact of it lies on this machine."""
        return artifact(self.run_id, name)


def results_tags(results: Mapping[str, float]) -> dict[str, str]:
    """The tags that hold a cell's measured numbers as JSON: several, as MLflow cuts one behind its 8,000th letter."""
    written = json.dumps(dict(results))
    places = range(0, len(written), _TAG_LETTERS)
    return {f"results.{at // _TAG_LETTERS:03}" if at else "results": written[at : at + _TAG_LETTERS] for at in places}


def artifact(run_id: str, name: str) -> Path:
    """Where that artifact of a run lies on this machine."""
    return paths.mlruns_dir() / "artifacts" / run_id / "artifacts" / name


def database() -> Path:
    """The SQLite file of the store."""
    return paths.mlruns_dir() / "mlflow.db"


def store_uri(path: Path | None = None) -> str:
    """The store as MLflow's tracking URI; a path with "%" or "?" in it is escaped."""
    plain = str(path or database())
    # The slashes too: MLflow makes the folders of an address as they are written, escaped ones beside the real ones.
    return f"sqlite:///{quote(plain, safe='') if {*plain} & {*'%?'} else plain}"


def trouble(error: BaseException | str) -> str:
    """Why the store cannot be used, and what helps, as the rest of a sentence."""
    reason = (str(error).strip().splitlines() or ["no message"])[0]
    with suppress(OSError):
        if shutil.disk_usage(paths.mlruns_dir()).free < FULL_BYTES:
            return f"the disk is full ({reason}); free some space and run it again, nothing recorded is lost"
    if "db upgrade" in reason:
        return (
            f"{database()} is of another MLflow; run `mlflow db upgrade {shlex.quote(store_uri())}` where nothing else "
            "has it open"
        )
    if any(sign in reason for sign in ("readonly", "read-only", "Read-only", "unable to open")):
        return f"{paths.mlruns_dir()} cannot be written ({reason}); make it writable, or name another: OMNI_LAB_MLRUNS"
    if any(sign in reason for sign in ("not a database", "malformed", "no such table")):
        return (
            f"{database()} cannot be used ({reason}); restore it from a copy, or name another folder for new runs: "
            f"OMNI_LAB_MLRUNS (keep {paths.mlruns_dir()}, which has the artifacts of all that was recorded)"
        )
    return f"{database()} cannot be used ({reason}); nothing that is recorded there is lost"


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
        connection = sqlite3.connect(f"{database().resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _query(*statements: str, **values: str) -> list[list[tuple[Any, ...]]]:
    """The rows of each statement, as the store is at one moment; none where there is no store yet."""
    if not database().exists():
        return [[] for _ in statements]
    try:
        with closing(_open()) as connection:
            connection.execute("BEGIN")
            return [connection.execute(statement, values).fetchall() for statement in statements]
    except sqlite3.DatabaseError as error:
        raise LabError(f"the store cannot be read: {trouble(error)}") from None


def read_runs(where: str = "TRUE", **values: str) -> list[RunRecord]:
    """The runs that are not deleted, the oldest first; none where there is no store yet.

    Args:
        where: a condition on MLflow's table `runs`, in SQL.
        values: those that it names, as in `:key`.
    """
    chosen = f"lifecycle_stage = 'active' AND {where}"
    runs, tags = _query(
        f"SELECT run_uuid, status, start_time, end_time FROM runs WHERE {chosen} ORDER BY start_time, run_uuid",
        f"SELECT run_uuid, key, value FROM tags WHERE key GLOB '{PREFIX}*' "
        f"AND run_uuid IN (SELECT run_uuid FROM runs WHERE {chosen})",
        **values,
    )
    found: dict[str, dict[str, str]] = {run_id: {} for run_id, *_ in runs}
    for run_id, key, value in tags:
        found[run_id][key.removeprefix(PREFIX)] = value
    return [
        RunRecord(run_id, status, start / 1000, None if end is None else end / 1000, found[run_id])
        for run_id, status, start, end in runs
    ]


def running_runs() -> list[RunRecord]:
    """The runs that say RUNNING."""
    return read_runs("status = 'RUNNING'")


def tagged_runs(tag: str, value: str) -> list[RunRecord]:
    """The runs of which a tag of ours has that value."""
    own = "run_uuid IN (SELECT run_uuid FROM tags WHERE key = :tag AND value = :value)"
    return read_runs(own, tag=f"{PREFIX}{tag}", value=value)


def is_done(key: str) -> bool:
    """Whether a run of the cell of that key has finished."""
    return any(run.tags.get("kind") == "cell" and run.status == "FINISHED" for run in tagged_runs("key", key))


def read_curve(run_id: str, name: str) -> list[tuple[int, float]]:
    """The points (step, value) of a metric by rising step, from the spool of a run that goes on, or the store."""
    spooled: dict[int, float] = {}
    with suppress(FileNotFoundError), (spool_dir(run_id) / "metrics.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            with suppress(ValueError):  # a line that is being written
                metric, step, value, _ = json.loads(line)
                if metric == name:
                    spooled[step] = value
    (points,) = _query(
        "SELECT step, value FROM metrics WHERE run_uuid = :run AND key = :name ORDER BY step, timestamp",
        run=run_id,
        name=name,
    )
    return sorted(spooled.items()) or [(int(step), float(value)) for step, value in points]


def _experiment() -> tuple[str, str]:
    """The experiment's id and where its artifacts are said to be; both empty before it was made."""
    (found,) = _query("SELECT experiment_id, artifact_location FROM experiments WHERE name = :name", name=EXPERIMENT)
    return (str(found[0][0]), str(found[0][1])) if found else ("", "")


def _move_artifacts(before: str, now: str) -> None:
    """Write the addresses of artifacts anew that are in the folder `before`; all of them or none."""
    try:
        with closing(sqlite3.connect(database(), timeout=30)) as connection, connection:
            for table, column in _ADDRESSES:
                connection.execute(
                    f"UPDATE {table} SET {column} = :now || substr({column}, length(:before) + 1) "
                    f"WHERE substr({column} || '/', 1, length(:before) + 1) = :before || '/'",
                    {"before": before, "now": now},
                )
    except sqlite3.DatabaseError as error:
        raise LabError(f"the store was moved here from {before} and cannot be written: {trouble(error)}") from None


def ensure_store() -> str:
    """Make the store unless it is there, take note of where it is if it was moved; return the experiment's id.

    One process does it, under a lock, into a file of another name: processes that create one store together break it
    for good, and so does a creation that is killed half way. A store of an older MLflow is migrated by MLflow's own
    `mlflow db upgrade`, as its client says.

    Raises:
        LabError: the store cannot be read or made.
    """
    folder = paths.mlruns_dir()
    folder.mkdir(parents=True, exist_ok=True)
    here = (folder.resolve() / "artifacts").as_uri()
    found, place = _experiment()
    if found and place == here:
        return found
    with FileLock(folder / "mlflow.db.lock"):
        found, place = _experiment()
        if found:
            if place != here:
                _move_artifacts(place, here)
            return found
        quiet_mlflow()
        from mlflow.tracking import MlflowClient

        fresh = folder / f"mlflow.db.{uuid.uuid4().hex}"
        try:
            client = MlflowClient(tracking_uri=store_uri(fresh))
            made = client.create_experiment(EXPERIMENT, artifact_location=here)
            fresh.replace(database())
        finally:
            fresh.unlink(missing_ok=True)
        with closing(sqlite3.connect(database())) as connection:
            connection.execute("PRAGMA journal_mode = WAL")  # a metric point costs half of what it does without
        return str(made)


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


@dataclass(frozen=True)
class KeptModel:
    """A saved model: its folder, and what it is called in messages and results."""

    folder: Path
    title: str


def find_model(name: str) -> KeptModel | None:
    """The saved model of a folder, or of the one run whose id begins with `name`; None where `name` is neither."""
    if (Path(name) / DESCRIPTION).is_file():
        return KeptModel(Path(name), name)
    if len(name) < _LEAST_LETTERS:
        return None
    found = [run for run in read_runs() if run.run_id.startswith(name)]
    if not found:
        return None
    if len(found) > 1:
        raise LabError(f"{len(found)} runs begin with {name!r}: {', '.join(map(_title, found[:_SHOWN]))}; write more")
    kept = _kept(found[0])
    if kept is None:
        raise LabError(f"run {_title(found[0])} has kept no model ({found[0].status}); {kept_models()}")
    return kept


def open_model(name: str) -> KeptModel:
    """As `find_model`; there has to be one, else a LabError lists the choices."""
    if (kept := find_model(name)) is None:
        raise LabError(f"there is no folder {name} with a saved model, and no run whose id begins so; {kept_models()}")
    return kept


def kept_models() -> str:
    """The runs that kept a model, the newest first, as the rest of a sentence."""
    runs = [run for run in reversed(read_runs()) if _kept(run) is not None]
    if not runs:
        return f"no run in {database().parent} has kept one: train a cell with `lab reproduce`"
    more = f", and {len(runs) - _SHOWN} more" if len(runs) > _SHOWN else ""
    return f"runs that kept one: {', '.join(map(_title, runs[:_SHOWN]))}{more}"


def _kept(run: RunRecord) -> KeptModel | None:
    folder = run.artifact(MODEL)
    return KeptModel(folder, _title(run)) if (folder / DESCRIPTION).is_file() else None


def _title(run: RunRecord) -> str:
    named = [run.tags[name] for name in ("ablation", "row") if run.tags.get(name)]
    seed = [f"seed {run.tags['seed']}"] if "seed" in run.tags else []
    told = ", ".join([*named, *seed]) or run.tags.get("kind", "by hand")
    return f"{run.run_id[:_LETTERS]} ({told})"
