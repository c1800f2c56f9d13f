"""Where media come from: files, bytes, web addresses that are fetched once and kept, and what is drawn when read."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.paths import cache_dir, media_dir


@dataclass(frozen=True)
class Drawn:
    """Media that are made each time they are read: a scene, a page of text, a sentence that a voice says.

    `draw` is called with `given`, and of what is seen with the `Sight` after it.
    """

    draw: Callable[..., Any]
    given: tuple[Any, ...]

    def read(self, *sight: Any) -> Any:
        """What `draw` makes."""
        return self.draw(*self.given, *sight)


Media = Path | bytes | str | Drawn
"""A file, a file's bytes, a web address, or what is drawn."""


def media_file(media: Path | bytes | str) -> Path:
    """A path to a picture, sound or video; bytes and what a web address leads to are kept in the cache, once.

    Raises:
        LabError: there is no such file, or the address cannot be read.
    """
    if isinstance(media, Path):
        if not media.exists():
            unpacked = (
                f"; expected the unpacked files of the data set in its folder under {media_dir()} (OMNI_LAB_MEDIA sets "
                "that one)"
                if media.is_relative_to(media_dir())
                else ""
            )
            raise LabError(f"{media} is not there{unpacked}")
        return media
    key = media if isinstance(media, bytes) else media.encode()
    suffix = "" if isinstance(media, bytes) else Path(media.partition("?")[0]).suffix
    path = cache_dir() / "media" / f"{hashlib.sha256(key).hexdigest()}{suffix}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_bytes(media if isinstance(media, bytes) else _downloaded(media))
        part.rename(path)
    return path


def _downloaded(address: str) -> bytes:
    from datasets.utils.file_utils import xopen

    try:
        with xopen(address, "rb") as file:
            return bytes(file.read())
    except Exception as error:  # whatever the network raises
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise LabError(f"{address} cannot be read: {why}; check the network and the address") from error
