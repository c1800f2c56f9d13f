"""The Gaussian that the paper's loss filter fits, and how far losses are from one: moments in one pass, then a test.

Moments of batches are merged (Chan, Golub and LeVeque 1979; to the fourth by Pébay 2008), so that a corpus of any size
is fitted in the memory of one batch. The test is D'Agostino and Pearson's (`scipy.stats.normaltest`): it asks for
skewness and tails, which are the two ways in which losses depart, and its statistic needs no tables for large n. With
600,000 losses any departure has p = 0, so it stands beside sizes that do not grow with n: skewness, excess kurtosis,
and the largest distance between both distribution functions (Kolmogorov and Smirnov's; its p would be wrong here, as
the Gaussian is fitted to the same losses).
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from lab.errors import LabError

# Below so many samples the test's approximation does not hold.
MIN_TESTED = 20


@dataclass(frozen=True)
class Moments:
    """Count, mean, and the sums of the second to fourth powers of the differences from it."""

    count: int = 0
    mean: float = 0.0
    second: float = 0.0
    third: float = 0.0
    fourth: float = 0.0

    @classmethod
    def of(cls, values: Float[ndarray, " samples"]) -> "Moments":
        """The moments of one batch."""
        if not len(values):
            return cls()
        mean = float(values.mean())
        off = values - mean
        squares = off * off
        return cls(len(values), mean, float(squares.sum()), float((squares * off).sum()), float((squares**2).sum()))

    def merged(self, other: "Moments") -> "Moments":
        """The moments of both together."""
        if not self.count or not other.count:
            return self if self.count else other
        a, b = self.count, other.count
        n, delta = a + b, other.mean - self.mean
        return Moments(
            n,
            self.mean + delta * b / n,
            self.second + other.second + delta**2 * a * b / n,
            self.third
            + other.third
            + delta**3 * a * b * (a - b) / n**2
            + 3 * delta * (a * other.second - b * self.second) / n,
            self.fourth
            + other.fourth
            + delta**4 * a * b * (a * a - a * b + b * b) / n**3
            + 6 * delta**2 * (a * a * other.second + b * b * self.second) / n**2
            + 4 * delta * (a * other.third - b * self.third) / n,
        )

    @property
    def std(self) -> float:
        """The standard deviation of the likeliest Gaussian (divided by n)."""
        return math.sqrt(self.second / self.count) if self.count else 0.0

    @property
    def skewness(self) -> float:
        """0 for a Gaussian; above 0 where the upper tail is the longer one."""
        return math.sqrt(self.count) * self.third / self.second**1.5 if self.second else 0.0

    @property
    def excess_kurtosis(self) -> float:
        """0 for a Gaussian; above 0 where the tails are heavier."""
        return self.count * self.fourth / self.second**2 - 3.0 if self.second else 0.0


@dataclass(frozen=True, kw_only=True)
class Normality:
    """How far values are from the Gaussian fitted to them; `p_value` is None below `MIN_TESTED` values."""

    mean: float
    std: float
    skewness: float
    excess_kurtosis: float
    distance: float
    """The largest distance of both distribution functions, 0 to 1; 0.05 is one in twenty samples misplaced."""
    outside: float
    """Share beyond one standard deviation: 0.317 of a Gaussian's."""
    p_value: float | None

    def __str__(self) -> str:
        tested = "" if self.p_value is None else f", p = {self.p_value:.2g}"
        return (
            f"mean {self.mean:.3f}, standard deviation {self.std:.3f}; skewness {self.skewness:+.2f}, excess kurtosis "
            f"{self.excess_kurtosis:+.2f}, {self.outside:.1%} beyond one standard deviation (a Gaussian has 31.7%), "
            f"distribution functions up to {self.distance:.3f} apart{tested}"
        )


def normality(values: Float[ndarray, " samples"]) -> Normality:
    """Hold values against the Gaussian that is fitted to them; they are all in memory, 8 bytes each.

    Raises:
        LabError: fewer than two values, or all equal.
    """
    # A second of import that only this needs.
    from scipy import stats

    moments = Moments.of(values)
    if moments.count < 2 or not moments.std:
        raise LabError(f"a Gaussian is fitted to losses that differ, not to {moments.count} equal ones")
    placed = stats.norm.cdf(np.sort(values), moments.mean, moments.std)
    steps = np.arange(moments.count + 1) / moments.count
    return Normality(
        mean=moments.mean,
        std=moments.std,
        skewness=moments.skewness,
        excess_kurtosis=moments.excess_kurtosis,
        distance=float(max((steps[1:] - placed).max(), (placed - steps[:-1]).max())),
        outside=float((np.abs(values - moments.mean) > moments.std).mean()),
        p_value=float(stats.normaltest(values).pvalue) if moments.count >= MIN_TESTED else None,
    )
