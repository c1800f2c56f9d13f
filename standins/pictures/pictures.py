"""Pictures of things with names in English and Chinese, from packages that everybody can fetch.

The stand-in, where no hub can be reached, for the paper's image data (section 3). Each source's reader also counts what
it leaves out and why: `PICTURE_SOURCES[name]().skipped`.
"""

from collections.abc import Callable

from standins.pictures import stamps as _stamps
from standins.pictures.emoji import read_animated_emoji, read_emoji
from standins.pictures.things import Picture, PictureReading, caption_name, picture_split, thing

__all__ = [
    "PICTURE_SOURCES",
    "Picture",
    "PictureReading",
    "animated_emoji",
    "caption_name",
    "emoji",
    "picture_split",
    "stamps",
    "thing",
]


def stamps() -> list[Picture]:
    """Return Tux Paint's stamps that have a PNG."""
    return _stamps.read().pictures


def emoji() -> list[Picture]:
    """Return Google's emoji, 64 pixels, without other skin tones."""
    return read_emoji().pictures


def animated_emoji() -> list[Picture]:
    """Return the animated emoji, WebP of 256 pixels, without other skin tones."""
    return read_animated_emoji().pictures


PICTURE_SOURCES: dict[str, Callable[[], PictureReading]] = {
    "stamps": _stamps.read,
    "emoji": read_emoji,
    "animated_emoji": read_animated_emoji,
}
