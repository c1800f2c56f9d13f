import re
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest

from lab.data.filters.filtering import Filtered
from lab.data.filters.quality import QUALITY_RULES, Quality, repeated_n_grams
from lab.errors import LabError

GOOD = (
    "The committee has to decide which of the proposals it wants to support, and that takes time. "
    "Many people have written letters with reasons for one side or the other. "
    "After the summer a second meeting will be held, and a vote can be expected before the year ends. "
    "Until then everybody is free to add comments."
)


def quality(texts: list[str], **options: Any) -> Filtered:
    names = [f"s{n}" for n in range(len(texts))]
    return Quality(columns=("text",), **options).apply(pa.table({"id": names, "text": texts}))


# One text for each rule that fails it, and what its number is, counted by hand.
PLANTED = {
    "num_words": ("Two words.", 2),
    "mean_word_length": ("a b c de", 5 / 4),
    "symbols_per_word": ("#one #two three...", 2 / 3),
    "bullet_lines": ("• one\n• two\n\n• three", 1.0),
    "ellipsis_lines": ("Read more...\nIt ends here.\nAnd so on…", 2 / 3),
    "alphabetic_words": ("1 2 3 four", 1 / 4),
    "different_stop_words": ("the the the end", 1),
    "repeated_lines": ("Home\nHome\nAbout\nHome", 2 / 4),
    "repeated_line_characters": ("longer line\nab\nlonger line\ncd", 11 / 26),
    "commonest_2_gram": ("buy now buy now buy now or never", 18 / 25),
    "commonest_3_gram": ("a b c a b c d", 6 / 7),
    "commonest_4_gram": ("a b c d a b c d", 1.0),
    "repeated_5_grams": ("a b c d e x a b c d e", 10 / 11),
    "repeated_6_grams": ("a b c d e f x a b c d e f", 12 / 13),
    "repeated_7_grams": ("a b c d e f g a b c d e f g z", 14 / 15),
    "repeated_8_grams": ("a b c d e f g h x a b c d e f g h", 16 / 17),
    "repeated_9_grams": ("a b c d e f g h i a b c d e f g h i", 1.0),
    "repeated_10_grams": ("a b c d e f g h i j x a b c d e f g h i j", 20 / 21),
    "unfinished_lines": ("It ends.\nIt does not\nNor this...", 2 / 3),
    "num_sentences": ("One. Two? three", 2),
    "code_signs": ("if (x) { lorem ipsum } // JavaScript", 3),
}


def test_every_rule_has_a_text_that_fails_it():
    assert set(PLANTED) == set(QUALITY_RULES)


@pytest.mark.parametrize("rule", QUALITY_RULES)
def test_a_planted_text_goes_for_its_rule_and_a_good_one_stays(rule):
    text, number = PLANTED[rule]
    assert QUALITY_RULES[rule].score(text) == pytest.approx(number)
    result = quality([text, GOOD], rules=(rule,))
    assert result.keep.tolist() == [False, True]
    assert result.dropped == {rule: 1}
    assert result.examples[rule] == ("s0",)


def test_a_good_text_passes_all_rules_and_a_bad_one_goes_for_the_first():
    result = quality([GOOD, PLANTED["repeated_lines"][0]], rules=tuple(QUALITY_RULES))
    assert result.dropped == {"num_words": 1}
    later = quality([PLANTED["repeated_lines"][0]], rules=("repeated_lines", "num_words"))
    assert later.dropped == {"repeated_lines": 1}


def test_limits_can_be_given_and_stand_in_the_report():
    result = quality(["one", "one two", "one two three"], rules=("num_words",), limits={"num_words": (2, 2)})
    assert result.keep.tolist() == [False, True, False]
    assert result.parameters["limits"] == {"num_words": [2, 2]}


def test_chinese_words_are_characters():
    text = "今天天气很好。我们去公园吗\uff1f好\uff01"
    expected = {"num_words": 13, "mean_word_length": 1, "num_sentences": 3, "unfinished_lines": 0}
    assert {rule: QUALITY_RULES[rule].score(text) for rule in expected} == expected


@pytest.mark.parametrize("rule", QUALITY_RULES)
def test_an_empty_text_has_a_number_too(rule):
    assert 0 <= QUALITY_RULES[rule].score("") <= 1


def test_repeated_runs_agree_with_a_slow_count():
    text = "one two three four five six one two three four five nine one two"
    tokens = re.findall(r"\w+", text)
    for size in (2, 3, 5):
        runs = Counter(" ".join(tokens[i : i + size]) for i in range(len(tokens) - size + 1))
        covered = [
            any(
                runs[" ".join(tokens[i : i + size])] > 1
                for i in range(max(0, at - size + 1), min(at, len(tokens) - size) + 1)
            )
            for at in range(len(tokens))
        ]
        share = sum(len(t) for t, c in zip(tokens, covered, strict=True) if c) / sum(map(len, tokens))
        assert repeated_n_grams(text, size=size) == pytest.approx(share)


@pytest.mark.parametrize(("rule", "limits"), [("code_signs", (0, 1)), ("num_words", (9, 2))])
def test_limits_that_make_no_sense_are_refused(rule, limits):
    message = f"limits of {rule!r} are {list(limits)}; expected one of the rules used (num_words) and the least first"
    with pytest.raises(LabError, match=re.escape(message)):
        Quality(rules=("num_words",), limits={rule: limits})
