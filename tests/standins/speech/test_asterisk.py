import pytest

from lab.data import splits
from lab.data.speech.corpora import load_corpus
from lab.data.splits import sentence_hash
from lab.errors import LabError
from standins.speech.asterisk import transcripts
from tests.data.fakes import asterisk_packages, tone

PROMPTS = {
    "agent-loginok": "Agent logged in.",
    "beep": "[this is a simple beep tone]",
    "digits/1": "one",
    "gone": "No sound for this.",
}


@pytest.fixture
def packages(monkeypatch):
    asterisk_packages(PROMPTS, {name: tone(0.5) for name in ("agent-loginok", "beep", "digits/1", "extra")})
    hashes = frozenset(sentence_hash(text)[:16] for text in PROMPTS.values())
    monkeypatch.setattr(splits, "reserved_hashes", lambda: hashes)


def test_comments_and_sounds_are_no_transcripts():
    text = "; Core Sounds: English\n\nbeep: [a tone]\nvm-and: and: so on\nnothing here\n"
    assert transcripts(text) == {"vm-and": "and: so on"}


def test_every_utterance_is_test_and_of_one_speaker(packages):
    corpus = load_corpus("asterisk")
    assert {u.id: u.answer for u in corpus.samples} == {"agent-loginok": "Agent logged in.", "digits/1": "one"}
    assert corpus.split("test") == corpus.samples
    assert {u.sound.speaker for u in corpus.samples} == {"ALLISON"}
    assert corpus.samples[0].sound.read().size == pytest.approx(8000, abs=200)
    assert corpus.manifest["skipped"] == {"clip without a text": 2, "text without a clip": 1}


def test_a_sentence_that_is_not_reserved_stops_the_corpus(packages, monkeypatch):
    monkeypatch.setattr(splits, "reserved_hashes", lambda: frozenset())
    with pytest.raises(LabError, match=r"3 sentences of asterisk-core-sounds-en are not in .*reserved_sentences.txt"):
        load_corpus("asterisk")
