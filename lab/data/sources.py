"""Samples of pictures and video from named sources: what a study trains on and is measured by.

Section 3 of the paper: captions and instructions for images, OCR and charts, ShareGPT4Video, WebVid, ActivityNet-QA,
NExT-QA. A source is named with its options, as in "scenes:8-48:2-6", or by a form of the hub's data and a data set, as
in "next_qa@hub:OWNER/NAME:config:split".
"""

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace

from lab.data.fetch import packages
from lab.data.filters.filtering import LeftOut, left_out_account
from lab.data.forms import FORMS
from lab.data.hub import PREFIX, parse_name, pinned_revision, read_samples
from lab.data.sample import Image, Sample, UniqueIds, Video
from lab.data.splits import Split
from lab.data.video import VIDEO_FRAME, Sight
from lab.errors import LabError, choose

# Raise it when the same source and options would give other samples or pictures.
SAMPLES_VERSION = 1
HUB = f"@{PREFIX}"
"""Between a form and a data set."""


@dataclass(frozen=True)
class Largest:
    """Frames of the largest sample of a source, and their height and width in pixels."""

    frames: int
    frame_size: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class SampleSource:
    """How a source's samples are made, how large they may be, and the packages that they are made of.

    `read` takes split, count and the source's own options, `largest` a `Sight` and these options.
    """

    read: Callable[..., list[Sample]]
    largest: Callable[..., Largest]
    packages: tuple[str, ...]


def scenes() -> SampleSource:
    """Video scenes of cut-out pictures that move; SECONDS, EVENTS and KINDS as in `scenes:8-12:2-4:moves,direction`."""
    from standins.questions import SCENES

    return SCENES


def stills() -> SampleSource:
    """Stills of the same things, with questions that one look answers."""
    from standins.questions import STILLS

    return STILLS


def pages() -> SampleSource:
    """Pages of small text, seen at their own size; KIND as in `pages:labelled`. One question a page."""
    from standins.questions import PAGES_OF_TEXT

    return PAGES_OF_TEXT


def transcripts() -> SampleSource:
    """The same pages, to be written down; KIND as there."""
    from standins.questions import TRANSCRIPTS

    return TRANSCRIPTS


def charts() -> SampleSource:
    """Charts of random tables, seen at their own size; KINDS as in `charts:bar,pie`. One question a chart."""
    from standins.questions import CHARTS_OF_TABLES

    return CHARTS_OF_TABLES


SAMPLE_SOURCES: dict[str, Callable[[], SampleSource]] = {
    "scenes": scenes,
    "stills": stills,
    "pages": pages,
    "transcripts": transcripts,
    "charts": charts,
}
"""Named as in "scenes" or "scenes:8-48:2-6"; what follows colons are the options in their order."""


def is_source(name: str) -> bool:
    """Whether a name is one of pictures or video, as far as its form tells."""
    return HUB in name or name.partition(":")[0] in SAMPLE_SOURCES


def check_source(name: str) -> None:
    """Refuse a name that no source has, before anything is read."""
    form, hub, _ = name.partition(HUB)
    if hub:
        choose(FORMS, form, "form of a data set")
    else:
        _known(name.partition(":")[0])


def open_samples(source: str, split: Split, count: int) -> tuple[list[Sample], LeftOut]:
    """The first `count` samples of one side of a source, and what was left out on the way.

    Raises:
        LabError: an unknown source, options that it does not take, or no sample that can be used.
    """
    form, hub, dataset = source.partition(HUB)
    if hub:
        return _of_hub(form, f"{PREFIX}{dataset}", split, count)
    name, *options = source.split(":")
    read = _known(name).read
    if len(options) > (most := len(inspect.signature(read).parameters) - 2):
        raise LabError(f"{source!r} has {len(options)} options; source {name!r} takes at most {most}")
    return [replace(sample, source=source) for sample in read(split, count, *options)], LeftOut()


def _of_hub(form: str, name: str, split: Split, count: int) -> tuple[list[Sample], LeftOut]:
    """Of the split that `name` names itself, else of `split`; samples of one id are numbered."""
    named = name if name.count(":") > 2 else f"{name}{':' * (3 - name.count(':'))}{split}"
    reading = read_samples(named, form=form)
    found: list[Sample] = []
    ids = UniqueIds("-")
    for sample in reading.samples:
        if not any(isinstance(part, Image | Video) for part in sample.content):
            reading.left_out.add("neither picture nor video", sample.id)
            continue
        found.append(replace(sample, id=f"{form}-{ids(sample.id)}"))
        if len(found) == count:
            break
    if not found:
        raise LabError(f"{name!r} has no row of form {form!r} that can be used; {left_out_account(reading.left_out)}")
    return found, reading.left_out


def largest_sample(source: str, sight: Sight, *, is_video: bool, image_size: int, max_tiles: int) -> Largest:
    """The most that `open_samples` gives of a sample of that source, known before any of it is there.

    Images of the hub have any size, so one is taken to fill `max_tiles` tiles of `image_size` pixels, one below the
    other; a video is taken to be long enough for all frames that `sight` allows.
    """
    if HUB in source:
        if is_video:
            return Largest(sight.max_frames, VIDEO_FRAME)
        return Largest(1, (max_tiles * image_size, image_size))
    name, *options = source.split(":")
    return _known(name).largest(sight, *options)


def sources_sha256(source: str) -> str:
    """A hash of the packages that a source's samples are made of; of a hub's data set or a folder, of its state."""
    if HUB in source:
        state = pinned_revision(parse_name(source.partition(HUB)[2])[0])
        return hashlib.sha256(f"{source} {state}".encode()).hexdigest()
    made_of = _known(source.partition(":")[0]).packages
    return hashlib.sha256("".join(packages()[name].sha256 for name in made_of).encode()).hexdigest()


def _known(name: str) -> SampleSource:
    return choose(SAMPLE_SOURCES, name, "source of pictures or video")()
