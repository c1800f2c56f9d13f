"""Which samples go together in a step: the kind of data, batches of similar length, and packs that share a sequence.

Section 3 of the paper (packed fine-tuning; its budget is not found). Everything is a pure function of seed and step, so
that a run that resumes goes on with the batches that it would have had. A pack is a set of samples that stand one after
the other in one sequence; how they are kept apart is `lab.parts.joined_sequences`' matter. `lengths` and `budget` count
tokens of joined sequences (prompt, media, answer).
"""

import bisect
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from lab.errors import LabError

# Samples are shuffled, cut into pools of about this many batches, and sorted by length inside a pool only.
# With 96, batches of 16 of 4,000 log-normal lengths (median 60, sigma 0.5) are 3% padding; with 64 4%, with 16 12%.
_POOL_BATCHES = 96


def mixture(shares: Mapping[str, float], steps: int, *, seed: int) -> list[str]:
    """The kind of every step: of each as many as its share says, exact to rounding, in an order that the seed draws.

    A share is one of steps; where all steps hold about as many tokens it is a share of tokens. What rounding down
    leaves goes to the largest remainders.

    >>> sorted(mixture({"image": 0.75, "video": 0.25}, 5, seed=0))
    ['image', 'image', 'image', 'image', 'video']
    """
    whole = {kind: int(round(share * steps, 9)) for kind, share in shares.items()}
    by_remainder = sorted(shares, key=lambda kind: round(whole[kind] - shares[kind] * steps, 9))
    more = by_remainder[: steps - sum(whole.values())]
    order = [kind for kind in shares for _ in range(whole[kind] + (kind in more))]
    rng = np.random.default_rng([seed, len(order)])
    return [order[i] for i in rng.permutation(len(order))]


def bucketed_epoch(lengths: Sequence[int], *, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Batches of indices for one epoch: the same for the same seed and epoch, each sample once.

    What does not fill a last batch is left out of the epoch (another draw in the next one), unless it is all there is.
    """
    if not lengths or batch_size < 1:
        raise LabError(f"batches need samples and a size of at least 1, not {len(lengths)} and {batch_size}")
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    # Left out before sorting: behind it, the longest samples of a small corpus would be left out of every epoch.
    order = order[: len(order) // batch_size * batch_size or len(order)]
    batches: list[list[int]] = []
    num_batches = -(-len(order) // batch_size)
    # Pools of nearly the same size: a last one of few batches would be mostly padding.
    for pool in np.array_split(np.arange(num_batches), max(1, round(num_batches / _POOL_BATCHES))):
        first, last = int(pool[0]) * batch_size, (int(pool[-1]) + 1) * batch_size
        by_length = sorted(order[first:last].tolist(), key=lambda i: lengths[i])
        batches += [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def padding_share(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """Share of the positions computed that are padding, when each batch is padded to its longest."""
    computed = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    real = sum(lengths[i] for batch in batches for i in batch)
    return 1 - real / computed


@dataclass(frozen=True, kw_only=True)
class PackingStatistics:
    """The account of a packing, in which every sample and every token is."""

    num_samples: int
    num_packs: int
    num_tokens: int
    waste: float
    """Share of all packs' places that hold no token, 0 to 1."""

    def __str__(self) -> str:
        return (
            f"{self.num_samples:,} samples ({self.num_tokens:,} tokens) in {self.num_packs:,} packs: "
            f"{self.num_samples / self.num_packs:.1f} a pack, {self.waste:.1%} waste"
        )


@dataclass(frozen=True, kw_only=True)
class Packs:
    """Packs of samples; `samples[starts[p]:starts[p + 1]]` are the indices of pack p's, longest first."""

    budget: int
    lengths: Int[ndarray, " samples"]
    samples: Int[ndarray, " samples"]
    starts: Int[ndarray, " packs_and_one"]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, pack: int) -> Int[ndarray, " in_pack"]:
        """Indices of one pack's samples; no such pack is an `IndexError`, which also ends a loop over all of them."""
        if not 0 <= pack < len(self):
            raise IndexError(f"pack {pack} of {len(self)}")
        return self.samples[self.starts[pack] : self.starts[pack + 1]]

    @property
    def extremes(self) -> list[Int[ndarray, " in_pack"]]:
        """A pack with the longest sample and, where it is another one, a pack with the most samples."""
        # The longest sample is packed first.
        return [self[pack] for pack in sorted({0, int(np.diff(self.starts).argmax())})]

    def statistics(self) -> PackingStatistics:
        """How full the packs are."""
        tokens = int(self.lengths.sum())
        waste = 1 - tokens / (len(self) * self.budget)
        return PackingStatistics(num_samples=len(self.samples), num_packs=len(self), num_tokens=tokens, waste=waste)


