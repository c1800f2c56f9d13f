import dataclasses
from importlib.metadata import version

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.data.normalizers import NORMALIZERS


@pytest.mark.parametrize(
    ("name", "raw", "expected"),
    [
        # Read off appendix C of the Whisper paper: contractions, titles, fillers, brackets, numbers, punctuation.
        ("whisper_english", " Mr. Smith  can't, uh, pay [laughs] $20 million! ", "mister smith can not pay $20000000"),
        ("whisper_english", "I'm twenty-one (really).", "i am 21"),
        ("whisper_english", "Café colour", "cafe colour"),
        ("whisper_english", "Ungh...", "ungh"),
        ("whisper_english", "Well . . . ok $ now", "well ok now"),
        ("whisper_english", "It’s 3.5% of $5.50", "it is 3.5% of $5.50"),
        ("whisper_english", "[noise]", ""),
        ("whisper_english", "", ""),
        ("chinese_characters", "你好，世界！ ＡＢＣ１２ ", "你好世界abc12"),
        ("chinese_characters", "“嗯……”～\t\u3000", "嗯"),
        ("lowercase_alphanumeric", "Don’t  stop -- it's 9 o'clock!", "dont stop its 9 oclock"),
        ("lowercase_alphanumeric", "...", ""),
    ],
)
def test_text_is_reduced_as_worked_by_hand(name: str, raw: str, expected: str) -> None:
    assert NORMALIZERS[name](raw) == expected


@pytest.mark.parametrize("name", NORMALIZERS)
@settings(deadline=None, max_examples=50)
@given(text=st.text(max_size=40))
def test_output_has_no_blank_at_its_ends_and_none_doubled(name: str, text: str) -> None:
    normalized = NORMALIZERS[name](text)
    assert normalized == " ".join(normalized.split())


@pytest.mark.parametrize("name", ["chinese_characters", "lowercase_alphanumeric"])
@settings(deadline=None, max_examples=50)
@given(text=st.text(max_size=40))
def test_normalising_twice_is_normalising_once_for_plain_latin_and_han(name: str, text: str) -> None:
    # 薴 is the one character that OpenCC simplifies in two steps.
    plain = "".join(c for c in text if c.isascii() or ("\u4e00" <= c <= "\u9fff" and c != "薴"))
    once = NORMALIZERS[name](plain)
    assert NORMALIZERS[name](once) == once


@pytest.mark.parametrize("name", NORMALIZERS)
def test_key_is_name_and_every_field_that_identifies_it_is_set(name: str) -> None:
    normalizer = NORMALIZERS[name]
    assert normalizer.name == name
    assert normalizer.version
    assert "cer" in normalizer.reports
    with pytest.raises(dataclasses.FrozenInstanceError):
        normalizer.version = "2"  # type: ignore[misc]


def test_version_of_whispers_normaliser_names_transformers_and_the_missing_spelling_map() -> None:
    major = version("transformers").split(".")[0]
    assert NORMALIZERS["whisper_english"].version.endswith(f"-transformers{major}-no_spelling_map")


def test_chinese_reports_characters_only() -> None:
    assert NORMALIZERS["chinese_characters"].reports == ("cer",)
