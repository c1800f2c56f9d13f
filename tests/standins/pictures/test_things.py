from pathlib import Path

import pytest

from lab.data.splits import split_of
from standins.pictures.pictures import Picture, caption_name, picture_split, thing


def picture(caption: str, source: str = "emoji") -> Picture:
    return Picture(f"{source}/x", Path("x.png"), caption, "food", source)


@pytest.mark.parametrize(
    ("captions", "expected"),
    [
        (["An apple.", "apple", "Apples", "The apple."], "apple"),
        (["Cherries.", "cherry", "cherries"], "cherry"),
        (["Tomatoes.", "tomato"], "tomato"),
        (["A bus.", "bus"], "bus"),
        (["Glass!", "glass"], "glass"),
        (["The Sun.", "sun", "sun face"], "sun"),
        (["Venus—the second planet in the solar system—and the most inhospitable!", "Venus"], "venus"),
        (["Bishop. Can only move diagonally.", "A bishop (of chess)."], "bishop"),
        (["waving hand", "waving hand: light skin tone", "waving hand: medium-dark skin tone"], "waving hand"),
        (["man running", "women running", "person running: facing right"], "running"),
        (["man: red hair", "woman: dark skin tone, red hair"], "red hair"),
        (["kiss", "kiss: man, man, light skin tone, dark skin tone", "kiss: woman, man"], "kiss"),
        (["man", "men"], None),
        (["face"], "face"),
    ],
)
def test_captions_of_one_thing_are_one_word(captions, expected):
    if expected is None:
        assert [thing(caption) for caption in captions] == captions
    else:
        assert {thing(caption) for caption in captions} == {expected}


@pytest.mark.parametrize("others", [("flag: Chad", "flag: Mali"), ("keycap: 1", "keycap: 2"), ("red apple", "apple")])
def test_other_things_keep_their_own_word(others):
    assert len({thing(caption) for caption in others}) == len(others)


def test_a_stamp_and_an_emoji_of_one_thing_are_on_one_side():
    names = ["Apple", "Cow", "Bear", "Ship", "Pear", "Violin", "Owl", "Fox", "Lamp", "Key", "Sock", "Rose"]
    for name in names:
        split = picture_split(picture(f"{name.lower()}s"))
        assert split == picture_split(picture(f"A {name}.", "stamps")) == split_of(name)
    assert len({split_of(name) for name in names}) > 1


def test_a_captions_name_is_the_thing_as_it_is_written():
    assert caption_name("The Moon.") == "Moon"
    assert caption_name("Pluto—until recently, it was a planet.") == "Pluto"
    assert caption_name("A mince pie is a treat. It contains spices.") == "mince pie is a treat"
    assert caption_name("flag: Chad") == "flag: Chad"
    assert caption_name("A") == "A"
