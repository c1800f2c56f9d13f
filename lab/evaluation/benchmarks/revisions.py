"""Which state of a model or of a data set an evaluation reads, told before it is loaded.

A model's key is part of every answer kept on disk, so it must change with the weights: it holds the pinned SHA-256 of a
package, the SHA-256 of all files of a folder, or the commit of a hub's repository.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.data.fetch import fetch, packages, sha256_of
from lab.errors import LabError

_LETTERS = 16


@dataclass(frozen=True, kw_only=True)
class ModelRevision:
    """A model's weights, not fetched yet."""

    name: str
    key: str
    packages: tuple[str, ...] = ()
    """Of our own names; of anything else there is none."""
    revision: str = ""
    """The commit, of a model of the hub."""

    def open(self) -> tuple[Path, ...]:
        """Fetch what is missing and return the folders of the weights, one where it is no package.

        Raises:
            LabError: a package or the hub's repository cannot be had.
        """
        if self.packages:
            return tuple(fetch(package) for package in self.packages)
        if not self.revision:
            return (Path(self.name),)
        from huggingface_hub import snapshot_download

        try:  # twice the weights is a download too many: transformers reads safetensors where both are there
            found = _list_files(self.name, self.revision)
            double = ["*.bin", "*.pt", "*.h5", "*.msgpack"] if any(f.endswith(".safetensors") for f in found) else None
            return (Path(snapshot_download(self.name, revision=self.revision, ignore_patterns=double)),)
        except Exception as error:  # the hub's client raises whatever its network raises
            raise _unreachable("model", self.name, error) from error


def find_checkpoint(name: str, known: Mapping[str, Sequence[str]]) -> ModelRevision:
    """Tell which weights `name` stands for: one of `known` (our names -> their packages), a folder, or a hub's name.

    A hub's name stands for its newest commit, or without network for the commit in the hub's cache.

    Raises:
        LabError: it is none of these; the message lists them.
    """
    if name in known:
        pinned = [packages()[package].sha256 for package in known[name]]
        return ModelRevision(name=name, key=f"{name}@{_hashed(pinned)}", packages=tuple(known[name]))
    if (folder := Path(name)).is_dir():
        if not any(folder.rglob("config.json")):
            raise LabError(f"model folder {name} has no config.json; expected one that transformers saved")
        return ModelRevision(name=name, key=f"folder@{files_sha256(folder)}")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise LabError(
            f"unknown model {name!r}; expected one of {', '.join(sorted(known))}, a local folder, or OWNER/NAME on the "
            "Hugging Face hub"
        )
    revision = _revision(name)
    return ModelRevision(name=name, key=f"{name}@{revision[:_LETTERS]}", revision=revision)


def data_revision(name: str, branch: str | None = None) -> str:
    """The newest commit of a hub's data set (of a branch of it), or "folder SHA-256" where `name` is a folder.

    Raises:
        LabError: neither is there.
    """
    if Path(name).is_dir():
        return f"folder {files_sha256(Path(name))}"
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(name, revision=branch, timeout=20).sha)
    except Exception as error:  # the hub's client raises whatever its network raises
        raise _unreachable("data set", name, error) from error


def files_sha256(folder: Path) -> str:
    """A hash of all files of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return _hashed([f"{path.relative_to(folder).as_posix()} {sha256_of(path)}" for path in files])


def _hashed(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:_LETTERS]


def _revision(name: str) -> str:
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        return str(HfApi().model_info(name, timeout=20).sha)
    except Exception as error:  # the hub's client raises whatever its network raises
        cached = try_to_load_from_cache(name, "config.json")
        if isinstance(cached, str):
            return Path(cached).parent.name  # .../snapshots/COMMIT/config.json
        raise _unreachable("model", name, error) from error


def _list_files(name: str, revision: str) -> list[str]:
    from huggingface_hub import HfApi

    try:
        return HfApi().list_repo_files(name, revision=revision)
    except Exception:  # without network, from the cache: nothing is downloaded twice then
        return []


def _unreachable(what: str, name: str, error: Exception) -> LabError:
    why = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return LabError(
        f"{what} {name!r} cannot be had from the Hugging Face hub: {why}; expected its name, with access and network, "
        "or a local folder of the same form"
    )
