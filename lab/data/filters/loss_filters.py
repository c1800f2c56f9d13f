"""Filters over the losses that a pretrained model has of every sample; `gaussian` is the paper's, section 3.

There a Gaussian is fitted to the losses and what lies outside mean +- one standard deviation is dropped: below, the
answer almost repeats the prompt; above, prompt and answer are swapped or the answer is made up. A filter gives each
sample one value and says between which two values samples stay; `random` drops as many as another filter does, and
without it no filter can be judged.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from lab.data.filters import loss_bounds as bounds
from lab.data.filters.filtering import NUM_EXAMPLES, Filtered, FilterReport
from lab.data.filters.loss_bounds import Values
from lab.data.filters.loss_columns import Batches, LossBatch
from lab.errors import LabError, choose

RANDOM = "random"
Mask = Bool[ndarray, " samples"]


@dataclass(frozen=True, kw_only=True)
class LossFilter:
    """`value` gives what is judged of each sample; `bounds` the least and the greatest value that stays."""

    value: Callable[[LossBatch], Values]
    bounds: Callable[[Iterator[Values], float], tuple[float, float]]
    low: str = "loss below the bound"
    """Why a sample below is dropped, as it stands in the report."""
    high: str = "loss above the bound"
    uses_k: bool = True


def filter_losses(batches: Batches, name: str, *, k: float = 1.0, like: str = "gaussian", seed: int = 0) -> Filtered:
    """Fit in one pass over the samples and filter in a second one; a sample that lies on a bound stays.

    In memory are one batch at a time and the judgement of each sample; `median_mad` holds all values, 8 bytes each, as
    an exact median must.

    Args:
        batches: of `losses_in_files` or `losses_in_memory`.
        name: in `LOSS_FILTERS`, or `random`.
        k: bounds are so many standard deviations from the mean, at least 0; `ifd` and `none` make nothing of it.
        like: the filter of whose size `random` is, at the same k.
        seed: of `random`.

    Raises:
        LabError: unknown name, k below 0, fewer than two samples, a loss that is not finite or below 0 (its sample is
            named), no loss without the prompt where that is needed, or losses that are all equal.
    """
    if name == RANDOM:
        return _random(batches, filter_losses(batches, like, k=k), like=like, k=k, seed=seed)
    low, high = loss_bounds(batches, name, k=k)
    chosen = LOSS_FILTERS[name]

    def judge(batch: LossBatch, begin: int) -> dict[str, Mask]:
        values = chosen.value(batch)
        return {chosen.low: values < low, chosen.high: values > high}

    return _filtered(batches, name, {"k": k} if chosen.uses_k else {}, judge)


def loss_bounds(batches: Batches, name: str, *, k: float = 1.0) -> tuple[float, float]:
    """Between which values of a filter samples stay: minus or plus infinity where a side drops nothing.

    Raises:
        LabError: as `filter_losses`.
    """
    if not 0 <= k < math.inf:
        raise LabError(f"k is {k}; expected at least 0 standard deviations")
    chosen = choose({**LOSS_FILTERS, RANDOM: LOSS_FILTERS["none"]}, name, "loss filter")

    def values() -> Iterator[Values]:
        count = 0
        for batch in batches():
            _check(batch)
            count += len(batch.losses)
            yield chosen.value(batch)
        if count < 2:
            raise LabError(f"loss filter {name!r} needs losses of at least two samples, not {count}")

    return chosen.bounds(values(), k)


def _check(batch: LossBatch) -> None:
    if not len(wrong := np.flatnonzero(~(np.isfinite(batch.losses) & (batch.losses >= 0)))):
        return
    first = int(wrong[0])
    raise LabError(
        f"the loss of sample {batch.id(first)!r} is {batch.losses[first]}; expected a finite number of at least 0: "
        "score it again, or leave it out"
    )


def _random(batches: Batches, other: Filtered, *, like: str, k: float, seed: int) -> Filtered:
    dropped = np.zeros(len(other.keep), dtype=bool)
    # Of its own: faults that were planted with the same seed must not be the ones drawn.
    rng = np.random.default_rng([seed, 0xD3AE])
    dropped[rng.permutation(len(dropped))[: other.report.num_dropped]] = True

    def judge(batch: LossBatch, begin: int) -> dict[str, Mask]:
        return {"drawn at random": dropped[begin : begin + len(batch.losses)]}

    return _filtered(batches, RANDOM, {"like": like, "k": k, "seed": seed}, judge)


def _filtered(
    batches: Batches, name: str, parameters: dict[str, object], judge: Callable[[LossBatch, int], dict[str, Mask]]
) -> Filtered:
    """What `filtering.filtered` makes, from masks: 600,000 samples are too many to go through one by one."""
    keeps: list[Mask] = []
    dropped: dict[str, int] = {}
    examples: dict[str, list[str]] = {"kept": []}
    begin = 0
    for batch in batches():
        masks = judge(batch, begin)
        keeps.append(~np.logical_or.reduce(list(masks.values())))
        # In the order in which reasons are met.
        for reason in sorted((r for r in masks if masks[r].any()), key=lambda r: int(masks[r].argmax())):
            dropped[reason] = dropped.get(reason, 0) + int(masks[reason].sum())
        for reason, mask in {"kept": keeps[-1], **{reason: masks[reason] for reason in dropped}}.items():
            shown = examples.setdefault(reason, [])
            if len(shown) < NUM_EXAMPLES:
                shown += [batch.id(int(i)) for i in np.flatnonzero(mask)[: NUM_EXAMPLES - len(shown)]]
        begin += len(batch.losses)
    report = FilterReport(
        filter=name,
        parameters=parameters,
        num_samples=begin,
        dropped=dropped,
        examples={reason: tuple(ids) for reason, ids in examples.items()},
    )
    return Filtered(keep=np.concatenate(keeps), report=report)


def _loss(batch: LossBatch) -> Values:
    return batch.losses


def _log_loss(batch: LossBatch) -> Values:
    if not batch.losses.all():
        first = int(np.flatnonzero(batch.losses == 0)[0])
        raise LabError(f"the loss of sample {batch.id(first)!r} is 0 and has no logarithm; choose another loss filter")
    return np.log(batch.losses)


def _ratio(batch: LossBatch) -> Values:
    without = batch.losses_without_prompt
    if without is None or not (np.isfinite(without) & (without > 0)).all():
        first = 0 if without is None else int(np.flatnonzero(~(np.isfinite(without) & (without > 0)))[0])
        raise LabError(
            f"loss filter 'ifd' divides by the loss without the prompt, which sample {batch.id(first)!r} has not; "
            "score with it (`lab score --without-prompt`), or choose another loss filter"
        )
    return batch.losses / without


LOSS_FILTERS: dict[str, LossFilter] = {
    "none": LossFilter(value=_loss, bounds=bounds.everything, uses_k=False),
    "gaussian": LossFilter(value=_loss, bounds=bounds.around_mean),
    "gaussian_low": LossFilter(value=_loss, bounds=bounds.below_mean),
    "gaussian_high": LossFilter(value=_loss, bounds=bounds.above_mean),
    # Losses are skewed: none is below 0, and there is no upper end.
    "log_gaussian": LossFilter(value=_log_loss, bounds=bounds.around_mean),
    "median_mad": LossFilter(value=_loss, bounds=bounds.around_median),
    # Instruction-following difficulty (Li et al. 2023, arXiv 2308.12032): a prompt that makes its answer less likely.
    "ifd": LossFilter(
        value=_ratio, bounds=bounds.helped_by_prompt, high="answer less likely with its prompt", uses_k=False
    ),
}
"""`gaussian_low` drops what lies below alone, `gaussian_high` what lies above."""
