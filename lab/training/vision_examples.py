"""The questions about pictures and video that a vision study trains on and is measured by, from named sources."""

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass

from lab.data.fetch import packages
from lab.data.splits import Split
from lab.errors import LabError, choose
from lab.training.hub_examples import hub_examples
from lab.training.vision_example import Sight, VisionExample

# Raise it when the same source and options would give other questions or pictures.
EXAMPLES_VERSION = 1


@dataclass(frozen=True)
class Largest:
    """Frames of the largest sample of a source, and their height and width in pixels."""

    frames: int
    frame_size: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class ExampleSource:
    """How a source's examples are made, how large they may be, and the packages that they are made of.

    `read` takes split, count, sight and the source's own options, `largest` the sight and these options.
    """

    read: Callable[..., list[VisionExample]]
    largest: Callable[..., Largest]
    packages: tuple[str, ...]


def scenes() -> ExampleSource:
    """Video scenes of cut-out pictures that move; SECONDS, EVENTS and KINDS as in `scenes:8-12:2-4:moves,direction`."""
    from standins.questions import SCENES

    return SCENES


def stills() -> ExampleSource:
    """Stills of the same things, with questions that one look answers."""
    from standins.questions import STILLS

    return STILLS


def pages() -> ExampleSource:
    """Pages of small text, seen at their own size; KIND as in `pages:labelled`. One question a page."""
    from standins.questions import PAGES_OF_TEXT

    return PAGES_OF_TEXT


def charts() -> ExampleSource:
    """Charts of random tables, seen at their own size; KINDS as in `charts:bar,pie`. One question a chart."""
    from standins.questions import CHARTS_OF_TABLES

    return CHARTS_OF_TABLES


EXAMPLES: dict[str, Callable[[], ExampleSource]] = {
    "scenes": scenes,
    "stills": stills,
    "pages": pages,
    "charts": charts,
}
"""Named as in "scenes" or "scenes:8-48:2-6"; what follows colons are the options in their order."""
HUB = "@hub:"
"""Between a form and a data set, as in "next_qa@hub:OWNER/NAME:config:split"."""
# As `read_video` shrinks them.
VIDEO_FRAME = (384, 768)


def open_examples(source: str, split: Split, count: int, sight: Sight) -> list[VisionExample]:
    """The first `count` examples of one side of a source.

    Raises:
        LabError: an unknown source, or options that it does not take.
    """
    form, hub, dataset = source.partition(HUB)
    if hub:
        return hub_examples(form, f"hub:{dataset}", split, count, sight)
    name, *options = source.split(":")
    read = _known(name).read
    if len(options) > (most := len(inspect.signature(read).parameters) - 3):
        raise LabError(f"{source!r} has {len(options)} options; source {name!r} takes at most {most}")
    return read(split, count, sight, *options)


def largest_sample(source: str, sight: Sight, *, is_video: bool, image_size: int, max_tiles: int) -> Largest:
    """The most that `open_examples` gives of a sample of that source, known before any of it is there.

    Images of the hub have any size, so they are taken to fill `max_tiles` tiles of `image_size` pixels, one below the
    other; a video is taken to be long enough for all frames that `sight` allows.

    Raises:
        LabError: an unknown source or kind of page, or a range of seconds that is none.
    """
    if HUB in source:
        if is_video:
            return Largest(sight.max_frames, VIDEO_FRAME)
        return Largest(min(1, sight.max_frames), (max_tiles * image_size, image_size))
    name, *options = source.split(":")
    return _known(name).largest(sight, *options)


def sources_sha256(source: str) -> str:
    """A hash of the packages that a source's examples are made of; of a hub's data set, its name alone is known."""
    if HUB in source:
        return hashlib.sha256(source.encode()).hexdigest()
    kind = _known(source.partition(":")[0])
    return hashlib.sha256("".join(packages()[name].sha256 for name in kind.packages).encode()).hexdigest()


def _known(name: str) -> ExampleSource:
    return choose(EXAMPLES, name, "source of pictures or video")()
