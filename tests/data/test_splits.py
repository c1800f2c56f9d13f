"""No sentence of a test split stands in training, in any corpus or in the language model's text."""

import re
from collections import Counter

import numpy as np
import pytest

from lab.data import splits
from lab.data.speech import corpora
from lab.data.speech.corpora import Corpus, CorpusKind, load_corpus
from lab.data.splits import (
    assign_split,
    held_out_speakers,
    is_reserved,
    may_train_on,
    normalize_sentence,
    sentence_hash,
    split_of,
)
from lab.errors import LabError
from standins.texts import training_text
from tests.data.fakes import chatterbot_package, fortunes_package, reading, recording, tone

WORDS = ["one", "river", "blue", "stone", "where", "nobody", "sings", "seven", "green", "old", "hills", "again"]


def made_up(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [f"{' '.join(rng.choice(WORDS, 6))}, number {number}." for number in range(count)]


def in_split(wanted: str, count: int = 5, seed: int = 0) -> list[str]:
    return [text for text in made_up(400, seed) if split_of(text) == wanted][:count]


@pytest.mark.parametrize(
    ("written", "same"),
    [
        ("Well -- THAT's it...", "well that's it"),
        ("  two\tblanks\n here ", "two blanks here"),
        ("It’s 5 o'clock!", "it's 5 o'clock"),
        ("'quoted' words'", "quoted words"),
        ("snake_case", "snake case"),
        ("Gr\u00fc\u00df Gott", "gr\u00fc\u00df gott"),
        ("你 好，世界。", "你好世界"),
        ("?!...", ""),
    ],
)
def test_sentences_are_the_same_when_only_case_blanks_and_signs_differ(written, same):
    assert normalize_sentence(written) == same


def test_a_split_depends_on_the_normalised_sentence_alone():
    for text in made_up(50):
        assert split_of(text) == split_of(text.upper().replace(",", " --"))


def test_a_tenth_of_the_sentences_is_test_and_a_twentieth_dev():
    counts = Counter(split_of(text) for text in made_up(20000))
    assert counts["test"] / 20000 == pytest.approx(0.10, abs=0.01)
    assert counts["dev"] / 20000 == pytest.approx(0.05, abs=0.01)


def test_held_out_speakers_are_chosen_by_name_alone():
    names = [f"speaker {number}" for number in range(50)]
    chosen = held_out_speakers(names, 0.2)
    assert len(chosen) == 10
    assert chosen == held_out_speakers(reversed(names * 2), 0.2)
    assert held_out_speakers(names, 0.0) == frozenset()
    assert held_out_speakers(["alone"], 0.5) == frozenset()
    assert len(held_out_speakers(["a", "b"], 0.01)) == 1


def test_a_fraction_of_all_speakers_cannot_be_held_out():
    with pytest.raises(LabError, match=r"fraction of held-out speakers 1.0 is not in \[0, 1\)"):
        held_out_speakers(["a", "b"], 1.0)


def test_reserved_sentences_are_hashes_and_known_ones_are_reserved():
    assert all(re.fullmatch(r"[0-9a-f]{16}", line) for line in splits.reserved_hashes())
    assert len(splits.reserved_hashes()) > 500
    assert is_reserved("Thank you for calling!") == is_reserved("thank you for calling")
    assert is_reserved("All circuits are busy now.")
    assert not may_train_on("All circuits are busy now.")


@pytest.mark.parametrize("own", ["train", "dev"])
def test_a_source_that_trains_on_a_test_sentence_loses_it(own):
    (text,) = in_split("test", 1)
    split, reason = assign_split(text, own_split=own)
    assert split is None
    assert reason == f"{own} sentence of the test bucket"


def test_a_source_keeps_its_own_test_split_whatever_the_hash_says():
    for wanted in ("train", "dev", "test"):
        assert assign_split(in_split(wanted, 1)[0], own_split="test") == ("test", "")


def test_a_held_out_speaker_is_tested_and_never_trained_on():
    assert assign_split(in_split("test", 1)[0], held_out_speaker=True) == ("test", "")
    assert assign_split(in_split("dev", 1)[0], held_out_speaker=True) == ("dev", "")
    assert assign_split(in_split("train", 1)[0], held_out_speaker=True)[0] is None


def assert_no_test_sentence(training, test):
    """Hold a set of training sentences against a set of test sentences."""
    assert not {normalize_sentence(text) for text in training} & {normalize_sentence(text) for text in test}


@pytest.fixture
def reserved(monkeypatch) -> list[str]:
    """Sentences of the fake out-of-domain test, planted in everything else."""
    texts = in_split("train", 4, seed=7)
    hashes = frozenset(sentence_hash(text)[:16] for text in texts)
    monkeypatch.setattr(splits, "reserved_hashes", lambda: hashes)
    return texts


def corpus_of(monkeypatch, name: str, rows: list[tuple[str, str, str | None]], held_out=()) -> Corpus:
    """A corpus of (text, speaker, own split), prepared as every corpus is."""

    def read():
        recordings = [
            recording(f"{name}-{i}", text, lambda: tone(0.3), speaker=speaker, split=own)
            for i, (text, speaker, own) in enumerate(rows)
        ]
        return reading(recordings, held_out_speakers=frozenset(held_out))

    monkeypatch.setitem(corpora.CORPORA, name, lambda: CorpusKind(read))
    return load_corpus(name)


def test_no_test_sentence_stands_in_training_in_any_corpus_or_text(monkeypatch, reserved):
    everything = made_up(300) + reserved
    shouted = [text.upper() + "!!" for text in everything]
    owned = [(text, "h", own) for text in everything for own in ("train", "dev")]
    tested = in_split("train", 3, seed=3)
    chatterbot_package(everything)
    fortunes_package("\n%\n".join(f"{text.capitalize()}\n\t\t-- Nobody" for text in everything))
    made = [
        corpus_of(monkeypatch, "recorded", [(text, f"s{i % 7}", None) for i, text in enumerate(everything)], {"s3"}),
        corpus_of(monkeypatch, "synthetic", [(text, "voice", None) for text in shouted]),
        corpus_of(
            monkeypatch, "from_hub", owned + [(text, "h", "test") for text in tested] + [(tested[0], "h", "train")]
        ),
        corpus_of(monkeypatch, "out_of_domain", [(text, "a", "test") for text in reserved]),
    ]
    trained = [u.answer for corpus in made for u in corpus.split("train")]
    by_hash = [u.answer for corpus in made[:3] for u in corpus.split("test") if u.answer not in tested]
    text = training_text(["chatterbot", "fortunes"])
    assert trained
    assert by_hash
    assert text.sentences
    for training in (trained, text.sentences):
        assert_no_test_sentence(training, by_hash)
        assert_no_test_sentence(training, reserved)
    dev = [u.answer for corpus in made for u in corpus.split("dev")]
    assert_no_test_sentence(dev, by_hash + reserved)
    assert_no_test_sentence([u.answer for u in made[2].split("train")], tested)
    assert {u.sound.speaker for u in made[0].split("train")} == {f"s{i}" for i in (0, 1, 2, 4, 5, 6)}
    assert made[0].manifest["skipped"]["training sentence of a held-out speaker"] > 0
    assert made[0].manifest["skipped"]["train sentence reserved for asterisk"] == 4 - sum(
        split_of(text) == "test" for text in reserved
    )
    assert text.manifest["left_out"]["reserved for asterisk"] >= 4


def test_every_reader_is_prepared_by_the_one_code_path_that_assigns_splits(monkeypatch):
    """The corpora differ only in their reader; a change that lets one bypass `assign_split` fails here."""
    calls: list[str] = []

    def recorded(text, **options):
        calls.append(text)
        return assign_split(text, **options)

    monkeypatch.setattr(corpora, "assign_split", recorded)
    corpus_of(monkeypatch, "recorded", [(text, "s", None) for text in made_up(20)])
    assert calls == made_up(20)
    assert all(callable(kind().read) for kind in corpora.CORPORA.values())
