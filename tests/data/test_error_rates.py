import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.data.normalizers import NORMALIZERS, text_errors
from lab.errors import LabError
from lab.evaluation.items import pooled

PLAIN = NORMALIZERS["lowercase_alphanumeric"]


def score(reference: str, hypothesis: str) -> pd.Series:
    return text_errors([reference], [hypothesis], PLAIN, ["u"]).iloc[0]


@pytest.mark.parametrize(
    ("reference", "hypothesis", "characters", "character_errors", "words", "word_errors"),
    [
        # the cat sat -> the cat sat: nothing wrong.
        ("The cat sat.", "the cat sat", 11, 0, 3, 0),
        # "cat" -> "bat": one letter and one word substituted.
        ("the cat sat", "the bat sat", 11, 1, 3, 1),
        # " sat" is gone: a blank and three letters deleted, one word deleted.
        ("the cat sat", "the cat", 11, 4, 3, 1),
        # "on " inserted: three characters, one word.
        ("sat it", "sat on it", 6, 3, 2, 1),
        # "thecat": the blank deleted; as words, one substituted ("the" -> "thecat") and one deleted ("cat").
        ("the cat", "thecat", 7, 1, 2, 2),
        # Nothing heard: all is deleted.
        ("the cat", "", 7, 7, 2, 2),
        # Only punctuation heard, which is nothing after normalisation.
        ("the cat", "...", 7, 7, 2, 2),
        # More inserted than said: "a" -> "a b c", four characters, two words.
        ("a", "a b c", 1, 4, 1, 2),
        # kitten -> sitting: k/s, e/i, +g.
        ("kitten", "sitting", 6, 3, 1, 1),
    ],
)
def test_errors_are_as_counted_by_hand(
    reference: str, hypothesis: str, characters: int, character_errors: int, words: int, word_errors: int
) -> None:
    line = score(reference, hypothesis)
    assert (line["num_characters"], line["character_errors"]) == (characters, character_errors)
    assert (line["num_words"], line["word_errors"]) == (words, word_errors)
    assert (line["wrong_answers"], line["num_questions"]) == (int(character_errors > 0), 1)


def test_rates_are_pooled_over_utterances_and_not_averaged() -> None:
    # Characters: 1 of 3 and 0 of 7, so 1/10, not the mean of 1/3 and 0. Words: 1 of 1 and 0 of 2, so 1/3.
    frame = text_errors(["cat", "the dog"], ["bat", "the dog"], PLAIN, ["u1", "u2"])
    assert pooled(frame, "character_errors", "num_characters") == pytest.approx(1 / 10)
    assert pooled(frame, "word_errors", "num_words") == pytest.approx(1 / 3)


def test_all_hypotheses_empty_is_a_rate_of_one() -> None:
    frame = text_errors(["cat", "the dog"], ["", ""], PLAIN, ["u1", "u2"])
    assert pooled(frame, "character_errors", "num_characters") == 1.0
    assert pooled(frame, "word_errors", "num_words") == 1.0


def test_columns_keep_raw_and_normalised_text_in_the_order_given() -> None:
    frame = text_errors(["B!", "A?"], ["b", "c"], PLAIN, ["u2", "u1"])
    assert frame["id"].tolist() == ["u2", "u1"]
    assert frame["answer"].tolist() == ["B!", "A?"]
    assert frame["answer_normalized"].tolist() == ["b", "a"]
    assert frame["given_normalized"].tolist() == ["b", "c"]


def test_chinese_counts_characters_and_no_words() -> None:
    # 今天天气好 against 今天天汽: one substituted, one deleted, of five.
    frame = text_errors(["今天，天气好。"], ["今天天汽"], NORMALIZERS["chinese_characters"], ["u"])
    assert pooled(frame, "character_errors", "num_characters") == pytest.approx(2 / 5)
    with pytest.raises(LabError, match="num_words is 0 in all of 1 items"):
        pooled(frame, "word_errors", "num_words")


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from("ab "), min_size=1, max_size=12), st.lists(st.sampled_from("ab "), max_size=12))
def test_character_errors_equal_a_slow_edit_distance(said: list[str], heard: list[str]) -> None:
    reference, hypothesis = PLAIN("".join(said)) or "a", PLAIN("".join(heard))
    line = score(reference, hypothesis)
    assert line["character_errors"] == edit_distance(list(reference), list(hypothesis))
    assert line["word_errors"] == edit_distance(reference.split(), hypothesis.split())


def edit_distance(a: list[str], b: list[str]) -> int:
    if not a or not b:
        return len(a) + len(b)
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def test_reference_empty_after_normalisation_is_refused_by_name() -> None:
    with pytest.raises(LabError, match=r"answer of 'u2', '\.\.\.', is empty after the normaliser 'lowercase_alph"):
        text_errors(["a", "..."], ["a", "b"], PLAIN, ["u1", "u2"])


def test_rates_of_no_utterances_are_refused() -> None:
    frame = text_errors([], [], PLAIN, [])
    with pytest.raises(LabError, match="no rate of character_errors: num_characters is 0 in all of 0 items"):
        pooled(frame, "character_errors", "num_characters")
    with pytest.raises(LabError, match="no rate of word_errors"):
        pooled(frame, "word_errors", "num_words")
