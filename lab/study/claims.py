"""Who runs which cell: a claim in `mlruns/claims.db`, taken in one transaction, so that no cell runs twice.

Two sweeps started at the same moment plan the same cells, and a schedule may overlap the last one: whoever claims a
cell first runs it, the other leaves it alone. A claim is good for as long as its owner lives. On the owner's own host a
lock tells that, whatever the clock does; from another host (an `mlruns/` on a shared disk) the owner's heartbeat does.
What is done stands in the MLflow store; this file may be deleted whenever no sweep runs.
"""

import socket
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from lab import paths
from lab.errors import LabError
from lab.study import store
from lab.study.store import RunRecord

BEAT_SECONDS = 5.0
SILENT_SECONDS = 120.0  # an owner on another host without a heartbeat for so long is watched,
WATCHED_BEATS = 3  # and taken for dead when none comes meanwhile

_TABLE = """CREATE TABLE IF NOT EXISTS claims (
    key TEXT PRIMARY KEY, owner TEXT NOT NULL, host TEXT NOT NULL, pid TEXT NOT NULL, title TEXT NOT NULL,
    heartbeat REAL NOT NULL
)"""


def database() -> Path:
    """The SQLite file of the claims."""
    return paths.mlruns_dir() / "claims.db"


@contextmanager
def _transaction() -> Iterator[sqlite3.Connection]:
    """One writer at a time; all of it or nothing."""
    try:
        with closing(sqlite3.connect(database(), timeout=60, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_TABLE)
            yield connection
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise LabError(
            f"the claims in {database()} cannot be used ({error}); free some disk or make the folder writable, or, "
            "where no sweep is running, delete the file"
        ) from None


def _is_silent(held: tuple[str, str, float]) -> bool:
    """Whether the heart of an owner on another host has stopped.

    Its clock or ours may be wrong, or have jumped: what looks old is watched for some beats by a clock that cannot.
    """
    owner, _, heartbeat = held
    if abs(time.time() - heartbeat) < SILENT_SECONDS:
        return False
    ends = time.monotonic() + WATCHED_BEATS * BEAT_SECONDS
    while time.monotonic() < ends:
        time.sleep(BEAT_SECONDS / 5)
        if _last_beat(owner) != heartbeat:
            return False
    return True


def _last_beat(owner: str) -> float | None:
    with _transaction() as connection:
        newest: float | None = connection.execute(
            "SELECT MAX(heartbeat) FROM claims WHERE owner = ?", (owner,)
        ).fetchone()[0]
    return newest


def claim(key: str, title: str, owner: Mapping[str, str]) -> bool:
    """Take the cell of that key for `owner` (what `store.owner` yields); False where somebody who lives has it.

    Raises:
        LabError: a full disk, a folder that cannot be written, a damaged file.
    """
    silent = None
    while True:
        with _transaction() as connection:
            held = connection.execute("SELECT owner, host, heartbeat FROM claims WHERE key = ?", (key,)).fetchone()
            here = held is not None and held[1] == socket.gethostname()
            if held in (None, silent) or held[0] == owner["owner"] or (here and not store.owner_lives(held[0])):
                connection.execute(
                    "INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, ?, ?)",
                    (key, owner["owner"], owner["host"], owner["pid"], title, time.time()),
                )
                return True
        # Not watched within the transaction: the owner could not write its beat.
        if here or not _is_silent(held):
            return False
        silent = held


def is_abandoned(run: RunRecord) -> bool:
    """Whether the run says RUNNING though the process that owned it is gone.

    A cell on another host is, where its owner's heart has stopped or it holds no claim: a cell is claimed before its
    run begins, and released after it has ended.
    """
    if run.status != "RUNNING" or "owner" not in run.tags:
        return False
    if run.tags.get("host") == socket.gethostname():
        return not store.owner_lives(run.tags["owner"])
    if run.tags.get("kind") != "cell":
        return False
    last = _last_beat(run.tags["owner"])
    return last is None or _is_silent((run.tags["owner"], run.tags.get("host", ""), last))


def beat(owner: Mapping[str, str]) -> None:
    """Say that this owner lives."""
    with _transaction() as connection:
        connection.execute("UPDATE claims SET heartbeat = ? WHERE owner = ?", (time.time(), owner["owner"]))


def release(key: str, owner: Mapping[str, str]) -> None:
    """Give the cell back, whatever became of it; nothing where it is another's."""
    with _transaction() as connection:
        connection.execute("DELETE FROM claims WHERE key = ? AND owner = ?", (key, owner["owner"]))
