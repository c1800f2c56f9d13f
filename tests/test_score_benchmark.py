import numpy as np
import pytest

from benchmarks import score
from lab.errors import LabError
from lab.parts.omni_model import Example
from tests.training.instructions import talks, tiny_model


def test_both_sides_score_the_same_and_are_timed() -> None:
    talks(30)
    model = tiny_model()
    pairs = score.readable("chatterbot", 12, model, 100)
    assert len(pairs) == 12
    sides = score.compare(model, pairs, budget_tokens=100, repeats=1)
    assert sides.difference < 1e-4
    assert min(*sides.packed, *sides.single) > 0


def test_sides_that_differ_give_no_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "one_at_a_time", lambda model, pairs: np.full(len(pairs), 99.0))
    with pytest.raises(LabError, match="nats a token apart; the ratio means nothing"):
        score.compare(tiny_model(), [Example(content=[[1]], answer=[2])] * 2, budget_tokens=100, repeats=1)


def test_a_source_that_the_model_cannot_read_is_named() -> None:
    talks(3)
    with pytest.raises(LabError, match="'character' reads 0 instructions of 'chatterbot'"):
        score.readable("chatterbot", 12, tiny_model(), 4)
