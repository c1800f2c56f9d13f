"""A benchmark that costs nothing: it guesses, and says how often it was asked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import pandas as pd

from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import Benchmark, Identity, Options, Progress, Score, sampled

NUM_ITEMS = 20


@dataclass(frozen=True, kw_only=True)
class Guessing(Benchmark):
    """Every fourth answer is wrong; a model called `broken` breaks while it is asked."""

    name: str = "guessing"
    source: str = "made up"
    asked: list[str] = field(default_factory=list)

    kind = "language"
    models = "any"
    options: ClassVar[Options] = {"mood": "good or bad"}

    def identify(self, model: str, options: Mapping[str, str]) -> Identity:
        if model == "unknown":
            raise LabError("unknown model 'unknown'")
        return Identity(model_key=f"{model}@1", settings={"mood": options.get("mood", "good")})

    def ask(
        self, model: str, identity: Identity, options: Mapping[str, str], limit: int | None, progress: Progress
    ) -> tuple[tuple[Score, ...], pd.DataFrame, Mapping[str, str]]:
        self.asked.append(model)
        if model == "broken":
            raise LabError("the model broke")
        places = sampled(NUM_ITEMS, limit)
        right = [float(place % 4 != 0) for place in places]
        progress(len(places), len(places))
        answers = pd.DataFrame(
            {"id": [str(place) for place in places], "asked": "?", "answer": "1", "given": "1", "score": right}
        )
        value = sum(right) / len(right)
        score = Score(metric="accuracy", value=value, low=0.5, high=0.9, better="higher", num_items=len(places))
        points = Score(metric="points", value=2.5, unit="points", better="higher", num_items=len(places))
        return (score, points), answers, {"signature": "x|y"}


@dataclass(frozen=True)
class Found:
    """What `Benchmark.identify` and `ask` give."""

    model_key: str
    settings: Mapping[str, str]
    scores: tuple[Score, ...]
    answers: pd.DataFrame


def asked(
    benchmark: Benchmark,
    model: str,
    options: Mapping[str, str] | None = None,
    limit: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Found:
    """Ask a model, tracking nothing."""
    identity = benchmark.identify(model, options or {})
    scores, answers, told = benchmark.ask(model, identity, options or {}, limit, progress)
    return Found(identity.model_key, {**identity.settings, **told}, scores, answers)


def silent(done: int, total: int) -> None:
    """No progress."""
