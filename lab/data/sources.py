"""Samples from named sources: what a study trains on and is measured by.

Section 3 of the paper: captions and instructions for images, OCR and charts, ShareGPT4Video, WebVid, ActivityNet-QA,
NExT-QA, speech, text. A source is named with its options, as in "scenes:8-48:2-6", or by a form of the hub's data and a
data set, as in "next_qa@hub:OWNER/NAME:config:split". Behind some names stands that of other data, which they open or
change: "speech:amazon_queen", "spoken:espeak:stills" (`OUTER_SOURCES`).
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
    """What the largest sample of a source holds: frames, their height and width in pixels, sounds, a question in text.

    Frames of a picture are pictures.
    """

    frames: int = 0
    frame_size: tuple[int, int] = (0, 0)
    is_video: bool = False
    sounds: int = 0
    asked: bool = True


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


def descriptions() -> SampleSource:
    """The same stills, to be described: what there is, how large and where."""
    from standins.questions import DESCRIPTIONS

    return DESCRIPTIONS


def grounding() -> SampleSource:
    """The same stills, of which a thing is to be found: its box, "35 5 65 35" of percent; GRID as in `grounding:10`."""
    from standins.questions import GROUNDING

    return GROUNDING


def maths() -> SampleSource:
    """Pictures of sums, differences and products, to be worked out."""
    from standins.questions import MATHS

    return MATHS


def interleaved() -> SampleSource:
    """Documents of three pictures, each but the last with its name behind it; the last one's is to be written."""
    from standins.questions import INTERLEAVED

    return INTERLEAVED


def charts() -> SampleSource:
    """Charts of random tables, seen at their own size; KINDS and QUESTIONS as in `charts:bar,line:comparison,trend`."""
    from standins.questions import CHARTS_OF_TABLES

    return CHARTS_OF_TABLES


SAMPLE_SOURCES: dict[str, Callable[[], SampleSource]] = {
    "scenes": scenes,
    "stills": stills,
    "descriptions": descriptions,
    "grounding": grounding,
    "maths": maths,
    "interleaved": interleaved,
    "pages": pages,
    "transcripts": transcripts,
    "charts": charts,
}
"""Named as in "scenes" or "scenes:8-48:2-6"; what follows colons are the options in their order."""


@dataclass(frozen=True, kw_only=True)
class OuterSource:
    """A name before that of other data: it opens these, or changes their samples.

    `read` takes split, count, the other name and its own options. `check` and `state` take the last two, to refuse what
    there is not, and to tell what its samples are made of; `largest` takes them behind what tells the `Largest` of the
    other name, of whose size pictures are unless they are of `any_size`. `options` name what stands between the names.
    """

    read: Callable[..., tuple[list[Sample], LeftOut]]
    check: Callable[..., None]
    state: Callable[..., str]
    largest: Callable[..., Largest] = lambda inside, inner, *options: inside(inner)
    options: tuple[str, ...] = ()
    any_size: bool = False


def speech() -> OuterSource:
    """A corpus of speech, as in `speech:amazon_queen` or `speech:hub:OWNER/NAME`: utterances to be transcribed."""
    from lab.data.speech.corpora import UTTERANCES

    return UTTERANCES


def text() -> OuterSource:
    """Instructions of text alone, as in `text:bigbench:plurals+chatterbot`."""
    from lab.data.instructions.instructions import INSTRUCTIONS

    return INSTRUCTIONS


def built() -> OuterSource:
    """What `lab data build` built, by the recipe's name or a folder, as in `built:sft`; of each side what is of it."""
    from lab.data.recipes.card import BUILT

    return BUILT


def spoken() -> OuterSource:
    """The last thing that is written of each sample is said by a voice of ENGINES, as in `spoken:espeak:stills`."""
    from lab.data.cross_modal import SPOKEN

    return SPOKEN


def quarters() -> OuterSource:
    """The first quarter of each answer is heard, the rest is to be written, as in `quarters:espeak:descriptions`."""
    from lab.data.cross_modal import QUARTERS

    return QUARTERS


def sounding() -> OuterSource:
    """Each video's own sound track is heard after it, as in `sounding:next_qa@hub:OWNER/NAME`."""
    from lab.data.cross_modal import SOUNDING

    return SOUNDING


def drawn() -> OuterSource:
    """The last thing that is written of each sample is drawn as a picture to be read, as in `drawn:text:bigbench`."""
    from standins.pages.rendered_prompts import DRAWN

    return DRAWN


