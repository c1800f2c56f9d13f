"""A fine-tuning cell on made-up instructions and a random language model, for the tests of several rooms."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lab.data.instructions.instructions import instruction
from lab.data.sample import Sample
from lab.parts.language_models import LanguageModel
from lab.study.ablation import load_ablation
from lab.training import tuning
from tests.data.fakes import installed
from tests.parts.tiny_models import language_model

ALPHABET = " 'abcdefghijklmnopqrstuvwxyz"
WORDS = ("cat", "dog", "tree", "river", "house", "bird", "stone", "cloud")


def talks(count: int = 160) -> None:
    """A package of conversations of letters alone, no two of them near."""
    rng = np.random.default_rng(0)
    lines = ["conversations:"]
    for number in range(count):
        name = "".join(rng.choice(list("abcdefgh"), 6))
        answer = " ".join(rng.choice(WORDS, 1 + number % 4))
        lines += [f"- - {name} {name[::-1]} tells", f"  - {answer} {name}"]
    installed("chatterbot-corpus", {"chatterbot_corpus/data/english/talk.yml": "\n".join(lines).encode()})


def tiny_parameters(**changes: Any) -> Any:
    """Those of a cell at the smoke rung, smaller still."""
    tiny = {"num_training": 40, "num_test": 6, "budget_tokens": 400, "precision": "float32", "device": "cpu"}
    return replace(load_ablation("loss_filter").resolve("none", "smoke"), **{**tiny, **changes})


def tiny_model() -> LanguageModel:
    """What stands for the language model of the project."""
    model = language_model(alphabet=ALPHABET)
    return LanguageModel("character", model.model, model.codec, "0", 4)


@pytest.fixture
def offline_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every language model is the tiny one, and the conversations are there."""
    talks()
    monkeypatch.setattr(tuning, "open_language_model", lambda name, pretraining_steps: tiny_model())


def numbered(count: int) -> list[Sample]:
    """Instructions whose answers differ."""
    return [
        instruction(
            id=f"i{n}", prompt=f"say {WORDS[n % 8]}", answer=f"{WORDS[n % 8]} {'a' * (n + 1)}", source=f"s{n % 2}"
        )
        for n in range(count)
    ]
