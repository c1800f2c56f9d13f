"""How far losses are from the Gaussian that the paper's loss filter fits to them.

The test is D'Agostino and Pearson's (`scipy.stats.normaltest`): it asks for skewness and tails, which are the two ways
in which losses depart, and its statistic needs no tables for large n. With 600,000 losses any departure has p = 0, so
it stands beside sizes that do not grow with n: skewness, excess kurtosis, and the largest distance between both
distribution functions (Kolmogorov and Smirnov's; its p would be wrong here, as the Gaussian is fitted to the same
losses).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from lab.errors import LabError

# Below so many samples the test's approximation does not hold.
MIN_TESTED = 20


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

    if len(values) < 2 or not values.std():
        raise LabError(f"a Gaussian is fitted to losses that differ, not to {len(values)} equal ones")
    mean, std = float(values.mean()), float(values.std())
    return Normality(
        mean=mean,
        std=std,
        skewness=float(stats.skew(values)),
        excess_kurtosis=float(stats.kurtosis(values)),
        distance=float(stats.kstest(values, "norm", args=(mean, std)).statistic),
        outside=float((np.abs(values - mean) > std).mean()),
        p_value=float(stats.normaltest(values).pvalue) if len(values) >= MIN_TESTED else None,
    )
