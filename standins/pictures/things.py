"""A picture with its captions, and the rule that puts all pictures of one thing on the same side of a split."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab.data.splits import Split, normalize_sentence, split_of

_SKIN_TONE = re.compile(r"[:,] (?:(?:medium-)?(?:light|dark)|medium) skin tone")
# Who kisses whom is hardly to be seen at 64 pixels, and Google draws all families as like silhouettes.
_TOGETHER = re.compile(r"^(kiss|couple with heart|family): .*")
_EXPLANATION = re.compile(r"—| \(|[.!?]\s")
_ARTICLE = re.compile(r"^(?:an?|the|some) (?=.)")
_WHO = re.compile(r"^(?:wom[ae]n|m[ae]n|person|people) (?=.)")
_ASPECT = re.compile(r"(?<=.) (?:face|facing right)$")


@dataclass(frozen=True)
class Picture:
    """One picture: `path` is its file, `captions` what it shows by language, "en" always and "zh" where it is known.

    `topic` is the source's own: a folder, or a group and subgroup with a slash between; `source` a key of
    `standins.pictures.pictures.PICTURE_SOURCES`; `id` begins with it and is unique over all of them.
    """

    id: str
    path: Path
    captions: Mapping[str, str]
    topic: str
    source: str


@dataclass(frozen=True)
class PictureReading:
    """The pictures of a source; `skipped` counts by reason what the reader left out."""

    pictures: list[Picture]
    skipped: Counter[str] = field(default_factory=Counter)


def caption_name(caption: str) -> str:
    """Return an English caption without what explains the thing, its article and its full stop.

    >>> caption_name("The Moon.")
    'Moon'
    """
    name = _EXPLANATION.split(caption.strip(), maxsplit=1)[0].strip().rstrip(".!")
    return re.sub(r"^(?:An?|The|Some) (?=.)", "", name)


def thing(caption: str) -> str:
    """Return the thing that an English caption names, one word for all who draw it: what a split is made by.

    Left away are explanations, articles, a plural, skin tones, who does it, "face" and "facing right".

    >>> thing("An apple."), thing("Cherries."), thing("woman running: medium skin tone, facing right")
    ('apple', 'cherry', 'running')
    """
    name = _TOGETHER.sub(r"\1", _SKIN_TONE.sub("", caption.strip()))
    words = _ARTICLE.sub("", normalize_sentence(_EXPLANATION.split(name, maxsplit=1)[0]))
    return _singular(_ASPECT.sub("", _WHO.sub("", words)))


def _singular(words: str) -> str:
    if words.endswith(("ss", "us")):
        return words
    for plural, singular in (("ies", "y"), ("oes", "o"), ("s", "")):
        if words.endswith(plural) and len(words) > len(plural) + 2:
            return words.removesuffix(plural) + singular
    return words


def picture_split(picture: Picture) -> Split:
    """Give a picture the split of its thing: a stamp and an emoji of one thing are on the same side."""
    return split_of(thing(picture.captions["en"]))