def swapped() -> OuterSource:
    """A control: the MEDIA of each sample are those of a sample of another group, as in `swapped:image:stills`."""
    from lab.data.cross_modal import SWAPPED

    return SWAPPED


def lacking() -> OuterSource:
    """A control: samples without their MEDIA, as in `lacking:audio+image:spoken:espeak:stills`."""
    from lab.data.cross_modal import LACKING

    return LACKING


def kept() -> OuterSource:
    """Training samples that pass FILTERS of SAMPLE_FILTERS, as in `kept:said+known:DATA`, `kept:random=loss:DATA`."""
    from lab.training.sample_filters import KEPT

    return KEPT


def worded() -> OuterSource:
    """Numbers are written in words, for a language model without digits, as in `worded:maths`."""
    from standins.questions import WORDED

    return WORDED


OUTER_SOURCES: dict[str, Callable[[], OuterSource]] = {
    "speech": speech,
    "text": text,
    "built": built,
    "spoken": spoken,
    "quarters": quarters,
    "sounding": sounding,
    "drawn": drawn,
    "swapped": swapped,
    "lacking": lacking,
    "worded": worded,
    "kept": kept,
}
"""Named with their options and other data behind, as in "spoken:espeak:stills"."""


def is_source(name: str) -> bool:
    """Whether a name is one of samples of any media, as far as its form tells."""
    return HUB in name or name.partition(":")[0] in {**SAMPLE_SOURCES, **OUTER_SOURCES}


def _outer(name: str) -> tuple[OuterSource, tuple[str, ...]] | None:
    """Of a name before other data what it is, and its arguments: the other name, and the options."""
    first, *rest = name.split(":")
    if first not in OUTER_SOURCES:
        return None
    outer = OUTER_SOURCES[first]()
    options, inner = rest[: len(outer.options)], ":".join(rest[len(outer.options) :])
    if not inner:
        expected = ":".join((first, *outer.options, "DATA"))
        raise LabError(f"{name!r} names no data; expected {expected}")
    return outer, (inner, *options)


def check_source(name: str) -> None:
    """Refuse a name that no source has, before anything is read."""
    form, hub, _ = name.partition(HUB)
    if found := _outer(name):
        outer, given = found
        outer.check(*given)
    elif hub:
        choose(FORMS, form, "form of a data set")
    else:
        _known(name.partition(":")[0])


def open_samples(source: str, split: Split, count: int) -> tuple[list[Sample], LeftOut]:
    """The first `count` samples of one side of a source, and what was left out on the way.

    Raises:
        LabError: an unknown source, options that it does not take, or no sample that can be used.
    """
    form, hub, dataset = source.partition(HUB)
    if found := _outer(source):
        outer, given = found
        samples, left_out = outer.read(split, count, *given)
        return [replace(sample, source=source) for sample in samples], left_out
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

    Images of the hub and of what is built have any size, so one is taken to fill `max_tiles` tiles of `image_size`
    pixels, one below the other; a video is taken to be long enough for all frames that `sight` allows. `is_video` is
    for sources that hold either.
    """
    found, (form, hub, _) = _outer(source), source.partition(HUB)
    if found and not found[0].any_size:
        outer, given = found
        size = {"image_size": image_size, "max_tiles": max_tiles}
        return outer.largest(lambda inner: largest_sample(inner, sight, is_video=is_video, **size), *given)
    if found or hub:
        if is_video or (not found and choose(FORMS, form, "form of a data set").is_video):
            return Largest(sight.max_frames, VIDEO_FRAME, is_video=True)
        return Largest(1, (max_tiles * image_size, image_size))
    name, *options = source.split(":")
    return _known(name).largest(sight, *options)


def sources_sha256(source: str) -> str:
    """A hash of the packages that a source's samples are made of; of a hub's data set or a folder, of its state."""
    if found := _outer(source):
        outer, given = found
        return hashlib.sha256(f"{source} {outer.state(*given)}".encode()).hexdigest()
    if HUB in source:
        state = pinned_revision(parse_name(source.partition(HUB)[2])[0])
        return hashlib.sha256(f"{source} {state}".encode()).hexdigest()
    made_of = _known(source.partition(":")[0]).packages
    return hashlib.sha256("".join(packages()[name].sha256 for name in made_of).encode()).hexdigest()


def _known(name: str) -> SampleSource:
    choose(dict.fromkeys((*SAMPLE_SOURCES, *OUTER_SOURCES)), name, "source of samples")
    return SAMPLE_SOURCES[name]()
