import pytest

from lab.data.fetch import packages
from standins.pictures.pictures import EMOJI_NAMES, EMOJI_PICTURES, PICTURE_SOURCES, STAMPS, emoji, stamps
from tests.data.fakes import drawing, emoji_packages, stamps_package

COW = {"label": "cow", "hexcode": "1F404", "group": 3, "subgroup": 36}
TONES = [{**COW, "label": f"cow: {tone} skin tone", "hexcode": f"1F404-{code}"} for tone, code in [("dark", "1F3FF")]]
FOX = {"label": "fox", "hexcode": "1F98A-FE0F", "group": 3, "subgroup": 36}
SWATCH = {"label": "dark skin tone", "hexcode": "1F3FF", "group": 3, "subgroup": 36}
LETTER = {"label": "regional indicator A", "hexcode": "1F1E6"}


@pytest.fixture
def every_package():
    stamps_package(
        {
            "animals/cow/cow": "A cow.\nde.utf8=Eine Kuh.\nzh_CN.utf8= 牛。\nzh_TW.utf8=母牛",
            "food/pear": "A pear.\nzh_TW.utf8=梨",
            "food/nameless": "\nzh_CN.utf8=梨",
        },
        {
            "animals/cow/cow_mirror.png": drawing(),
            "animals/stray.png": drawing(),
            "food/plum.txt": b"A plum.",
            "food/plum.svg": b"<svg/>",
            "food/nothing.txt": b"Nothing.",
        },
    )
    emoji_packages(
        [{**COW, "skins": TONES}, FOX, SWATCH, LETTER],
        {"1F404": "母牛", "1F98A": "狐狸"},
        {name: drawing() for name in ("1f404", "1f404-1f3ff", "1f98a", "1f3ff", "1f1e6")},
    )


def test_stamps_have_the_captions_and_the_topic_of_their_files(every_package):
    found = {picture.id: picture for picture in stamps()}
    captions = {"stamps/animals/cow/cow": "A cow.", "stamps/food/pear": "A pear."}
    assert {name: picture.caption for name, picture in found.items()} == captions
    assert {name: picture.topic for name, picture in found.items()} == {
        "stamps/animals/cow/cow": "animals",
        "stamps/food/pear": "food",
    }
    assert all(picture.path.read_bytes() == drawing() and picture.source == "stamps" for picture in found.values())


def test_emoji_are_named_through_their_code_points(every_package):
    found = {picture.id: picture for picture in emoji()}
    captions = {"emoji/1f404": "cow", "emoji/1f98a": "fox", "emoji/1f3ff": "dark skin tone"}
    assert {name: picture.caption for name, picture in found.items()} == captions
    assert {picture.topic for picture in found.values()} == {"animals-nature/animal-mammal"}


def test_ids_are_unique_and_name_their_source(every_package):
    pictures = {name: read() for name, read in PICTURE_SOURCES.items()}
    ids = [picture.id for found in pictures.values() for picture in found]
    assert len(set(ids)) == len(ids)
    for name, found in pictures.items():
        assert all(picture.id.startswith(f"{name}/") and picture.source == name for picture in found)


def test_every_package_of_pictures_is_pinned():
    assert {STAMPS, EMOJI_NAMES, EMOJI_PICTURES} <= packages().keys()
