"""Pictures of things with English names, from packages that everybody can fetch, and the side of the split of each.

The stand-in, where no hub can be reached, for the paper's image data (section 3): Tux Paint's stamps (drawings and
photographs; 785 of the 952 with a caption have a PNG) and Google's emoji (1,911, without those in other skin tones).
All pictures of one thing are on the same side of a split.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.data.fetch import fetch
from lab.data.splits import Split, normalize_sentence, split_of

STAMPS = "tuxpaint-stamps-default"
EMOJI_PICTURES, EMOJI_NAMES = "emoji-datasource-google", "emojibase-data"
_OTHER_TONE = re.compile(r"-1f3f[b-f]\b")
_SKIN_TONE = re.compile(r"[:,] (?:(?:medium-)?(?:light|dark)|medium) skin tone")
# Who kisses whom is hardly to be seen at 64 pixels, and Google draws all families as like silhouettes.
_TOGETHER = re.compile(r"^(kiss|couple with heart|family): .*")
_EXPLANATION = re.compile(r"—| \(|[.!?]\s")
_ARTICLE = re.compile(r"^(?:an?|the|some) (?=.)")
_WHO = re.compile(r"^(?:wom[ae]n|m[ae]n|person|people) (?=.)")
_ASPECT = re.compile(r"(?<=.) (?:face|facing right)$")


@dataclass(frozen=True)
class Picture:
    """One picture: `path` is its file, `caption` what it shows, in English.

    `topic` is the source's own: a folder, or a group and subgroup with a slash between; `source` a key of
    `PICTURE_SOURCES`; `id` begins with it and is unique over all of them.
    """

    id: str
    path: Path
    caption: str
    topic: str
    source: str


def stamps() -> list[Picture]:
    """Tux Paint's stamps that have a PNG and an English caption; the topic is the top folder, such as `animals`."""
    root = fetch(STAMPS) / "usr/share/tuxpaint/stamps"
    pictures = []
    for path in sorted(root.rglob("*.txt")):
        # The first line is English, the others are `LOCALE=caption`.
        caption = next(iter(path.read_text(encoding="utf-8", errors="replace").splitlines()), "").strip()
        if caption and path.with_suffix(".png").exists():
            place = path.with_suffix("").relative_to(root)
            drawn = path.with_suffix(".png")
            pictures.append(Picture(f"stamps/{place.as_posix()}", drawn, caption, place.parts[0], "stamps"))
    return pictures


def emoji() -> list[Picture]:
    """Google's emoji, 64 pixels; the topic is `GROUP/SUBGROUP`, as in `animals-nature/animal-mammal`.

    Files are named by code points, which emojibase-data turns into names and groups.
    """
    groups, entries = _emoji_names("meta/groups.json"), _emoji_names("en/data.json")
    named = {_code_points(each["hexcode"]): each for entry in entries for each in (entry, *entry.get("skins", []))}
    pictures = []
    for path in sorted((fetch(EMOJI_PICTURES) / "package/img/google/64").glob("*.png")):
        points = _code_points(path.stem)
        entry = named.get(points, {})
        if not _OTHER_TONE.search(points) and "group" in entry and "subgroup" in entry:
            topic = f"{groups['groups'][str(entry['group'])]}/{groups['subgroups'][str(entry['subgroup'])]}"
            pictures.append(Picture(f"emoji/{points}", path, entry["label"], topic, "emoji"))
    return pictures


def _code_points(name: str) -> str:
    """Code points as both packages can be compared by: lower case, without the emoji variation selector."""
    return "-".join(point for point in name.lower().split("-") if point != "fe0f")


def _emoji_names(name: str) -> Any:
    return json.loads((fetch(EMOJI_NAMES) / "package" / name).read_text(encoding="utf-8"))


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
    return split_of(thing(picture.caption))


PICTURE_SOURCES: dict[str, Callable[[], list[Picture]]] = {"stamps": stamps, "emoji": emoji}
