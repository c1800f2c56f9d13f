"""Cross-modal samples: what is written of others is heard, and the controls that tell whether eye and ear are used.

Section 3 of the paper: image and prompt stay, a quarter of the answer is spoken, the rest is to be written.

The paper speaks the first quarter with 44 timbres; a video brings its own sound track instead. Places in a text count
characters from the start; words part at blanks, Chinese between characters.
"""

import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from lab.data.filters.filtering import Dropped, LeftOut, made_of_each
from lab.data.sample import Audio, Drawn, Image, Part, Sample, Text, Video, media_file
from lab.data.sources import Largest, OuterSource, check_source, open_samples, sources_sha256
from lab.data.speech.spoken_prompts import ENGINES, Speakers, timbres
from lab.data.splits import Split, held_out_speakers
from lab.data.video import read_sound
from lab.errors import LabError, TryAgain, choose

_SPOKEN_SHARE = 0.25
_HELD_OUT_VOICES = 0.2
_MIN_UNITS = 4
# Han, kana and their extensions: scripts without blanks between words.
_UNSPACED = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))


def spoken_quarters(samples: Iterable[Sample], speakers: Speakers, left_out: LeftOut) -> Iterator[Sample]:
    """Split each answer 1:3: its first quarter stands after the content as a sound, the rest is the answer.

    The quarter is said when the sound is read. Answers that are too short or have no place to part them are left out
    and named; so are samples of neither image nor video.
    """

    def make(sample: Sample) -> Sample:
        if not any(isinstance(part, Image | Video) for part in sample.content):
            raise Dropped("neither image nor video")
        try:
            quarter = split_quarter(sample.answer, sample=sample.id)
        except LabError as error:
            raise Dropped("answer that cannot be split") from error
        spoken = speakers.say(sample.id, quarter.spoken)
        return replace(sample, content=(*sample.content, spoken), answer=quarter.written, choices=())

    return made_of_each(samples, make, left_out)


def with_own_sound(samples: Iterable[Sample], left_out: LeftOut) -> Iterator[Sample]:
    """Give each video its own sound track, as a sound after it; what has none, or a broken one, is left out and named.

    A sound is decoded once as its sample passes, to know that it can be.
    """

    def make(sample: Sample) -> Sample:
        videos = [part for part in sample.content if isinstance(part, Video)]
        if len(videos) != 1 or isinstance(videos[0].source, Drawn):
            raise Dropped("not of one video with a file")
        try:
            sound = read_sound(media_file(videos[0].source))
        except TryAgain:
            raise
        except LabError as error:
            raise Dropped("sound that cannot be read") from error
        if sound is None:
            raise Dropped("video without sound")
        at = sample.content.index(videos[0]) + 1
        return replace(sample, content=(*sample.content[:at], Audio(videos[0].source), *sample.content[at:]))

    return made_of_each(samples, make, left_out)


def with_spoken_question(samples: Iterable[Sample], speakers: Speakers, left_out: LeftOut) -> Iterator[Sample]:
    """The last thing that is written of each sample is heard instead; it is said when it is read."""
    return with_last_text(
        samples, lambda sample, asked: (replace(speakers.say(sample.id, asked.text), role=asked.role),), left_out
    )


def with_last_text(
    samples: Iterable[Sample], change: Callable[[Sample, Text], tuple[Part, ...]], left_out: LeftOut
) -> Iterator[Sample]:
    """The last thing that is written of each sample is changed; what has nothing written is left out and named."""

    def make(sample: Sample) -> Sample:
        places = [place for place, part in enumerate(sample.content) if isinstance(part, Text) and part.text.strip()]
        if not places:
            raise Dropped("nothing written")
        asked = sample.content[places[-1]]
        assert isinstance(asked, Text)
        made = change(sample, asked)
        return replace(sample, content=(*sample.content[: places[-1]], *made, *sample.content[places[-1] + 1 :]))

    return made_of_each(samples, make, left_out)


