"""Google's emoji as pictures, with names in English and Chinese.

Files are named by code points, which emojibase-data 17.0.0 turns into names and groups (3,979 in both languages). All
3,786 pictures of emoji-datasource-google 16.0.0 have an English and a Chinese name; 1,911 are left without the 1,875
in other skin tones.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from lab.data.fetch import fetch
from lab.errors import LabError
from standins.pictures.things import Picture, PictureReading

NAMES, PICTURES = "emojibase-data", "emoji-datasource-google"
FOLDER = "package/img/google/64"
LANGUAGES = ("en", "zh")
_VARIATION_SELECTOR = "fe0f"
_OTHER_TONE = re.compile(r"-1f3f[b-f]\b")


@dataclass(frozen=True)
class _Name:
    captions: dict[str, str]
    topic: str


def code_points(name: str) -> str:
    """Return code points as both packages can be compared by: lower case, without the emoji variation selector.

    >>> code_points("0023-FE0F-20E3")
    '0023-20e3'
    """
    return "-".join(point for point in name.lower().split("-") if point != _VARIATION_SELECTOR)


def read_emoji() -> PictureReading:
    """Read Google's emoji, 64 pixels; the topic is `GROUP/SUBGROUP`, as in `animals-nature/animal-mammal`.

    Raises:
        LabError: a package cannot be fetched or is damaged.
    """
    names = _names()
    pictures: list[Picture] = []
    skipped: Counter[str] = Counter()
    for path in sorted((fetch(PICTURES) / FOLDER).glob("*.png")):
        points = code_points(path.stem)
        if _OTHER_TONE.search(points):
            skipped["another skin tone"] += 1
        elif points not in names:
            skipped["no English name or no group"] += 1
        else:
            name = names[points]
            pictures.append(Picture(f"emoji/{points}", path, name.captions, name.topic, "emoji"))
    return PictureReading(pictures, skipped)


def _names() -> dict[str, _Name]:
    groups = _read("meta/groups.json")
    tables = {language: _labels(_read(f"{language}/data.json")) for language in LANGUAGES}
    names: dict[str, _Name] = {}
    for points, entry in tables["en"].items():
        if "group" not in entry or "subgroup" not in entry:
            continue
        captions = {code: table[points]["label"] for code, table in tables.items() if points in table}
        group, subgroup = groups["groups"][str(entry["group"])], groups["subgroups"][str(entry["subgroup"])]
        names[points] = _Name(captions, f"{group}/{subgroup}")
    return names


def _labels(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {code_points(each["hexcode"]): each for entry in entries for each in (entry, *entry.get("skins", []))}


def _read(name: str) -> Any:
    path = fetch(NAMES) / "package" / name
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LabError(f"{path} cannot be read ({error}); delete {fetch(NAMES)} to fetch it again") from error
