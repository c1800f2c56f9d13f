"""Faults of the kinds that the paper's loss filter is for, planted in a known share of clean samples.

Section 3 of the paper: below mean - sigma the answer almost repeats the prompt; above mean + sigma prompt and answer
are swapped, or the answer is made up. The paper does not say how many there were; here they are known, so that
precision and recall of a filter can be counted. Differs from the paper: in place of a hallucination stands the answer
of another sample.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
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


Among = tuple[str, str] | None


class Pool(Sequence[Sample]):
    """The samples among which faults are planted; finds one of another answer without going through all."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._all = samples
        self._among: dict[Among, list[int]] = {}
        self._answering: dict[tuple[Among, str], list[int]] = {}
        for index, one in enumerate(samples):
            for among in (one.kind, None):
                members = self._among.setdefault(among, [])
                self._answering.setdefault((among, one.answer), []).append(len(members))
                members.append(index)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        return self._all[index]

    def __len__(self) -> int:
        return len(self._all)

    def other(self, one: Sample, among: Among, rng: np.random.Generator) -> Sample | None:
        """One drawn of a kind (None: of all) whose answer is not this one's; None where there is none.

        With places 0 to 4 and the answer at 1 and 3, the draw 1 is place 2: the second of 0, 2 and 4.
        """
        members, same = self._among[among], self._answering[(among, one.answer)]
        if len(members) == len(same):
            return None
        drawn = int(rng.integers(len(members) - len(same)))
        # The first place before which so many have another answer, and which has one itself.
        place = bisect_left(range(len(members)), drawn + 1, key=lambda place: place + 1 - bisect_right(same, place))
        return self._all[members[place]]


Fault = Callable[[int, Pool, np.random.Generator], Sample]
"""Makes a faulty sample of the one at an index."""


def plant_faults(samples: Sequence[Sample], *, share: float, seed: int, kinds: Sequence[str] | None = None) -> Planted:
    """Make a share of the samples faulty, the nearest whole number of them, as equally as may be by kind.

    The order stays, and so do ids and media: a fault is in the question and in the answer. Which ones, and what
    becomes of them, follows from seed and samples.

    Args:
        samples: clean ones, at least two.
        share: of them that becomes faulty, from 0 to below 1.
        seed: of all choices.
        kinds: names in `FAULTS`, all where None.

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


def _repeated_prompt(index: int, samples: Pool, rng: np.random.Generator) -> Sample:
    """The answer is the prompt, without one of its words where it has several."""
    one = samples[index]
    words = one.question.split()
    if len(words) > 1:
        del words[int(rng.integers(len(words)))]
    return one.asking(one.question, " ".join(words))


def _swapped(index: int, samples: Pool, rng: np.random.Generator) -> Sample:
    one = samples[index]
    return one.asking(one.answer, one.question)


def _other_answer(index: int, samples: Pool, rng: np.random.Generator) -> Sample:
    """The answer of another sample, of the same kind where one has another answer."""
    one = samples[index]
    for among in (one.kind, None):
        if (other := samples.other(one, among, rng)) is not None:
            return one.asking(one.question, other.answer)
    raise LabError(f"sample {one.id!r} has the answer of all others, {one.answer!r}; none can be put in its place")


@dataclass(frozen=True, kw_only=True)
class RemovalQuality:
    """How well a filter removed the planted faults; all are shares, 0 to 1.

    `precision`: of what was removed, what is faulty (0 where nothing was). `recall`: of what is faulty, what was
    removed (0 where nothing is); `recall_of` the same by kind.
    """

    precision: float
    recall: float
    share_removed: float
    share_faulty_left: float
    recall_of: Mapping[str, float]


def removal_quality(keep: Bool[ndarray, " samples"], faults: Sequence[str | None]) -> RemovalQuality:
    """Hold what a filter kept against the planted faults.

    Raises:
        LabError: not one judgement a sample.
    """
    if len(keep) != len(faults):
        raise LabError(f"a filter judged {len(keep)} samples of {len(faults)}")
    removed = ~np.asarray(keep, dtype=bool)
    faulty = np.array([fault is not None for fault in faults])
    found = int((removed & faulty).sum())
    kinds = sorted({fault for fault in faults if fault is not None})
    of_kind = {kind: np.array([fault == kind for fault in faults]) for kind in kinds}
    return RemovalQuality(
        precision=found / int(removed.sum()) if removed.any() else 0.0,
        recall=found / int(faulty.sum()) if faulty.any() else 0.0,
        share_removed=float(removed.mean()),
        share_faulty_left=float(faulty[~removed].mean()) if not removed.all() else 0.0,
        recall_of={kind: float(removed[own].mean()) for kind, own in of_kind.items()},
    )


def remove_planted(ids: Sequence[str], faults: Sequence[str | None]) -> Filtered:
    """Remove exactly the planted faults: the best that a filter could do, and no filter that one could have."""
    reasons = [None if fault is None else f"planted: {fault.replace('_', ' ')}" for fault in faults]
    return Filtered(ids, reasons, name="oracle", parameters={})


FAULTS: dict[str, Fault] = {
    "repeated_prompt": _repeated_prompt,
    "swapped": _swapped,
    "other_answer": _other_answer,
}
