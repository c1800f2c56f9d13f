"""Which state of a model or of a data set an evaluation reads, told before it is loaded.

A model's key is part of every answer kept on disk, so it changes with the weights: it holds the pinned SHA-256 of a
package, the SHA-256 of all files of a folder, or the newest commit of a hub's repository.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.data.fetch import packages, sha256_of
from lab.errors import LabError

LETTERS = 16


def weights_key(name: str, known: Mapping[str, Sequence[str]]) -> str:
    """Tell which weights `name` stands for: one of `known` (our names -> their packages), a folder, or a hub's name.

    A hub's name stands for its newest commit, or without network for the commit in the hub's cache.

    Raises:
        LabError: it is none of these; the message lists them.
    """
    if name in known:
        return f"{name}@{_hashed([packages()[package].sha256 for package in known[name]])}"
    if (folder := Path(name)).is_dir():
        if not any(folder.rglob("config.json")):
            raise LabError(f"model folder {name} has no config.json; expected one that transformers saved")
        return f"folder@{files_sha256(folder)}"
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise LabError(
            f"unknown model {name!r}; expected one of {', '.join(sorted(known))}, a local folder, or OWNER/NAME on the "
            "Hugging Face hub"
        )
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        return f"{name}@{str(HfApi().model_info(name, timeout=20).sha)[:LETTERS]}"
    except Exception as error:  # the hub's client raises whatever its network raises
        cached = try_to_load_from_cache(name, "config.json")
        if isinstance(cached, str):
            return f"{name}@{Path(cached).parent.name[:LETTERS]}"  # .../snapshots/COMMIT/config.json
        raise _unreachable("model", name, error) from error


def data_revision(name: str) -> str:
    """The newest commit of a hub's data set (of a branch of it: NAME@BRANCH), or "folder SHA-256" of a folder.

    Raises:
        LabError: neither is there.
    """
    if Path(name).is_dir():
        return f"folder {files_sha256(Path(name))}"
    from huggingface_hub import HfApi

    repository, _, branch = name.partition("@")
    try:
        return str(HfApi().dataset_info(repository, revision=branch or None, timeout=20).sha)
    except Exception as error:  # the hub's client raises whatever its network raises
        raise _unreachable("data set", name, error) from error


def data_state(datasets: Sequence[str]) -> str:
    """The data sets with their revisions, in words."""
    return "; ".join(f"{name} @ {data_revision(name)}" for name in datasets)


def files_sha256(folder: Path) -> str:
    """A hash of all files of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return _hashed([f"{path.relative_to(folder).as_posix()} {sha256_of(path)}" for path in files])


def first_line(error: BaseException) -> str:
    """What an error of a library says first."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _hashed(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:LETTERS]


def _unreachable(what: str, name: str, error: Exception) -> LabError:
    return LabError(
        f"{what} {name!r} cannot be had from the Hugging Face hub: {first_line(error)}; expected its name, with access "
        "and network, or a local folder of the same form"
    )
