"""Faults of the kinds that the paper's loss filter is for, planted in a known share of clean samples.

Section 3 of the paper: below mean - sigma the answer almost repeats the prompt; above mean + sigma prompt and answer
are swapped, or the answer is made up. The paper does not say how many there were; here they are known, so that
precision and recall of a filter can be counted. Differs from the paper: in place of a hallucination stands the answer
of another sample.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from lab.data.filters.filtering import Filtered
from lab.data.sample import Sample
from lab.errors import LabError, choose


@dataclass(frozen=True, kw_only=True)
class Planted:
    """Samples of which some are faulty; `faults` has the kind of each, None for those left as they were."""

    samples: tuple[Sample, ...]
    faults: tuple[str | None, ...]


class Pool:
    """The clean samples, and those among which each finds another answer."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples
        numbers: dict[str, int] = {}
        self._answers = np.array([numbers.setdefault(one.answer, len(numbers)) for one in samples])
        kinds: dict[tuple[str, str], list[int]] = {}
        for place, one in enumerate(samples):
            kinds.setdefault(one.kind, []).append(place)
        self._kinds = {kind: np.array(places) for kind, places in kinds.items()}

    def other(self, index: int, rng: np.random.Generator) -> Sample:
        """One of another answer, drawn of the same kind; of all samples where that has none.

        Raises:
            LabError: all have the same answer.
        """
        one = self.samples[index]
        for among in (self._kinds[one.kind], np.arange(len(self.samples))):
            others = among[self._answers[among] != self._answers[index]]
            if len(others):
                return self.samples[others[int(rng.integers(len(others)))]]
        raise LabError(f"sample {one.id!r} has the answer of all others, {one.answer!r}; none can be put in its place")


Fault = Callable[[int, Pool, np.random.Generator], Sample]
"""Makes a faulty sample of the one at an index."""


def plant_faults(samples: Sequence[Sample], *, share: float, seed: int, kinds: Sequence[str] | None = None) -> Planted:
    """Make a share of the samples faulty, the nearest whole number of them, as equally as may be by kind.

    The order stays, and so do ids and media: a fault is in the question and in the answer. Which ones, and what
    becomes of them, follows from seed and samples. `kinds` are names in `FAULTS`, all where None.

    Raises:
        LabError: fewer than two samples, a share out of range, an unknown kind or none, or a sample whose
            answer every other one has too.
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
    chosen = rng.permutation(len(samples))[: round(share * len(samples))]
    made, pool = list(samples), Pool(samples)
    faults: list[str | None] = [None] * len(samples)
    for number, index in enumerate(chosen.tolist()):
        made[index] = makers[number % len(makers)](index, pool, rng)
        faults[index] = names[number % len(names)]
    return Planted(samples=tuple(made), faults=tuple(faults))


def _repeated_prompt(index: int, pool: Pool, rng: np.random.Generator) -> Sample:
    """The answer is the prompt, without one of its words where it has several."""
    one = pool.samples[index]
    words = one.question.split()
    if len(words) > 1:
        del words[int(rng.integers(len(words)))]
    return one.asking(one.question, " ".join(words))


def _swapped(index: int, pool: Pool, rng: np.random.Generator) -> Sample:
    one = pool.samples[index]
    return one.asking(one.answer, one.question)


def _other_answer(index: int, pool: Pool, rng: np.random.Generator) -> Sample:
    """The answer of another sample, of the same kind where one has another answer."""
    one = pool.samples[index]
    return one.asking(one.question, pool.other(index, rng).answer)


def removal_quality(keep: Bool[ndarray, " samples"], faults: Sequence[str | None]) -> dict[str, float]:
    """How well a filter removed the planted faults, as results of a cell; all are shares, 0 to 1.

    `removal_precision`: of what was removed, what is faulty (0 where nothing was). `removal_recall`: of what is faulty,
    what was removed (0 where nothing is); `removal_recall_KIND` the same by kind.
    """
    removed = ~np.asarray(keep, dtype=bool)
    faulty = np.array([fault is not None for fault in faults])
    found = int((removed & faulty).sum())
    kinds = sorted({fault for fault in faults if fault is not None})
    of_kind = {kind: np.array([fault == kind for fault in faults]) for kind in kinds}
    return {
        "removal_precision": found / int(removed.sum()) if removed.any() else 0.0,
        "removal_recall": found / int(faulty.sum()) if faulty.any() else 0.0,
        "share_removed": float(removed.mean()),
        "share_faulty_left": float(faulty[~removed].mean()) if not removed.all() else 0.0,
        **{f"removal_recall_{kind}": float(removed[own].mean()) for kind, own in of_kind.items()},
    }


def remove_planted(ids: Sequence[str], faults: Sequence[str | None]) -> Filtered:
    """Remove exactly the planted faults: the best that a filter could do, and no filter that one could have."""
    reasons = [None if fault is None else f"planted: {fault.replace('_', ' ')}" for fault in faults]
    return Filtered(ids, reasons, name="oracle", parameters={})


FAULTS: dict[str, Fault] = {
    "repeated_prompt": _repeated_prompt,
    "swapped": _swapped,
    "other_answer": _other_answer,
}