def pack_best_fit(
    lengths: Sequence[int] | Int[ndarray, " samples"], budget: int, *, ids: Sequence[str] | None = None
) -> Packs:
    """Join samples to packs of at most `budget` tokens: the longest first, each where it leaves the least space.

    With a budget of 10, lengths 7, 6, 4, 3 and 2 become (7 3) and (6 4) and (2). Among samples of equal length, and
    among packs of equal space, it is the order given that decides. 1,000,000 lengths take about a second. `ids` are the
    samples' names, for messages; numbers where None.

    Raises:
        LabError: no samples, a length or budget below 1, or a sample longer than the budget; nothing is ever cut short.
    """
    given = np.asarray(lengths)
    if not len(given) or budget < 1:
        raise LabError(f"packing needs samples and a budget of at least 1 token, not {len(given)} and {budget}")
    at = int(given.argmin() if given.min() < 1 else given.argmax())
    if not 1 <= given[at] <= budget:
        expected = "expected at least 1" if given[at] < 1 else f"more than the budget of {budget}"
        raise LabError(f"sample {at if ids is None else repr(ids[at])} has {given[at]} tokens, {expected}")
    order = np.argsort(-given, kind="stable")
    pack_of, num_packs = _best_fit(given[order], budget)
    # Stable: inside a pack, where the order is free, the longest stay first.
    by_pack = np.argsort(pack_of, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(pack_of, minlength=num_packs))])
    return Packs(budget=budget, lengths=given, samples=order[by_pack], starts=starts)


def _best_fit(lengths: Int[ndarray, " sorted"], budget: int) -> tuple[Int[ndarray, " sorted"], int]:
    """The pack of each sample, longest first, and the number of packs; a sample goes to the fullest that has room."""
    pack_of: list[int] = []
    num_packs = 0
    spaces: list[int] = []  # rising; those in which there is a pack
    packs: dict[int, deque[int]] = {}  # by space, oldest first
    for length in lengths.tolist():
        fitting = bisect.bisect_left(spaces, length)
        if fitting < len(spaces):
            space = spaces[fitting]
            pack = packs[space].popleft()
            if not packs[space]:
                del packs[space], spaces[fitting]
        else:
            space, pack, num_packs = budget, num_packs, num_packs + 1
        pack_of.append(pack)
        if left := space - length:
            if left not in packs:
                bisect.insort(spaces, left)
                packs[left] = deque()
            packs[left].append(pack)
    return np.array(pack_of), num_packs


class PackedEpochs:
    """The pack of every step, epoch after epoch.

    Every epoch packs anew, with another choice among samples of equal length, and shuffles the packs. All epochs have
    equally many packs, because how full they get depends on the lengths alone. `extremes` are those of the first epoch.
    """

    def __init__(self, *, lengths: Sequence[int], budget: int, seed: int, ids: Sequence[str] | None = None) -> None:
        first = pack_best_fit(lengths, budget, ids=ids)
        self.statistics = first.statistics()
        self.extremes = first.extremes
        self.seed = seed
        self._lengths, self._budget = first.lengths, budget
        # The latest epoch: what the next step nearly always needs again.
        self._epoch: tuple[int, Packs, Int[ndarray, " samples"], Int[ndarray, " packs"]] | None = None

    def pack(self, step: int) -> Int[ndarray, " in_pack"]:
        """Indices of the samples of a step's pack, in the order in which they stand in it; steps count from 0."""
        epoch, place = divmod(step, self.statistics.num_packs)
        if self._epoch is None or self._epoch[0] != epoch:
            rng = np.random.default_rng([self.seed, epoch])
            shuffled = rng.permutation(len(self._lengths))
            packs = pack_best_fit(self._lengths[shuffled], self._budget)
            self._epoch = (epoch, packs, shuffled, rng.permutation(len(packs)))
        _, packs, shuffled, order = self._epoch
        return shuffled[packs[int(order[place])]]
