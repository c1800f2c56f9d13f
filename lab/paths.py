"""Where things stand on disk: the checkout, what was fetched or computed once, and the tracked runs."""

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock

# How the name of what is being written begins; a process that was killed leaves it behind.
UNFINISHED = ".part-"


def repository_root() -> Path:
    """The checkout that holds `ablations/`, `notebooks/` and `figures/`.

    `OMNI_LAB_CHECKOUT`, else where the package lies (it is installed editable).
    """
    return Path(os.environ.get("OMNI_LAB_CHECKOUT") or Path(__file__).resolve().parent.parent)


def cache_dir() -> Path:
    """Downloads, corpora, features and pretrained models; `OMNI_LAB_CACHE`, else the user's cache folder."""
    return Path(os.environ.get("OMNI_LAB_CACHE") or platformdirs.user_cache_path("omni-lab"))


def media_dir() -> Path:
    """Unpacked pictures and videos of hub data sets, each in `OWNER/NAME/`; `OMNI_LAB_MEDIA`, else in the cache."""
    return Path(os.environ.get("OMNI_LAB_MEDIA") or cache_dir() / "media")


def mlruns_dir() -> Path:
    """The MLflow store and the executed notebooks; `OMNI_LAB_MLRUNS`, else `mlruns/` in the checkout."""
    return Path(os.environ.get("OMNI_LAB_MLRUNS") or repository_root() / "mlruns")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write that takes the name of `path` when it is whole; else nothing is left, and what was there stays.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # No process id: two machines of a cluster that share the folder may have the same one.
    unfinished = path.with_name(f"{UNFINISHED}{uuid.uuid4().hex}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


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
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=UNFINISHED) as scratch:
                unfinished = Path(scratch, "unfinished")
                unfinished.mkdir()
                make(unfinished)
                unfinished.rename(folder)
    return folder
