"""Which samples share a sequence: joined to a token budget by best-fit decreasing, the order of an epoch, the account.

Section 3 of the paper (packed fine-tuning; its budget is not found). A pack is a set of samples that stand one behind
the other in one sequence; how they are kept apart is `lab.parts.joined_sequences`' matter. `budget` and `lengths` count
tokens of joined sequences, of whatever modality.
"""

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from lab.errors import LabError

TooLong = Literal["refuse", "drop"]
TOO_LONG: dict[TooLong, str] = {
    "refuse": "a sample longer than the budget is an error that names it",
    "drop": "it is left out whole, and counted; nothing is ever cut short",
}


@dataclass(frozen=True, kw_only=True)
class PackingStatistics:
    """The account of a packing: every sample is in a pack or in `num_dropped`, every token too."""

    num_samples: int
    num_packs: int
    num_tokens: int
    num_dropped: int
    dropped_tokens: int
    fill: float
    """Share of all packs' places that hold a token, 0 to 1."""
    samples_per_pack: float

    @property
    def waste(self) -> float:
        """Share of places that hold none."""
        return 1 - self.fill

    def __str__(self) -> str:
        return (
            f"{self.num_samples:,} samples ({self.num_tokens:,} tokens) in {self.num_packs:,} packs: "
            f"{self.samples_per_pack:.1f} a pack, {self.waste:.1%} waste; "
            f"{self.num_dropped:,} samples ({self.dropped_tokens:,} tokens) dropped as too long"
        )


@dataclass(frozen=True, kw_only=True)
class Packs:
    """Packs of samples; `samples[starts[p]:starts[p + 1]]` are the indices of pack p's, longest first."""

    budget: int
    lengths: Int[ndarray, " samples"]
    samples: Int[ndarray, " packed"]
    starts: Int[ndarray, " packs_and_one"]
    dropped: Int[ndarray, " dropped"]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, pack: int) -> Int[ndarray, " in_pack"]:
        """Indices of one pack's samples.

        Raises:
            IndexError: no such pack, which also ends a loop over all of them.
        """
        if not 0 <= pack < len(self):
            raise IndexError(f"pack {pack} of {len(self)}")
        return self.samples[self.starts[pack] : self.starts[pack + 1]]

    def statistics(self) -> PackingStatistics:
        """How full the packs are, and what is not in them."""
        tokens = int(self.lengths[self.samples].sum())
        places = len(self) * self.budget
        return PackingStatistics(
            num_samples=len(self.samples),
            num_packs=len(self),
            num_tokens=tokens,
            num_dropped=len(self.dropped),
            dropped_tokens=int(self.lengths[self.dropped].sum()),
            fill=tokens / places if places else 1.0,
            samples_per_pack=len(self.samples) / len(self) if len(self) else 0.0,
        )


def pack_best_fit(
    lengths: Sequence[int] | Int[ndarray, " samples"],
    budget: int,
    *,
    too_long: TooLong = "refuse",
    ids: Sequence[str] | None = None,
) -> Packs:
    """Join samples to packs of at most `budget` tokens: the longest first, each where it leaves the least space.

    With a budget of 10, lengths 7, 6, 4, 3 and 2 become (7 3) and (6 4) and (2). Among samples of equal length, and
    among packs of equal space, it is the order given that decides. Time grows with n log n for the sorting alone; the
    packing itself is over distinct lengths and distinct spaces, and 1,000,000 lengths take about a second.

    Args:
        lengths: tokens of each sample, at least 1.
        budget: tokens of a pack.
        too_long: what happens to a sample longer than the budget, of `TOO_LONG`.
        ids: the samples' names, for messages; numbers where None.

    Raises:
        LabError: no samples, a length or budget below 1, a sample longer than the budget (where that is refused), or
            an unknown `too_long`.
    """
    given = np.asarray(lengths)
    _check(given, budget, too_long, ids)
    fits = given <= budget
    order = np.flatnonzero(fits)
    order = order[np.argsort(-given[order], kind="stable")]
    pack_of, num_packs = _best_fit(given[order], budget)
    # Stable: inside a pack, where the order is free, the longest stay first.
    by_pack = np.argsort(pack_of, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(pack_of, minlength=num_packs))])
    return Packs(
        budget=budget,
        lengths=given,
        samples=order[by_pack],
        starts=starts,
        dropped=np.flatnonzero(~fits),
    )


