"""Where things stand on disk: the checkout, what was fetched or computed once, and the tracked runs."""

import codecs
import glob
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import platformdirs
from filelock import FileLock

from lab.errors import LabError

# How the name of what is being written begins; a process that was killed leaves it behind, until it is made again.
UNFINISHED = ".part-"
_LEFT_SECONDS = 24 * 3600.0  # a file that nobody has written to for so long is no longer being written


def repository_root() -> Path:
    """The checkout that holds `ablations/`, `notebooks/` and `figures/`.

    `OMNI_LAB_CHECKOUT`, else where the package lies (it is installed editable).
    """
    return Path(os.environ.get("OMNI_LAB_CHECKOUT") or Path(__file__).resolve().parent.parent)


def cache_dir() -> Path:
    """Downloads, corpora, features and pretrained models; `OMNI_LAB_CACHE`, else the user's cache folder.

    Raises:
        LabError: neither is there: a user without a home, as in some containers.
    """
    try:
        return Path(os.environ.get("OMNI_LAB_CACHE") or platformdirs.user_cache_path("omni-lab"))
    except RuntimeError as error:
        raise LabError(f"there is no folder for the cache ({error}); name one with OMNI_LAB_CACHE") from None


def media_dir() -> Path:
    """Unpacked pictures and videos of hub data sets, each in `OWNER/NAME/`; `OMNI_LAB_MEDIA`, else in the cache."""
    return Path(os.environ.get("OMNI_LAB_MEDIA") or cache_dir() / "media")


def mlruns_dir() -> Path:
    """The MLflow store and the executed notebooks; `OMNI_LAB_MLRUNS`, else `mlruns/` in the checkout."""
    return Path(os.environ.get("OMNI_LAB_MLRUNS") or repository_root() / "mlruns")


def read_text(path: Path) -> str:
    """Read a file that somebody wrote: UTF-8, or UTF-16 as a byte-order mark at its start says.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is neither.
    """
    data = path.read_bytes()
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if wide else "utf-8-sig")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write that takes the name of `path` when it is whole; else nothing is left, and what was there stays.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_old(path.parent)
    # No process id: two machines of a cluster that share the folder may have the same one.
    unfinished = path.with_name(f"{UNFINISHED}{uuid.uuid4().hex}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@cache
def _remove_old(folder: Path) -> None:
    """Remove what killed processes left of files, once a process: a folder may hold a hundred thousand."""
    for left in folder.glob(f"{UNFINISHED}*"):
        with suppress(OSError):  # another process removes it too
            if left.is_file() and time.time() - left.stat().st_mtime > _LEFT_SECONDS:
                left.unlink()


def write_whole(path: Path, content: str | bytes) -> Path:
    """Write a file whole or not at all, in place of the one that is there; lines of a text end in LF everywhere.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    with whole(path) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def make_folder(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return `folder`; where it is not there yet, `make` fills an empty one, which then takes its name.

    So a folder is whole or not there, whatever kills the process, and made once: who asks at the same moment, in
    another process too, waits for the first (`FOLDER.lock`).

    Raises:
        OSError: it cannot be written.
    """
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            with scratch_folder(folder) as scratch:
                unfinished = Path(scratch, "unfinished")
                unfinished.mkdir()
                make(unfinished)
                unfinished.rename(folder)
    return folder


@contextmanager
def scratch_folder(folder: Path) -> Iterator[str]:
    """A folder beside this one, whose lock is held, for what is to take its place.

    What killed processes left of it is removed at the end: it may hold what was there before.
    """
    prefix = f"{UNFINISHED}{folder.name}."
    left = list(folder.parent.glob(f"{glob.escape(prefix)}{'?' * 8}"))  # as tempfile names them
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=prefix) as scratch:
        yield scratch
    for one in left:
        shutil.rmtree(one, ignore_errors=True)
