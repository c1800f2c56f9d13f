"""Faults of the kinds that the paper's loss filter is for, planted in a known share of clean samples.

Section 3 of the paper: below mean - sigma the answer almost repeats the prompt; above mean + sigma prompt and answer
are swapped, or the answer is made up. The paper does not say how many there were; here they are known, so that
precision and recall of a filter can be counted. Differs from the paper: in place of a hallucination stands the answer
of another sample.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from lab.data.sample import Sample
from lab.errors import LabError, choose


@dataclass(frozen=True, kw_only=True)
class Planted:
    """Samples of which some are faulty; `faults` has the kind of each, None for those left as they were."""

    samples: tuple[Sample, ...]
    faults: tuple[str | None, ...]


Fault = Callable[[Sample, Callable[[], Sample], np.random.Generator], Sample]
"""Makes a faulty sample of a clean one; the second draws a sample of another answer."""


def plant_faults(samples: Sequence[Sample], *, share: float, seed: int, kinds: Sequence[str] | None = None) -> Planted:
    """Make a share of the samples faulty, the nearest whole number of them, as equally as may be by kind.

    The order stays, and so do ids and media: a fault is in the question and in the answer. Which ones, and what
    becomes of them, follows from seed and samples. `kinds` are names in `FAULTS`, all of them where None.

    Raises:
        LabError: fewer than two samples, a share that is not from 0 to below 1, an unknown kind or none, or a sample
            whose answer every other one has too.
    """
    names = list(FAULTS) if kinds is None else list(kinds)
    makers = [choose(FAULTS, name, "kind of planted fault") for name in names]
    if len(samples) < 2:
        raise LabError(f"faults are planted among at least two samples, not {len(samples)}")
    if not 0 <= share < 1 or not names:
        raise LabError(
            f"the share of planted faults is {share} over {len(names)} kinds; expected 0 to below 1, and one"
        )
    # Of its own, so that a filter that draws with the same seed does not draw the same samples.
    rng = np.random.default_rng([seed, 0xFA017])
    answers, own_kind = _numbered([one.answer for one in samples]), _numbered([one.kind for one in samples])

    def other(index: int) -> Sample:
        """One drawn of those with another answer, of the same kind where there is one."""
        differ = answers != answers[index]
        alike = differ & (own_kind == own_kind[index])
        among = np.flatnonzero(alike if alike.any() else differ)
        if not len(among):
            one = samples[index]
            raise LabError(f"sample {one.id!r} has the answer of all others, {one.answer!r}; none can stand for it")
        return samples[int(among[int(rng.integers(len(among)))])]

    made = list(samples)
    faults: list[str | None] = [None] * len(samples)
    for number, index in enumerate(rng.permutation(len(samples))[: round(share * len(samples))].tolist()):
        made[index] = makers[number % len(makers)](samples[index], partial(other, index), rng)
        faults[index] = names[number % len(names)]
    return Planted(samples=tuple(made), faults=tuple(faults))


def _numbered(values: Sequence[Hashable]) -> Int[ndarray, " samples"]:
    """Equal values by an equal number."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values])


def _repeated_prompt(one: Sample, other: Callable[[], Sample], rng: np.random.Generator) -> Sample:
    """The answer is the prompt, without one of its words where it has several."""
    words = one.question.split()
    if len(words) > 1:
        del words[int(rng.integers(len(words)))]
    return one.asking(one.question, " ".join(words))


def _swapped(one: Sample, other: Callable[[], Sample], rng: np.random.Generator) -> Sample:
    return one.asking(one.answer, one.question)


def _other_answer(one: Sample, other: Callable[[], Sample], rng: np.random.Generator) -> Sample:
    """The answer of another sample, of the same kind where one has another answer."""
    return one.asking(one.question, other().answer)


FAULTS: dict[str, Fault] = {
    "repeated_prompt": _repeated_prompt,
    "swapped": _swapped,
    "other_answer": _other_answer,
}
