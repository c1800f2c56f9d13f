import pytest

from lab.errors import LabError
from standins.models import character_model
from standins.texts import TrainingText


@pytest.fixture
def made(monkeypatch, tmp_path):
    """How often the text was made; no package is fetched."""
    calls = []

    def training_text(*, punctuation):
        calls.append(punctuation)
        return TrainingText(["a cat sat", "it's late"], {"sha256": "c0ffee", "sentences": {"fortunes": 2}})

    monkeypatch.setenv("OMNI_LAB_CACHE", str(tmp_path))
    monkeypatch.setattr(character_model, "training_text", training_text)
    monkeypatch.setattr(character_model, "available_text_sources", lambda: ("fortunes",))
    return calls


def test_the_training_text_is_made_once_and_read_from_then_on(made):
    first, second = character_model._text(), character_model._text()
    assert first == second
    assert made == [False]


def test_another_source_or_another_reserved_sentence_makes_the_text_anew(made, monkeypatch):
    character_model._text()
    monkeypatch.setattr(character_model, "available_text_sources", lambda: ("chatterbot", "fortunes"))
    character_model._text()
    monkeypatch.setattr(character_model.splits, "reserved_hashes", lambda: frozenset({"0" * 16}))
    character_model._text()
    assert len(made) == 3


def test_a_text_that_cannot_be_kept_is_one_clear_sentence(made, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(character_model.Path, "write_bytes", full)
    with pytest.raises(LabError, match=r"the training text cannot be kept at .*texts.*No space left"):
        character_model._text()