def _check(lengths: ndarray, budget: int, too_long: str, ids: Sequence[str] | None) -> None:
    def named(index: int) -> str:
        return f"sample {ids[index]!r}" if ids is not None else f"sample {index}"

    if too_long not in TOO_LONG:
        raise LabError(f"unknown too_long {too_long!r}; choose one of: {', '.join(TOO_LONG)}")
    if not len(lengths) or budget < 1:
        raise LabError(f"packing needs samples and a budget of at least 1 token, not {len(lengths)} and {budget}")
    if not np.issubdtype(lengths.dtype, np.integer) or lengths.ndim != 1:
        raise LabError(f"packing needs one whole number of tokens a sample, not {lengths.dtype} of {lengths.ndim} axes")
    if lengths.min() < 1:
        at = int(lengths.argmin())
        raise LabError(f"{named(at)} has {lengths[at]} tokens, expected at least 1")
    if too_long == "refuse" and lengths.max() > budget:
        at = int(lengths.argmax())
        raise LabError(
            f"{named(at)} has {lengths[at]} tokens, more than the budget of {budget}, as have "
            f"{int((lengths > budget).sum()) - 1} others; raise the budget, or leave them out, counted, with "
            "too_long='drop'"
        )


def _best_fit(lengths: Int[ndarray, " sorted"], budget: int) -> tuple[Int[ndarray, " sorted"], int]:
    """The pack of each sample, longest first, and the number of packs.

    Best fit takes the fullest pack that has room. Of samples of one length it therefore fills that pack until it has
    none, so all packs of equal space take equally many: one step for all of them.
    """
    pack_of = np.empty(len(lengths), dtype=np.int64)
    num_packs = 0
    spaces: list[int] = []  # rising; those in which there is a pack
    packs: dict[int, list[ndarray]] = {}  # by space, oldest first

    def keep(space: int, which: ndarray) -> None:
        if space and len(which):
            if space not in packs:
                bisect.insort(spaces, space)
            packs.setdefault(space, []).append(which)

    changes = np.flatnonzero(np.diff(lengths)) + 1
    for begin, end in zip([0, *changes], [*changes, len(lengths)], strict=True) if len(lengths) else ():
        length, at = int(lengths[begin]), int(begin)
        while at < end:
            fitting = bisect.bisect_left(spaces, length)
            if fitting < len(spaces):
                space = spaces.pop(fitting)
                which = np.concatenate(packs.pop(space))
            else:
                space = budget
                which = np.arange(num_packs, num_packs - (at - end) // (budget // length) + 1)
                which = which[: -(-(end - at) // (budget // length))]
                num_packs += len(which)
            each = space // length
            full, rest = min(divmod(int(end) - at, each), (len(which), 0))
            taken = np.repeat(which[: full + 1], each)[: full * each + rest]
            pack_of[at : at + len(taken)] = taken
            at += len(taken)
            keep(space - each * length, which[:full])
            if rest:
                keep(space - rest * length, which[full : full + 1])
            keep(space, which[full + bool(rest) :])
    return pack_of, num_packs


class PackedEpochs:
    """The pack of every step, epoch after epoch: a pure function of seed and step, so a run resumes at any step.

    Every epoch packs anew, with another choice among samples of equal length, and shuffles the packs. All epochs have
    equally many packs, because how full they get depends on the lengths alone.

    Raises:
        LabError: as `pack_best_fit`; nothing fits the budget; or a negative seed.
    """

    def __init__(
        self,
        *,
        lengths: Sequence[int] | Int[ndarray, " samples"],
        budget: int,
        seed: int,
        too_long: TooLong = "refuse",
        ids: Sequence[str] | None = None,
    ) -> None:
        if seed < 0:
            raise LabError(f"seed is {seed}, expected at least 0")
        first = pack_best_fit(lengths, budget, too_long=too_long, ids=ids)
        if not len(first):
            raise LabError(f"all {len(first.dropped)} samples are longer than the budget of {budget} tokens")
        self.statistics = first.statistics()
        self.packs_per_epoch = len(first)
        self.seed = seed
        self._lengths, self._budget, self._too_long = first.lengths, budget, too_long
        # The latest epoch: what the next step nearly always needs again.
        self._epoch: tuple[int, Packs, Int[ndarray, " packs"]] | None = None

    def pack(self, step: int) -> Int[ndarray, " in_pack"]:
        """Indices of the samples of a step's pack, in the order in which they stand in it; steps count from 0.

        Raises:
            LabError: a negative step.
        """
        if step < 0:
            raise LabError(f"step is {step}, expected at least 0")
        epoch, place = divmod(step, self.packs_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            rng = np.random.default_rng([self.seed, epoch])
            shuffled = rng.permutation(len(self._lengths))
            packs = pack_best_fit(self._lengths[shuffled], self._budget, too_long=self._too_long)
            own = Packs(
                budget=packs.budget,
                lengths=self._lengths,
                samples=shuffled[packs.samples],
                starts=packs.starts,
                dropped=shuffled[packs.dropped],
            )
            self._epoch = (epoch, own, rng.permutation(len(own)))
        _, packs, order = self._epoch
        return packs[int(order[place])]

    def shortest_of(self, step: int) -> Int[ndarray, " in_pack"]:
        """The samples of a step's pack by rising length: what a quick look at it begins with."""
        return self.pack(step)[::-1]

    def packs(self, *, first_step: int = 0) -> Iterator[Int[ndarray, " in_pack"]]:
        """Yield packs without end; `first_step` takes up where an interrupted run stopped."""
        while True:
            yield self.pack(first_step)
            first_step += 1
