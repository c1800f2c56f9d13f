"""Between which values samples stay: bounds fitted to a stream of batches, for `lab.data.filters.loss_filters`.

Each takes the values, one batch after the other, and k, and gives the least and the greatest value that stays.
"""

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from lab.data.filters.loss_fit import Moments
from lab.errors import LabError

# The standard deviation of a Gaussian over its median absolute deviation.
MAD_TO_STD = 1.4826
Values = Float[ndarray, " samples"]


def _fitted(values: Iterator[Values]) -> Moments:
    moments = Moments()
    for batch in values:
        moments = moments.merged(Moments.of(batch))
    _check_differ(moments)
    return moments


def _check_differ(moments: Moments) -> None:
    # As 4.1 + 4.1 + 4.1 over 3 is not 4.1, equal losses may leave a little of a standard deviation.
    if moments.std <= 1e-12 * max(1.0, abs(moments.mean)):
        raise LabError(f"all {moments.count:,} losses are equal, so a filter cannot tell them apart")


def around_mean(values: Iterator[Values], k: float) -> tuple[float, float]:
    """Mean +- k standard deviations, of the likeliest Gaussian (divided by n)."""
    fitted = _fitted(values)
    return fitted.mean - k * fitted.std, fitted.mean + k * fitted.std


def below_mean(values: Iterator[Values], k: float) -> tuple[float, float]:
    """The lower of those bounds alone."""
    return around_mean(values, k)[0], math.inf


def above_mean(values: Iterator[Values], k: float) -> tuple[float, float]:
    """The upper one alone."""
    return -math.inf, around_mean(values, k)[1]


def around_median(values: Iterator[Values], k: float) -> tuple[float, float]:
    """Median +- k times what the median absolute deviation of a Gaussian makes of a standard deviation.

    All values are held, 8 bytes each, as an exact median must.
    """
    every = np.concatenate(list(values))
    _check_differ(Moments.of(every))
    middle = float(np.median(every))
    spread = MAD_TO_STD * float(np.median(np.abs(every - middle)))
    return middle - k * spread, middle + k * spread


def helped_by_prompt(values: Iterator[Values], k: float) -> tuple[float, float]:
    """Up to a ratio of 1, which itself stays: a prompt that changes nothing."""
    for _ in values:  # what is not finite is refused on the way
        pass
    return -math.inf, 1.0


def everything(values: Iterator[Values], k: float) -> tuple[float, float]:
    """No bound at all."""
    for _ in values:
        pass
    return -math.inf, math.inf
