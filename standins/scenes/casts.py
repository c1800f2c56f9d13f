"""Who may stand together before which background: classes of things, and the sides of the split for all of it.

The test set's things have never been seen in training, so no model can know their names; questions call a thing by its
class. Three things are held out: the pictures (`standins.pictures.pictures.picture_split`), the colours of the
backgrounds, and which classes stand together (`combination_split`).
"""

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from lab.data.splits import Split
from lab.errors import LabError
from standins.pictures.pictures import Picture, emoji, picture_split, stamps, thing
from standins.scenes.scene import Background

T = TypeVar("T")
Cast = Mapping[str, Sequence[Picture]]

# By beginning of a picture's `SOURCE/TOPIC` or, for stamps, of its id, which has the folders below the topic. The order
# is the circle of `combination_split`.
THING_CLASSES: dict[str, tuple[str, ...]] = {
    "animal": ("stamps/animals", "emoji/animals-nature/animal-"),
    "vehicle": ("stamps/vehicles", "stamps/military/vehicles", "emoji/travel-places/transport-"),
    "building": (
        *("stamps/town/houses", "stamps/town/monuments"),
        *("emoji/travel-places/place-building", "emoji/travel-places/place-religious"),
    ),
    "flag": ("stamps/town/flags", "emoji/flags/country-flag", "emoji/flags/subdivision-flag"),
    "food": ("stamps/food", "emoji/food-drink/food-"),
    "face": ("stamps/symbols/faces", "emoji/smileys-emotion/face-"),
    "plant": ("stamps/plants", "emoji/animals-nature/plant-"),
    "person": (
        *("stamps/people/fire", "emoji/people-body/person-role", "emoji/people-body/person-activity"),
        *("emoji/people-body/person-sport", "emoji/people-body/person-gesture", "emoji/people-body/person-resting"),
    ),
    "sign": (
        *("stamps/town/roadsigns", "emoji/symbols/transport-sign", "emoji/symbols/warning", "emoji/symbols/arrow"),
        *("emoji/symbols/av-symbol", "emoji/symbols/zodiac", "emoji/symbols/religion"),
    ),
    "clothing": ("stamps/clothes", "emoji/objects/clothing"),
}
# What stands in a group of its source without being such a thing.
_LEFT_OUT = """anchor; brick; bus stop; button; construction; feather; fuel pump; gem stone; hair pick; horizontal
traffic light; lipstick; modern clothespin; motorway; oil drum; old fashioned clothespin; paw print; pig
nose; police car light; railway track; ring; ring buoy; rock; satellite; seat; shopping bag; spider web;
spiral shell; stop sign; tractor wheel; vertical traffic light; wheel; wing; wood"""
NOT_OF_THEIR_CLASS = frozenset(_LEFT_OUT.replace("\n", " ").split("; "))

PALETTES: dict[Split, tuple[tuple[int, int, int], ...]] = {
    "train": (
        *((232, 240, 255), (255, 244, 214), (227, 246, 227), (251, 228, 236), (233, 228, 251), (217, 242, 242)),
        *((245, 234, 217), (223, 231, 211), (255, 226, 200), (207, 227, 247), (239, 239, 239), (188, 214, 190)),
        *((176, 202, 230), (236, 205, 166), (213, 190, 226)),
    ),
    "dev": ((212, 236, 217), (242, 230, 255), (255, 238, 221), (205, 210, 235)),
    "test": ((220, 235, 196), (255, 223, 230), (207, 234, 240), (236, 226, 198), (220, 214, 240), (230, 190, 174)),
}
BACKGROUND_PATTERNS = ("plain", "gradient", "stripes", "checks", "dots")


class Dice:
    """Random numbers that are the same on every machine: only whole ones, from one fixed bit generator."""

    def __init__(self, *seed: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))

    def between(self, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`, both included."""
        return int(self._generator.integers(low, high + 1))

    def pick(self, things: Sequence[T]) -> T:
        """Return one of the things."""
        return things[self.between(0, len(things) - 1)]

    def shuffled(self, things: Iterable[T]) -> list[T]:
        """Return the things in an order of chance."""
        rest = list(things)
        return [rest.pop(self.between(0, len(rest) - 1)) for _ in range(len(rest))]


def thing_class(picture: Picture) -> str | None:
    """Return the class of what a picture shows, or `None` where it belongs to none."""
    if thing(picture.caption) in NOT_OF_THEIR_CLASS:
        return None
    names = (picture.id, f"{picture.source}/{picture.topic}")
    for word, beginnings in THING_CLASSES.items():
        if any(name.startswith(beginnings) for name in names):
            return word
    return None


def cast_of(pictures: Iterable[Picture], split: Split) -> dict[str, list[Picture]]:
    """Group the pictures of one side of the split by class, each group in the order of the ids."""
    cast: dict[str, list[Picture]] = {word: [] for word in THING_CLASSES}
    for picture in sorted(pictures, key=lambda each: each.id):
        word = thing_class(picture)
        if word is not None and picture_split(picture) == split:
            cast[word].append(picture)
    if not all(cast.values()):
        counts = ", ".join(f"{word} {len(group)}" for word, group in cast.items())
        raise LabError(f"every class needs a picture in the {split} split; there are: {counts}")
    return cast


@functools.cache
def standard_cast(split: Split) -> dict[str, list[Picture]]:
    """Give the cast from Tux Paint's stamps and the emoji."""
    return cast_of([*stamps(), *emoji()], split)


def combination_split(words: Iterable[str]) -> Split:
    """Tell where classes may stand together: a pair belongs to one split, as does the whole that has it.

    The classes lie on a circle: neighbours are of the test split, opposite ones of the dev split, all others may be
    trained on; so each class meets as many others in every split. One class alone says nothing and is "train".

    >>> combination_split(["animal", "vehicle"]), combination_split(["animal", "building"])
    ('test', 'train')
    """
    circle = list(THING_CLASSES)
    apart = {
        min((circle.index(a) - circle.index(b)) % len(circle), (circle.index(b) - circle.index(a)) % len(circle))
        for a, b in itertools.combinations(set(words), 2)
    }
    if 1 in apart:
        return "test"
    return "dev" if len(circle) // 2 in apart else "train"


def draw_words(dice: Dice, count: int, split: Split, among: Sequence[str] = tuple(THING_CLASSES)) -> list[str]:
    """Draw different classes that may stand together; the first two are of the split by themselves."""
    pairs = [p for p in itertools.permutations(among, 2) if count == 1 or combination_split(p) == split]
    words = list(dice.pick(pairs)[: min(count, 2)])
    while len(words) < count:
        more = [w for w in THING_CLASSES if w not in words and combination_split([*words, w]) == split]
        words.append(dice.pick(more))
    return words


def draw_background(dice: Dice, split: Split) -> Background:
    """Draw a pattern in two colours that no other split has."""
    first, second = dice.shuffled(PALETTES[split])[:2]
    return Background(dice.pick(BACKGROUND_PATTERNS), first, second, dice.between(120, 300))
