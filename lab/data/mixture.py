"""Which sample of which source comes next: sources mixed at a given ratio, as a pure function of seed and step.

So a run that resumes at any step goes on with the batches that it would have had. Sources are named, sizes count their
samples, weights are shares of *samples* (not of tokens: an image is shorter than a video).

The order is drawn in blocks of draws. In every block a source has the difference of two rounded multiples of its share,
so that at a block's end each source has been drawn as often as its share says, less than one draw off however long the
run; inside a block its draws are spread evenly, from a random offset. That is closer than independent draws, whose
counts stray with the square root of the number of steps, and two runs at one ratio then see the same number of samples
of each source.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from lab.errors import LabError

# A block has at least two draws of the rarest source; below this share it would be too long to hold.
MIN_SHARE = Fraction(1, 100_000)


_Block = tuple[Int[ndarray, " draws"], Int[ndarray, " draws"]]


@dataclass(frozen=True)
class Draw:
    """Sample `index` of a source, in its `epoch`-th pass, both from 0."""

    source: str
    epoch: int
    index: int


class Mixture:
    """Batches of draws from several sources; every source passes through shuffled epochs of its own.

    No sample comes twice in an epoch of its source. A source's order depends on the seed and its name alone, so that
    adding a source or changing the weights leaves the order of the others. A weight of 0 leaves a source out.

    Raises:
        LabError: no source, sources without size or weight, a size below 1, a weight that is negative or not finite or
            less than 0.00001 of all, all weights 0, a batch size below 1, or a negative seed.
    """

    def __init__(self, *, sizes: Mapping[str, int], weights: Mapping[str, float], batch_size: int, seed: int) -> None:
        if not sizes or set(sizes) != set(weights):
            raise LabError(
                f"a mixture needs a size and a weight for each source, not sizes of {', '.join(sizes) or 'nothing'} "
                f"and weights of {', '.join(weights) or 'nothing'}"
            )
        if batch_size < 1 or seed < 0:
            raise LabError(f"batch size and seed are {batch_size} and {seed}, expected at least 1 and 0")
        for name, size in sizes.items():
            if size < 1:
                raise LabError(f"source {name!r} has {size} samples, expected at least 1")
            if not math.isfinite(weights[name]) or weights[name] < 0:
                raise LabError(f"source {name!r} has weight {weights[name]}, expected a finite number of at least 0")
        # Fractions, because a rounding error would grow with the steps.
        total = sum((Fraction(weights[name]) for name in sizes), Fraction(0))
        if total == 0:
            raise LabError(f"all weights are 0, expected one above 0 among {', '.join(sizes)}")
        self.shares = {name: Fraction(weights[name]) / total for name in sizes if weights[name] > 0}
        for name, share in self.shares.items():
            if share < MIN_SHARE:
                raise LabError(
                    f"source {name!r} has share {float(share):.2g}, expected at least {float(MIN_SHARE)} or 0"
                )
        self.sizes = dict(sizes)
        self.batch_size = batch_size
        self.seed = seed
        self.block_size = max(batch_size, math.ceil(2 / min(self.shares.values())))
        self._names = list(self.shares)
        # The latest block, and of each source the latest epoch: what the next batch nearly always needs again.
        self._blocks: dict[int, _Block] = {}
        self._orders: dict[str, tuple[int, Int[ndarray, " samples"]]] = {}

    def batch(self, step: int) -> list[Draw]:
        """Return the batch of a step, from 0.

        Raises:
            LabError: a negative step.
        """
        return [self.draw(step * self.batch_size + place) for place in range(self.batch_size)]

    def batches(self, *, first_step: int = 0) -> Iterator[list[Draw]]:
        """Yield batches without end; `first_step` takes up where an interrupted run stopped."""
        while True:
            yield self.batch(first_step)
            first_step += 1

    def draw(self, number: int) -> Draw:
        """Return one draw of the whole run, counted from 0 through all batches.

        Raises:
            LabError: a negative number.
        """
        if number < 0:
            raise LabError(f"draw or step is {number}, expected at least 0")
        block, place = divmod(number, self.block_size)
        sources, numbers = self._block(block)
        name = self._names[sources[place]]
        epoch, place = divmod(int(numbers[place]), self.sizes[name])
        return Draw(name, epoch, int(self._order(name, epoch)[place]))

    def counts(self, steps: int) -> dict[str, int]:
        """Count the samples of each source in the first `steps` batches.

        Raises:
            LabError: a negative number of steps.
        """
        if steps < 0:
            raise LabError(f"draw or step is {steps}, expected at least 0")
        block, place = divmod(steps * self.batch_size, self.block_size)
        inside = Counter(self._block(block)[0][:place].tolist())
        before = self._counts_before(block)
        return {name: before[name] + inside[k] for k, name in enumerate(self._names)}

    def _counts_before(self, block: int) -> dict[str, int]:
        """Count the draws of each source in all blocks before this one: differences of rounded cumulated shares.

        With shares 0.3 and 0.7 and blocks of 7 draws, 0.3 x 7 = 2.1 and 4.2 and 6.3 give 2, 4, 6 and 5, 10, 15.
        """
        counts, cumulated, last = {}, Fraction(0), 0
        for name, share in self.shares.items():
            cumulated += share
            until = math.floor(block * self.block_size * cumulated + Fraction(1, 2))
            counts[name], last = until - last, until
        return counts

    def _block(self, block: int) -> _Block:
        """Return each draw's source, as a place in `shares`, and its number among that source's draws."""
        if block not in self._blocks:
            before, after = self._counts_before(block), self._counts_before(block + 1)
            rng = np.random.default_rng([self.seed, block, *_digest("order of sources")])
            counts = [after[name] - before[name] for name in self.shares]
            ranks = np.concatenate([np.arange(count) for count in counts])
            sources = np.repeat(np.arange(len(counts)), counts)
            moments = (ranks + np.repeat(rng.random(len(counts)), counts)) / np.repeat(counts, counts)
            order = np.argsort(moments, kind="stable")
            numbers = ranks + np.repeat([before[name] for name in self.shares], counts)
            self._blocks = {block: (sources[order], numbers[order])}
        return self._blocks[block]

    def _order(self, name: str, epoch: int) -> Int[ndarray, " samples"]:
        if self._orders.get(name, (None,))[0] != epoch:
            order = np.random.default_rng([self.seed, epoch, *_digest(name)]).permutation(self.sizes[name])
            self._orders[name] = (epoch, order)
        return self._orders[name][1]


def _digest(name: str) -> list[int]:
    return list(hashlib.sha256(name.encode()).digest()[:16])