def with_swapped_media(samples: Sequence[Sample], kinds: Sequence[str]) -> list[Sample]:
    """Each sample with the media of these `kinds` of a sample of another group; all else is its own.

    A model that uses them is then right as often as one that guesses. The other sample is the next one of another group
    that has as many media of the kinds, after the last one comes the first.

    Raises:
        LabError: there is no such sample.
    """
    found = []
    for place, sample in enumerate(samples):
        own = _media(sample, kinds)
        after = (*samples[place + 1 :], *samples[:place])
        other = next((one for one in after if one.group != sample.group and len(_media(one, kinds)) == len(own)), None)
        if other is None or not own:
            raise LabError(
                f"the {' and '.join(kinds)} of sample {sample.id!r} cannot be swapped; expected samples of several "
                "groups with as many of them"
            )
        given = iter(_media(other, kinds))
        content = tuple(replace(next(given), role=part.role) if part.type in kinds else part for part in sample.content)
        # What is kept of media is kept by their sample's id.
        found.append(replace(sample, id=f"{sample.id}-swapped", content=content))
    return found


def without_media(sample: Sample, kinds: Sequence[str]) -> Sample:
    """A sample without its media of these kinds; where nothing is left, nothing is asked."""
    left = tuple(part for part in sample.content if part.type not in kinds)
    return replace(sample, id=f"{sample.id}-lacking", content=left or (Text(""),))


def _media(sample: Sample, kinds: Sequence[str]) -> list[Audio | Image | Video]:
    return [part for part in sample.content if not isinstance(part, Text) and part.type in kinds]


def _kinds(media: str) -> list[str]:
    kinds = {one.type: one.type for one in (Audio, Image, Video)}
    return [choose(kinds, one, "kind of media") for one in media.split("+")]


def _voices(engines: str, split: Split) -> tuple[str, ...]:
    """The English voices of engines joined by `+` on one side: who speaks in a test is not heard in training."""
    every = timbres("en", engines.split("+"))
    held_out = held_out_speakers(every, _HELD_OUT_VOICES)
    return tuple(voice for voice in every if (voice in held_out) == (split != "train"))


def _said(
    make: Callable[[Iterable[Sample], Speakers, LeftOut], Iterator[Sample]],
    split: Split,
    count: int,
    inner: str,
    engines: str,
) -> tuple[list[Sample], LeftOut]:
    samples, left_out = open_samples(inner, split, count)
    return list(make(samples, Speakers(_voices(engines, split)), left_out)), left_out


def _sounding(split: Split, count: int, inner: str) -> tuple[list[Sample], LeftOut]:
    samples, left_out = open_samples(inner, split, count)
    return list(with_own_sound(samples, left_out)), left_out


def _changed(
    change: Callable[[list[Sample], list[str]], list[Sample]], split: Split, count: int, inner: str, media: str
) -> tuple[list[Sample], LeftOut]:
    samples, left_out = open_samples(inner, split, count)
    return change(samples, _kinds(media)), left_out


def _check_said(inner: str, engines: str) -> None:
    _voices(engines, "train")
    for name in engines.split("+"):
        ENGINES[name]().check()
    check_source(inner)


def _check_changed(inner: str, media: str) -> None:
    _kinds(media)
    check_source(inner)


def _said_state(inner: str, engines: str) -> str:
    return " ".join((sources_sha256(inner), *(ENGINES[name]().version for name in engines.split("+"))))


def _said_largest(inside: Callable[[str], Largest], inner: str, engines: str, *, asked: bool = True) -> Largest:
    found = inside(inner)
    return replace(found, sounds=found.sounds + 1, asked=found.asked and asked)


def _lacking_largest(inside: Callable[[str], Largest], inner: str, media: str) -> Largest:
    found, kinds = inside(inner), _kinds(media)
    frames = 0 if ("video" if found.is_video else "image") in kinds else found.frames
    return replace(found, frames=frames, sounds=0 if "audio" in kinds else found.sounds)


