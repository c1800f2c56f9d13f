"""Filters over the losses that a pretrained model has of every sample; `gaussian` is the paper's, section 3.

There a Gaussian is fitted to the losses and what lies outside mean +- one standard deviation is dropped: below, the
answer almost repeats the prompt; above, prompt and answer are swapped or the answer is made up. A filter gives each
sample one value and says between which two values samples stay; `random` drops as many as another filter does, and
without it no filter can be judged.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from lab.data.filters.filtering import Filtered, first_reason
from lab.data.filters.losses import Losses
from lab.errors import LabError, choose

RANDOM = "random"
# The standard deviation of a Gaussian over its median absolute deviation.
MAD_TO_STD = 1.4826
Values = Float[ndarray, " samples"]
Bounds = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class LossFilter:
    """`value` gives what is judged of each sample; `bounds` of values and k the least and the greatest that stays."""

    value: Callable[[Losses], Values]
    bounds: Callable[[Values, float], Bounds]
    high: str = "loss above the bound"
    """Why a sample above is dropped."""
    uses_k: bool = True


def filter_losses(losses: Losses, name: str, *, k: float = 1.0, like: str = "gaussian", seed: int = 0) -> Filtered:
    """Fit to all samples, then filter them; a sample that lies on a bound stays.

    Args:
        losses: of the samples.
        name: in `LOSS_FILTERS`, or `random`.
        k: bounds are so many standard deviations from the mean, at least 0; `ifd` and `none` make nothing of it.
        like: the filter of whose size `random` is, at the same k.
        seed: of `random`.

    Raises:
        LabError: unknown name, k below 0, fewer than two samples, a loss that is not finite or below 0 (its sample is
            named), no loss without the prompt where that is needed, or losses that are all equal.
    """
    if name == RANDOM:
        drawn = np.zeros(len(losses), dtype=bool)
        # Of its own: faults that were planted with the same seed must not be the ones drawn.
        order = np.random.default_rng([seed, 0xD3AE]).permutation(len(losses))
        drawn[order[: filter_losses(losses, like, k=k).num_dropped]] = True
        parameters = {"like": like, "k": k, "seed": seed}
        return Filtered(losses.ids, first_reason({"drawn at random": drawn}), name=name, parameters=parameters)
    low, high = loss_bounds(losses, name, k=k)
    chosen = LOSS_FILTERS[name]
    values = chosen.value(losses)
    reasons = first_reason({"loss below the bound": values < low, chosen.high: values > high})
    return Filtered(losses.ids, reasons, name=name, parameters={"k": k} if chosen.uses_k else {})


def filter_losses_by_group(losses: Losses, groups: Sequence[str], name: str, *, k: float = 1.0) -> Filtered:
    """Filter each group as `filter_losses` filters a corpus: of a corpus of many tasks, a fit to all drops whole tasks.

    Answers of an easy task all lie below the mean of a mixed corpus, those of a hard one above it. Differs from the
    paper, which tells of one Gaussian and not of what it was fitted to.

    Raises:
        LabError: not one group a sample, or what `filter_losses` refuses of a group, which is named.
    """
    if len(groups) != len(losses):
        raise LabError(f"there are {len(groups)} groups for {len(losses)} losses; expected one each")
    left: dict[str, Bool[ndarray, " samples"]] = {}
    for group in dict.fromkeys(groups):
        own = left[f"out of the bounds of {group}"] = np.array(groups) == group
        try:
            own[own] = ~filter_losses(losses.of(np.flatnonzero(own)), name, k=k).keep
        except LabError as error:
            raise LabError(f"group {group!r}: {error}") from error
    parameters = {"k": k, "fitted_by": "group"}
    return Filtered(losses.ids, first_reason(left), name=name, parameters=parameters)


def loss_bounds(losses: Losses, name: str, *, k: float = 1.0) -> Bounds:
    """Between which values of a filter samples stay: minus or plus infinity where a side drops nothing.

    Raises:
        LabError: as `filter_losses`.
    """
    if not 0 <= k < math.inf:
        raise LabError(f"k is {k}; expected at least 0 standard deviations")
    chosen = choose({**LOSS_FILTERS, RANDOM: LOSS_FILTERS["none"]}, name, "loss filter")
    if len(wrong := np.flatnonzero(~(np.isfinite(losses.losses) & (losses.losses >= 0)))):
        raise LabError(
            f"the loss of sample {_id(losses, wrong[0])} is {losses.losses[wrong[0]]}; expected a finite number of at "
            "least 0: score it again, or leave it out"
        )
    if len(losses) < 2:
        raise LabError(f"loss filter {name!r} needs losses of at least two samples, not {len(losses)}")
    return chosen.bounds(chosen.value(losses), k)


def _id(losses: Losses, place: int) -> str:
    return repr(str(losses.ids[int(place)]))


def _loss(losses: Losses) -> Values:
    return losses.losses


def _log_loss(losses: Losses) -> Values:
    if len(none := np.flatnonzero(losses.losses == 0)):
        raise LabError(
            f"the loss of sample {_id(losses, none[0])} is 0 and has no logarithm; choose another loss filter"
        )
    return np.log(losses.losses)


def _ratio(losses: Losses) -> Values:
    alone = np.full(len(losses), np.nan) if losses.without_prompt is None else losses.without_prompt
    if len(none := np.flatnonzero(~(np.isfinite(alone) & (alone > 0)))):
        raise LabError(
            f"loss filter 'ifd' divides by the loss without the prompt, which sample {_id(losses, none[0])} has not; "
            "score with it (`lab score --without-prompt`), or choose another loss filter"
        )
    return losses.losses / alone


def _around_mean(values: Values, k: float) -> Bounds:
    """Mean +- k standard deviations, of the likeliest Gaussian (divided by n)."""
    mean, std = float(values.mean()), float(values.std())
    _check_differ(values)
    return mean - k * std, mean + k * std


def _around_median(values: Values, k: float) -> Bounds:
    """Median +- k times what the median absolute deviation of a Gaussian makes of a standard deviation."""
    _check_differ(values)
    middle = float(np.median(values))
    spread = MAD_TO_STD * float(np.median(np.abs(values - middle)))
    return middle - k * spread, middle + k * spread


def _check_differ(values: Values) -> None:
    # As 4.1 + 4.1 + 4.1 over 3 is not 4.1, equal losses may leave a little of a standard deviation.
    if values.std() <= 1e-12 * max(1.0, abs(values.mean())):
        raise LabError(f"all {len(values):,} losses are equal, so a filter cannot tell them apart")


LOSS_FILTERS: dict[str, LossFilter] = {
    "none": LossFilter(value=_loss, bounds=lambda values, k: (-math.inf, math.inf), uses_k=False),
    "gaussian": LossFilter(value=_loss, bounds=_around_mean),
    "gaussian_low": LossFilter(value=_loss, bounds=lambda values, k: (_around_mean(values, k)[0], math.inf)),
    "gaussian_high": LossFilter(value=_loss, bounds=lambda values, k: (-math.inf, _around_mean(values, k)[1])),
    # Losses are skewed: none is below 0, and there is no upper end.
    "log_gaussian": LossFilter(value=_log_loss, bounds=_around_mean),
    "median_mad": LossFilter(value=_loss, bounds=_around_median),
    # Instruction-following difficulty (Li et al. 2023, arXiv 2308.12032): a prompt that makes its answer less likely.
    # A ratio of 1, a prompt that changes nothing, stays.
    "ifd": LossFilter(
        value=_ratio,
        bounds=lambda values, k: (-math.inf, 1.0),
        high="answer less likely with its prompt",
        uses_k=False,
    ),
}
"""`gaussian_low` drops what lies below alone, `gaussian_high` what lies above."""
