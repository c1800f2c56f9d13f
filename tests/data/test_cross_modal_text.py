import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.data.cross_modal import break_places, is_han, num_units, split_quarter
from lab.errors import LabError

CHINESE = "今天天气很好，我们一起去公园散步吧。他说：“好的！”"


def parts(quarter):
    return quarter.spoken, quarter.blank, quarter.written


def test_english_parts_at_the_blank_nearest_to_a_quarter():
    # 11.5 of 46 characters; blanks stand at 7 and 12.
    assert parts(split_quarter("The dog runs over the green hill to its house.", sample="s")) == (
        "The dog runs",
        " ",
        "over the green hill to its house.",
    )


def test_chinese_parts_between_characters_and_nothing_is_lost():
    spoken, blank, written = parts(split_quarter(CHINESE, sample="s"))
    assert blank == ""
    assert spoken + written == CHINESE
    assert spoken == "今天天气很好，"  # 6.5 of 26 characters; a cut at 6 would tear off the comma


def test_closing_marks_stay_with_what_they_close_and_opening_ones_with_what_they_open():
    for end, start in break_places(CHINESE):
        assert CHINESE[start] not in "，。：！”"
        assert CHINESE[end - 1] != "“"


def test_mixed_text_never_parts_inside_a_word_or_number():
    text = "这是iPhone 3.5版，很好"
    assert [text[:end] for end, _ in break_places(text)][:4] == ["这", "这是", "这是iPhone", "这是iPhone 3.5"]


@pytest.mark.parametrize(("text", "units"), [("", 0), ("--", 0), ("a b -- c", 3), ("今天 ok。", 3), (" one ", 1)])
def test_units_are_words_and_chinese_characters_without_lone_marks(text, units):
    assert num_units(text) == units


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet=" ab1.,-\n\t“”(今天，。\u3000\u0301", max_size=60))
def test_the_three_parts_are_the_text_again_and_both_sides_say_something(text):
    try:
        quarter = split_quarter(text, sample="s")
    except LabError:
        return
    assert "".join(parts(quarter)) == text
    assert quarter.blank.strip() == ""
    for side in (quarter.spoken, quarter.written):
        assert any(sign.isalnum() for sign in side)
    if not quarter.blank:
        assert any(is_han(sign) or ord(sign) > 0x2000 for sign in quarter.spoken[-1] + quarter.written[0])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["a", "bcd", "efghij"]), min_size=4, max_size=30))
def test_no_other_blank_is_nearer_to_a_quarter(words):
    text = " ".join(words)
    ends = [place for place, sign in enumerate(text) if sign == " "]
    spoken = split_quarter(text, sample="s").spoken
    assert abs(len(spoken) - 0.25 * len(text)) == min(abs(end - 0.25 * len(text)) for end in ends)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"the text of 's1' has 0 words or Chinese characters, expected at least 4"),
        ("one two three", "has 3 words or Chinese characters, expected at least 4"),
    ],
)
def test_what_cannot_be_split_is_named(text, message):
    with pytest.raises(LabError, match=message):
        split_quarter(text, sample="s1")
