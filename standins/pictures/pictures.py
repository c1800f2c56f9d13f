"""Pictures of things with names in English and Chinese, from packages that everybody can fetch.

The stand-in, where no hub can be reached, for the paper's image data (section 3). Each source's reader also counts what
it leaves out and why: `PICTURE_SOURCES[name]().skipped`.
"""

from collections.abc import Callable

from standins.pictures.emoji import read_emoji
from standins.pictures.stamps import read_stamps
from standins.pictures.things import Picture, PictureReading


def stamps() -> list[Picture]:
    """Return Tux Paint's stamps that have a PNG."""
    return read_stamps().pictures


def emoji() -> list[Picture]:
    """Return Google's emoji, 64 pixels, without other skin tones."""
    return read_emoji().pictures


PICTURE_SOURCES: dict[str, Callable[[], PictureReading]] = {"stamps": read_stamps, "emoji": read_emoji}
