"""Which state of a data set an evaluation reads: a commit of the hub, or the SHA-256 of a folder's files."""

import hashlib
from pathlib import Path

from lab.data.fetch import sha256_of
from lab.errors import LabError

_LETTERS = 16


def data_revision(name: str, branch: str | None = None) -> str:
    """The newest commit of a hub's data set (of a branch of it), or "folder SHA-256" where `name` is a folder.

    Raises:
        LabError: neither is there.
    """
    folder = Path(name)
    if folder.is_dir():
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        hashes = "\n".join(f"{path.relative_to(folder).as_posix()} {sha256_of(path)}" for path in files)
        return f"folder {hashlib.sha256(hashes.encode()).hexdigest()[:_LETTERS]}"
    from huggingface_hub import HfApi

    hub = HfApi()
    try:
        if branch is not None:
            return str(hub.dataset_info(name, revision=branch, timeout=20).sha)
        return str(hub.dataset_info(name, timeout=20).sha)
    except Exception as error:  # the hub's client raises whatever its network raises
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise LabError(
            f"data set {name!r} cannot be had from the Hugging Face hub: {why}; expected its name, with access and "
            "network, or a local folder of the same form"
        ) from error
