import itertools

import pytest

from lab.data.splits import SPLITS
from lab.errors import LabError
from standins.scenes.casts import (
    PALETTES,
    THING_CLASSES,
    Dice,
    cast_of,
    combination_split,
    draw_background,
    draw_words,
    thing_class,
)
from tests.standins.scene_pictures import PER_SPLIT, picture, stand_ins


@pytest.mark.parametrize(
    ("name", "topic", "expected"),
    [
        ("cow", "stamps/animals", "animal"),
        ("crow", "stamps/animals/birds", "animal"),
        ("cottage", "stamps/town/houses/cartoon", "building"),
        ("letter box", "stamps/town", None),
        ("fox", "emoji/animals-nature/animal-mammal", "animal"),
        ("rose", "emoji/animals-nature/plant-flower", "plant"),
        ("paw prints", "emoji/animals-nature/animal-mammal", None),
        ("railway track", "emoji/travel-places/transport-ground", None),
        ("tram", "emoji/travel-places/transport-ground", "vehicle"),
        ("hourglass", "emoji/travel-places/time", None),
    ],
)
def test_a_picture_has_the_class_of_its_folder_or_group(name, topic, expected):
    made = picture(name, topic)
    if topic.startswith("emoji"):
        made = type(made)(made.id, made.path, made.caption, topic.partition("/")[2], "emoji")
    assert thing_class(made) == expected


def test_a_cast_has_only_its_own_split():
    casts = {split: cast_of(stand_ins(), split) for split in SPLITS}
    for cast in casts.values():
        assert {word: len(group) for word, group in cast.items()} == dict.fromkeys(THING_CLASSES, PER_SPLIT)
    ids = {split: {p.id for group in cast.values() for p in group} for split, cast in casts.items()}
    assert not ids["train"] & ids["test"]


def test_a_class_without_a_picture_is_named():
    only_animals = [each for each in stand_ins() if "animals" in each.id]
    with pytest.raises(LabError, match=r"needs a picture in the dev split; there are: animal 3, vehicle 0"):
        cast_of(only_animals, "dev")


def test_every_class_meets_as_many_others_in_each_split():
    met = {split: dict.fromkeys(THING_CLASSES, 0) for split in SPLITS}
    for pair in itertools.combinations(THING_CLASSES, 2):
        for word in pair:
            met[combination_split(pair)][word] += 1
    assert {split: set(counts.values()) for split, counts in met.items()} == {"train": {6}, "dev": {1}, "test": {2}}
    assert combination_split(["animal"]) == "train"
    circle = list(THING_CLASSES)
    assert {combination_split(pair) for pair in zip(circle, circle[1:] + circle[:1], strict=True)} == {"test"}
    assert {combination_split(pair) for pair in zip(circle[:5], circle[5:], strict=True)} == {"dev"}


@pytest.mark.parametrize("split", SPLITS)
def test_drawn_classes_belong_together(split):
    for number in range(200):
        words = draw_words(Dice(number), 3, split)
        assert len(set(words)) == 3
        assert combination_split(words) == combination_split(words[:2]) == split


def test_no_pair_of_a_training_scene_is_one_of_the_test_scenes():
    for number in range(200):
        for pair in itertools.combinations(draw_words(Dice(number), 3, "train"), 2):
            assert combination_split(pair) == "train"


def test_backgrounds_have_the_colours_of_their_split():
    for one, other in itertools.combinations(SPLITS, 2):
        assert not set(PALETTES[one]) & set(PALETTES[other])
    for split in SPLITS:
        for number in range(50):
            background = draw_background(Dice(number), split)
            assert {background.first, background.second} <= set(PALETTES[split])
            assert background.first != background.second


def test_dice_include_both_ends_and_repeat():
    thrown = [Dice(1, 2).between(1, 3) for _ in range(2)]
    assert thrown[0] == thrown[1]
    dice = Dice(7)
    assert {dice.between(1, 3) for _ in range(100)} == {1, 2, 3}
    assert sorted(dice.shuffled(range(9))) == list(range(9))
    assert {tuple(dice.shuffled("abc")) for _ in range(200)} == set(itertools.permutations("abc"))
