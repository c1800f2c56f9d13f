"""Cross-modal samples: image and prompt stay, a quarter of the answer is spoken, the rest is to be written (section 3).

The paper speaks the first quarter with 44 timbres; a video brings its own sound track instead. Places in a text count
characters from the start; words part at blanks, Chinese between characters.
"""

import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from lab.data.filters.filtering import Dropped, LeftOut, made_of_each
from lab.data.sample import Audio, Drawn, Image, Sample, Video, media_file
from lab.data.speech.spoken_prompts import Speakers
from lab.data.video import read_sound
from lab.errors import LabError

_SPOKEN_SHARE = 0.25
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
        except LabError as error:
            raise Dropped("sound that cannot be read") from error
        if sound is None:
            raise Dropped("video without sound")
        at = sample.content.index(videos[0]) + 1
        return replace(sample, content=(*sample.content[:at], Audio(videos[0].source), *sample.content[at:]))

    return made_of_each(samples, make, left_out)


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
