import pytest

from lab.data.fetch import fetch, packages
from lab.errors import LabError
from standins.pictures.pictures import PICTURE_SOURCES, emoji, stamps
from standins.pictures.stamps import captions_of
from tests.data.fakes import drawing, emoji_packages, installed, stamps_package

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
    assert {name: dict(picture.captions) for name, picture in found.items()} == {
        "stamps/animals/cow/cow": {"en": "A cow.", "zh": "牛。"},
        "stamps/food/pear": {"en": "A pear."},
    }
    assert {name: picture.topic for name, picture in found.items()} == {
        "stamps/animals/cow/cow": "animals",
        "stamps/food/pear": "food",
    }
    assert all(picture.path.read_bytes() == drawing() and picture.source == "stamps" for picture in found.values())


def test_what_is_left_out_is_counted_by_reason(every_package):
    assert {name: dict(read().skipped) for name, read in PICTURE_SOURCES.items()} == {
        "stamps": {
            "only an SVG": 1,
            "caption without a picture": 1,
            "no English caption": 1,
            "mirror image of another stamp": 1,
            "picture without a caption": 1,
        },
        "emoji": {"another skin tone": 1, "no English name or no group": 1},
    }


def test_emoji_are_named_through_their_code_points(every_package):
    found = {picture.id: picture for picture in emoji()}
    assert {name: dict(picture.captions) for name, picture in found.items()} == {
        "emoji/1f404": {"en": "cow", "zh": "母牛"},
        "emoji/1f98a": {"en": "fox", "zh": "狐狸"},
        "emoji/1f3ff": {"en": "dark skin tone"},
    }
    assert {picture.topic for picture in found.values()} == {"animals-nature/animal-mammal"}


def test_ids_are_unique_and_name_their_source(every_package):
    pictures = {name: read().pictures for name, read in PICTURE_SOURCES.items()}
    ids = [picture.id for found in pictures.values() for picture in found]
    assert len(set(ids)) == len(ids)
    for name, found in pictures.items():
        assert all(picture.id.startswith(f"{name}/") and picture.source == name for picture in found)


def test_a_stamp_without_a_locale_has_only_its_first_line():
    assert captions_of("A cow.") == {"en": "A cow."}
    assert captions_of("A cow.\nzh_CN.utf8=") == {"en": "A cow."}
    assert captions_of("") == {}


def test_a_package_without_stamps_is_named():
    installed("tuxpaint-stamps-default", {"usr/share/doc/copyright": b"GPL-2"})
    with pytest.raises(LabError, match=r"stamps is missing; delete .*tuxpaint-stamps-default-.* to fetch it again"):
        stamps()


def test_names_that_cannot_be_read_are_named(every_package):
    (fetch("emojibase-data") / "package/zh/data.json").write_text("{")
    with pytest.raises(LabError, match=r"zh/data.json cannot be read \(.*delete .*emojibase-data-.* to fetch it again"):
        emoji()


def test_every_package_of_pictures_is_pinned():
    from standins.pictures import emoji as names
    from standins.pictures import stamps as drawn

    assert {drawn.PACKAGE, names.NAMES, names.PICTURES} <= packages().keys()
