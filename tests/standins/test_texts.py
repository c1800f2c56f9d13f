import hashlib

import pytest

from lab.data.splits import may_train_on, split_of
from lab.errors import LabError
from standins.texts import (
    ALPHABET,
    available_text_sources,
    chatterbot_sentences,
    fortune_sentences,
    in_alphabet,
    sentences,
    split_sentences,
    to_alphabet,
    training_text,
)
from tests.data.fakes import chatterbot_package, fortunes_package

FORTUNE = """\
Too much is not enough.  Mr. Smith said so!
\t\t-- Somebody, "A Book"
%
Pickle's Law:
\tIf Congress must do a painful thing,
\tthe thing must be done in an odd-number year.
%
Q:\tHow many are there?
A:\tNone at all.
%
A heading without an end
%
x = y + 1;
"""


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("“Whoah! That’s it,” he said…", "whoah! that's it, he said."),
        ("A   tab\tand (brackets)", "a tab and brackets"),
        ("wait: no; yes", "wait, no, yes"),
        ("caf\u00e9 <b>", "caf b"),
    ],
)
def test_text_is_brought_into_the_alphabet(written, plain):
    assert to_alphabet(written) == plain
    assert set(to_alphabet(written)) <= set(ALPHABET)


def test_punctuation_can_be_left_out():
    assert to_alphabet("It's a left-handed one, no?", punctuation=False) == "it's a left handed one no"


def test_a_sign_that_would_be_lost_is_noticed():
    assert in_alphabet('"Quite so," he said; (they all did).')
    assert not in_alphabet("x = y")
    assert not in_alphabet("42.")


def test_sentences_end_at_marks_but_not_at_abbreviations():
    assert split_sentences("Go home. Mr. Smith waits!  Does he? e.g. yes") == [
        "Go home.",
        "Mr. Smith waits!",
        "Does he? e.g. yes",
    ]
    assert split_sentences('He said "No." Then he left.') == ['He said "No."', "Then he left."]
    assert split_sentences("  ") == []


def test_fortunes_lose_headings_attributions_and_what_is_no_sentence():
    fortunes_package(FORTUNE)
    assert list(fortune_sentences()) == [
        "Too much is not enough.",
        "Mr. Smith said so!",
        "If Congress must do a painful thing, the thing must be done in an odd-number year.",
        "How many are there?",
        "None at all.",
    ]


def test_conversations_are_read_turn_by_turn():
    chatterbot_package(["What is it? Nothing.", "1963"])
    assert list(chatterbot_sentences()) == ["What is it?", "Nothing.", "1963"]


def test_sentences_are_unique_and_of_the_wanted_length():
    chatterbot_package(["one two three.", "One, two, THREE!", "alone", "a b c d e f", "tick = tock"])
    assert sentences(["chatterbot"], min_words=2, max_words=5) == ["one two three."]


def test_training_text_counts_its_sources_and_repeats_exactly():
    chatterbot_package([f"This is sentence number {n}." for n in range(200)])
    fortunes_package("\n%\n".join(f"This is sentence number {n}." for n in range(150, 300)))
    sources = ["chatterbot", "fortunes"]
    text = training_text(sources)
    assert text.manifest["sentences"].keys() == {"chatterbot", "fortunes"}
    assert sum(text.manifest["sentences"].values()) == len(text.sentences) == len(set(text.sentences))
    assert text.manifest["left_out"]["said before"] == 50
    assert text.manifest["sha256"] == hashlib.sha256("\n".join(text.sentences).encode()).hexdigest()
    assert training_text(sources).manifest == text.manifest
    assert all(may_train_on(sentence) for sentence in text.sentences)
    expected = [n for n in range(300) if split_of(f"This is sentence number {n}.") == "train"]
    assert text.sentences == [f"this is sentence number {n}." for n in expected]


def test_only_sources_that_can_be_fetched_are_taken(monkeypatch):
    from standins import texts as module

    monkeypatch.setattr(module, "available", lambda package: package == "fortunes")
    assert available_text_sources() == ("fortunes",)
    monkeypatch.setattr(module, "available", lambda package: False)
    with pytest.raises(
        LabError, match="no text source can be fetched; expected one of: chatterbot, fortunes, amazon_queen"
    ):
        training_text()


def test_an_unknown_source_lists_the_choices():
    with pytest.raises(
        LabError, match="unknown text source 'wikipedia'; choose one of: amazon_queen, chatterbot, fortunes"
    ):
        sentences(["wikipedia"])
