"""Faults of the kinds that the paper's loss filter is for, planted in a known share of clean instructions.

Section 3 of the paper: below mean - sigma the answer almost repeats the prompt; above mean + sigma prompt and answer
are swapped, or the answer is made up. The paper does not say how many there were; here they are known, so that
precision and recall of a filter can be counted. Differs from the paper: in place of a hallucination stands the answer
of another instruction.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from lab.data.filters.filtering import Filtered
from lab.data.instructions.instruction import Instruction
from lab.errors import LabError, choose


@dataclass(frozen=True, kw_only=True)
class Planted:
    """Instructions of which some are faulty; `faults` has the kind of each, None for those left as they were."""

    instructions: tuple[Instruction, ...]
    faults: tuple[str | None, ...]


class Pool(Sequence[Instruction]):
    """The instructions among which faults are planted; finds one of another answer without going through all."""

    def __init__(self, instructions: Sequence[Instruction]) -> None:
        self._all = instructions
        self._among: dict[str | None, list[int]] = {}
        self._answering: dict[tuple[str | None, str], list[int]] = {}
        for index, one in enumerate(instructions):
            for among in (one.source, None):
                members = self._among.setdefault(among, [])
                self._answering.setdefault((among, one.answer), []).append(len(members))
                members.append(index)

    def __getitem__(self, index: int) -> Instruction:  # type: ignore[override]
        return self._all[index]

    def __len__(self) -> int:
        return len(self._all)

    def other(self, one: Instruction, among: str | None, rng: np.random.Generator) -> Instruction | None:
        """One drawn of a source (None: of all) whose answer is not this one's; None where there is none.

        With places 0 to 4 and the answer at 1 and 3, the draw 1 is place 2: the second of 0, 2 and 4.
        """
        members, same = self._among[among], self._answering[(among, one.answer)]
        if len(members) == len(same):
            return None
        drawn = int(rng.integers(len(members) - len(same)))
        # The first place before which so many have another answer, and which has one itself.
        place = bisect_left(range(len(members)), drawn + 1, key=lambda place: place + 1 - bisect_right(same, place))
        return self._all[members[place]]


Fault = Callable[[int, Pool, np.random.Generator], Instruction]
"""Makes a faulty instruction of the one at an index."""


def plant_faults(
    instructions: Sequence[Instruction], *, share: float, seed: int, kinds: Sequence[str] | None = None
) -> Planted:
    """Make a share of the instructions faulty, the nearest whole number of them, as equally as may be by kind.

    The order stays, and so do ids. Which ones, and what becomes of them, follows from seed and instructions.

    Args:
        instructions: clean ones, at least two.
        share: of them that becomes faulty, from 0 to below 1.
        seed: of all choices.
        kinds: names in `FAULTS`, all where None.

    Raises:
        LabError: fewer than two instructions, a share out of range, an unknown kind or none, or an instruction whose
            answer every other one has too.
    """
    names = list(FAULTS) if kinds is None else list(kinds)
    makers = [choose(FAULTS, name, "kind of planted fault") for name in names]
    if len(instructions) < 2:
        raise LabError(f"faults are planted among at least two instructions, not {len(instructions)}")
    if not 0 <= share < 1 or not names:
        raise LabError(
            f"the share of planted faults is {share} over {len(names)} kinds; expected 0 to below 1, and one"
        )
    # Of its own, so that a filter that draws with the same seed does not draw the same samples.
    rng = np.random.default_rng([seed, 0xFA017])
    chosen = rng.permutation(len(instructions))[: round(share * len(instructions))]
    made, pool = list(instructions), Pool(instructions)
    faults: list[str | None] = [None] * len(instructions)
    for number, index in enumerate(chosen.tolist()):
        made[index] = makers[number % len(makers)](index, pool, rng)
        faults[index] = names[number % len(names)]
    return Planted(instructions=tuple(made), faults=tuple(faults))


def _repeated_prompt(index: int, instructions: Pool, rng: np.random.Generator) -> Instruction:
    """The answer is the prompt, without one of its words where it has several."""
    words = instructions[index].prompt.split()
    if len(words) > 1:
        del words[int(rng.integers(len(words)))]
    return replace(instructions[index], answer=" ".join(words))


def _swapped(index: int, instructions: Pool, rng: np.random.Generator) -> Instruction:
    one = instructions[index]
    return replace(one, prompt=one.answer, answer=one.prompt)


def _other_answer(index: int, instructions: Pool, rng: np.random.Generator) -> Instruction:
    """The answer of another instruction, of the same source where one has another answer."""
    one = instructions[index]
    for among in (one.source, None):
        if (other := instructions.other(one, among, rng)) is not None:
            return replace(one, answer=other.answer)
    raise LabError(f"instruction {one.id!r} has the answer of all others, {one.answer!r}; none can be put in its place")


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
        LabError: not one judgement an instruction.
    """
    if len(keep) != len(faults):
        raise LabError(f"a filter judged {len(keep)} instructions of {len(faults)}")
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