_SAID: dict[str, Any] = {"check": _check_said, "state": _said_state, "options": ("ENGINES",)}
_CHANGED: dict[str, Any] = {
    "check": _check_changed,
    "state": lambda inner, media: sources_sha256(inner),
    "options": ("MEDIA",),
}
SPOKEN = OuterSource(read=partial(_said, with_spoken_question), largest=partial(_said_largest, asked=False), **_SAID)
QUARTERS = OuterSource(read=partial(_said, spoken_quarters), largest=_said_largest, **_SAID)
SOUNDING = OuterSource(
    read=_sounding,
    check=check_source,
    state=sources_sha256,
    largest=lambda inside, inner: replace(inside(inner), sounds=1),
)
SWAPPED = OuterSource(read=partial(_changed, with_swapped_media), **_CHANGED)
LACKING = OuterSource(
    read=partial(_changed, lambda samples, kinds: [without_media(one, kinds) for one in samples]),
    largest=_lacking_largest,
    **_CHANGED,
)


@dataclass(frozen=True)
class Quarter:
    """`spoken + blank + written` is the text again, exactly; `blank` is what stood between (Chinese: nothing)."""

    spoken: str
    blank: str
    written: str


def is_han(sign: str) -> bool:
    """Tell whether a character is of a script that has no blanks between words."""
    return any(low <= ord(sign) <= high for low, high in _UNSPACED)


def break_places(text: str) -> list[tuple[int, int]]:
    """Every place (end of what comes before, start of what comes after) at which the text may be parted, in order.

    At blanks, and beside a Chinese character; never before a mark that closes or combines, nor behind one that opens.

    >>> break_places("a cat，猫在")
    [(1, 2), (6, 6), (7, 7)]
    """
    places = []
    for end in range(1, len(text)):
        if text[end].isspace() and not text[end - 1].isspace():
            start = end + len(text[end:]) - len(text[end:].lstrip())
            places += [(end, start)] if start < len(text) else []
        elif not text[end].isspace() and not text[end - 1].isspace() and _may_part(text[end - 1], text[end]):
            places.append((end, end))
    return places


def _may_part(before: str, after: str) -> bool:
    if unicodedata.category(after)[0] in "MP" and unicodedata.category(after) not in ("Ps", "Pi"):
        return False
    if unicodedata.category(before) in ("Ps", "Pi") or after == "\u200d" or before == "\u200d":
        return False
    wide = unicodedata.category(before)[0] == "P" and unicodedata.east_asian_width(before) in "WF"
    return is_han(before) or is_han(after) or wide


def num_units(text: str) -> int:
    """Words between blanks, a Chinese character being one each; punctuation alone is none."""
    places = break_places(text)
    starts = [0, *(start for _, start in places)]
    ends = [*(end for end, _ in places), len(text)]
    return sum(any(map(str.isalnum, text[start:end])) for start, end in zip(starts, ends, strict=True))


def split_quarter(text: str, *, sample: str) -> Quarter:
    """Split a text where a place to part it is nearest to a quarter of its characters; blanks at its ends go along.

    Both sides hold at least one letter or digit, so that there is something to say and something to write.

    >>> split_quarter("The dog runs over the green hill to its house.", sample="1")
    Quarter(spoken='The dog runs', blank=' ', written='over the green hill to its house.')

    Raises:
        LabError: fewer than four words or Chinese characters, or no place to part it.
    """
    if (found := num_units(text)) < _MIN_UNITS:
        raise LabError(
            f"the text of {sample!r} has {found} words or Chinese characters, expected at least {_MIN_UNITS}"
        )
    # The first and last letters or digits: a side without one is silent.
    letters = [place for place, sign in enumerate(text) if sign.isalnum()]
    places = [(end, start) for end, start in break_places(text) if letters[0] < end and start <= letters[-1]]
    if not places:
        raise LabError(
            f"the text of {sample!r} has no place where it may be parted; expected blanks or Chinese characters"
        )
    aim = _SPOKEN_SHARE * len(text)
    after = bisect_left([end for end, _ in places], aim)
    end, start = min(places[max(0, after - 1) : after + 1], key=lambda place: (abs(place[0] - aim), place[0]))
    return Quarter(text[:end], text[end:start], text[start:])
