"""Who runs which cell: a lease is a file in `mlruns/leases/` that names its owner, so that no cell runs twice.

Two sweeps started at the same moment plan the same cells, and a schedule may overlap the last one: whoever takes a
cell's lease first runs it, the other leaves it alone. A lease is good for as long as its owner lives. On the owner's
own host a lock tells that, whatever the clock does. Another host (an `mlruns/` on a shared disk) cannot rely on it: NFS
3 keeps the lock of a host that lost its power. There the owner's heartbeat tells: the time of its lock file.
What is done stands in the MLflow store; the leases may be deleted whenever no sweep runs.
"""

import fcntl
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from lab import paths
from lab.errors import LabError
from lab.study.store import RunRecord

SILENT_SECONDS = 120.0  # an owner on another host without a heartbeat for so long is watched,
WATCH_SECONDS = 15.0  # and taken for dead when none comes meanwhile


def folder() -> Path:
    """Where the leases lie, a file each, named by the cell's key."""
    return paths.mlruns_dir() / "leases"


def owner_file(name: str) -> Path:
    """The file that the owner of that name holds locked for as long as it lives; its time is the last heartbeat."""
    return paths.mlruns_dir() / "owners" / f"{name}.lock"


@contextmanager
def owner() -> Iterator[dict[str, str]]:
    """Be the owner of runs for as long as the context lasts; yields the tags that say so.

    A process that dies in any way lets go of its lock, which a process id alone would not tell: ids are used again.
    """
    name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    path = owner_file(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path):
            yield {"owner": name, "host": socket.gethostname(), "pid": str(os.getpid())}
    finally:
        path.unlink(missing_ok=True)


def beat(owner: Mapping[str, str]) -> None:
    """Say to other hosts that this owner lives."""
    with suppress(OSError):  # a lease that cannot be taken says what is wrong
        os.utime(owner_file(owner["owner"]))


def lives(owner: Mapping[str, str]) -> bool:
    """Whether an owner (what `owner` yields) is still there."""
    path = owner_file(owner["owner"])
    if owner["host"] != socket.gethostname():
        return _beats(path)
    try:
        # Shared, so that two who ask at once are not taken for the owner, and a living one costs no waiting.
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _beats(path: Path) -> bool:
    """Whether the heart of an owner on another host beats.

    Its clock or ours may be wrong, or have jumped: what looks old is watched for some time by a clock that cannot.
    """
    last = now = _last_beat(path)
    ends = time.monotonic() + WATCH_SECONDS
    while last is not None and now == last and abs(time.time() - last) >= SILENT_SECONDS:
        if time.monotonic() >= ends:
            return False
        time.sleep(WATCH_SECONDS / 15)
        now = _last_beat(path)
    return now is not None


def _last_beat(path: Path) -> float | None:
    """None where the owner has left."""
    try:
        with path.open("rb") as file:  # of an open file, as a network's disk may remember what a path was
            return os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None


@contextmanager
def _alone() -> Iterator[None]:
    """One at a time, on every host; a full disk or a folder that cannot be written is a LabError."""
    try:
        folder().mkdir(parents=True, exist_ok=True)
        with FileLock(paths.mlruns_dir() / "leases.lock"):
            yield
    except OSError as error:
        raise LabError(
            f"the leases in {folder()} cannot be written ({error}); free some disk or make the folder writable, or, "
            "where no sweep is running, delete it"
        ) from None


def _holder(key: str) -> dict[str, str] | None:
    try:
        return dict(json.loads((folder() / key).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):  # the second: a disk that was full when it was written
        return None


def take(key: str, owner: Mapping[str, str]) -> bool:
    """Take the cell of that key for `owner`; False where somebody who lives has it."""
    dead = None
    while True:
        with _alone():
            held = _holder(key)
            if held in (None, dead, dict(owner)):
                (folder() / key).write_text(json.dumps(dict(owner)), encoding="utf-8")
                return True
        # Not asked while nobody else can take or give back: another host's owner may have to be watched.
        assert held is not None
        if lives(held):
            return False
        dead = held


def release(key: str, owner: Mapping[str, str]) -> None:
    """Give the cell back, whatever became of it; nothing where it is another's."""
    with _alone():
        if _holder(key) == dict(owner):
            (folder() / key).unlink()


def is_abandoned(run: RunRecord) -> bool:
    """Whether the run says RUNNING though the process that owned it is gone.

    Only sweeps beat a heart, so that another host cannot tell of what somebody runs by hand.
    """
    if run.status != "RUNNING" or "owner" not in run.tags:
        return False
    own = {"owner": run.tags["owner"], "host": run.tags.get("host", "")}
    told = own["host"] == socket.gethostname() or "ablation" in run.tags
    return told and not lives(own)
