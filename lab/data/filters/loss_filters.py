"""Filters over the losses that a pretrained model has of every sample; `gaussian` is the paper's, section 3.

There a Gaussian is fitted to the losses and what lies outside mean +- one standard deviation is dropped: below, the
answer almost repeats the prompt; above, prompt and answer are swapped or the answer is made up. A filter gives each
sample one value and says between which two values samples stay; `random` drops as many as another filter does, and
without it no filter can be judged. The losses are those that `lab score` wrote, or any in memory.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from pydantic import Field

from lab.data.fetch import sha256_of
from lab.data.filters.filtering import Filtered, Reasons, first_reason
from lab.data.filters.step import Step, one_of
from lab.data.parquet import read_parquet, read_schema
from lab.errors import LabError, choose

# The sample's id, the mean loss of a token of its answer (nats, end included) given the prompt, the same without the
# prompt (null where it was not measured), and the answer's and prompt's tokens.
LOSS_COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("loss", pa.float64()),
        ("loss_without_prompt", pa.float64()),
        ("num_tokens", pa.int32()),
        ("prompt_tokens", pa.int32()),
    ]
)
SUMMARY = "summary.json"
RANDOM = "random"
# The standard deviation of a Gaussian over its median absolute deviation.
MAD_TO_STD = 1.4826
# Below so many losses the test for a Gaussian does not hold.
_MIN_TESTED = 20
Values = Float[ndarray, " samples"]
Bounds = tuple[float, float]


@dataclass(frozen=True)
class Losses:
    """The losses of samples, in their order; the ids may be Arrow's and are read only where one is named.

    Raises:
        LabError: not one loss an id.
    """

    ids: Sequence[Any]
    losses: Float[ndarray, " samples"]
    without_prompt: Float[ndarray, " samples"] | None = None
    """Of the answers alone; NaN where it was not measured."""

    def __post_init__(self) -> None:
        if {len(self.losses), len(self.losses if self.without_prompt is None else self.without_prompt)} != {len(self)}:
            raise LabError(f"there are {len(self.losses)} losses for {len(self)} samples; expected one each")

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, places: Int[ndarray, " some"]) -> "Losses":
        """Those of some samples."""
        alone = None if self.without_prompt is None else self.without_prompt[places]
        return Losses([self.ids[int(i)] for i in places], self.losses[places], alone)


def loss_files(path: Path) -> list[Path]:
    """The Parquet files of a scoring, one file or the folder that `lab score` wrote.

    Raises:
        LabError: nothing there, a folder whose scoring was not finished, or a file that is no whole Parquet file or
            has other columns.
    """
    if path.is_dir() and not (path / SUMMARY).is_file():
        raise LabError(f"the scoring in {path} is not finished (no {SUMMARY}); run the same `lab score` again")
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise LabError(f"{path} holds no losses; expected a Parquet file, or a folder that `lab score` wrote")
    for file in files:
        schema = read_schema(file)
        for column in LOSS_COLUMNS:
            found = schema.field(column.name).type if column.name in schema.names else "missing"
            if found != column.type:
                raise LabError(
                    f"column {column.name!r} of {file} is {found}, expected {column.type}; all files of a scoring "
                    f"have the columns {', '.join(LOSS_COLUMNS.names)}"
                )
    return files


def read_losses(path: Path) -> Losses:
    """The losses of a scoring: 16 bytes a sample, and its id.

    Raises:
        LabError: as `loss_files`, or a damaged file.
    """
    table = read_parquet(loss_files(path), ["id", "loss", "loss_without_prompt"])
    # A null becomes a NaN, which is named as such where it is looked at.
    return Losses(table["id"], table["loss"].to_numpy(), table["loss_without_prompt"].to_numpy())


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

    `name` is in `LOSS_FILTERS`, or `random`, drawn by `seed` and as large as the filter `like` at the same k. Bounds
    are k standard deviations from the mean; `ifd` and `none` make nothing of it.

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


@dataclass(frozen=True, kw_only=True)
class LossFilterStep(Step):
    """Keep rows whose loss lies between the bounds of `filter`, fitted to the losses of all rows that are there.

    `scores` is what `lab score` wrote over these rows or more; the others are those of `filter_losses`.
    """

    scores: Path
    filter: Annotated[str, one_of({**LOSS_FILTERS, RANDOM: None}, "loss filter")] = "gaussian"
    k: Annotated[float, Field(ge=0)] = 1.0
    like: Annotated[str, one_of(LOSS_FILTERS, "loss filter")] = "gaussian"
    seed: Annotated[int, Field(ge=0)] = 0
    use: ClassVar[str] = "loss_filter"
    whole_corpus: ClassVar[bool] = True

    def parameters(self) -> dict[str, Any]:
        """As declared; of the scores the name, since `identity` has their content."""
        return {**super().parameters(), "scores": self.scores.name}

    def identity(self) -> str:
        """The hash of the scores.

        Raises:
            LabError: they are not there, not finished or damaged.
        """
        return " ".join(sha256_of(file) for file in loss_files(self.scores))

    def sketch(self, rows: pa.Table) -> pa.Table:
        """The ids, by which the losses are found."""
        return rows.select(["id"])

    def judge(self, known: pa.Table) -> Reasons:
        """The filter's own bounds, over the rows that came this far.

        Raises:
            LabError: a row that was not scored, or as `filter_losses`.
        """
        scores, ids = read_losses(self.scores), known["id"]
        places = pc.index_in(ids, value_set=scores.ids)
        if places.null_count:
            first = pc.index(pc.is_null(places), True).as_py()
            raise LabError(
                f"sample {str(ids[first])!r} has no loss in {self.scores}, as have {places.null_count - 1} others; "
                "run `lab score` over the same samples"
            )
        at = places.to_numpy()
        alone = None if scores.without_prompt is None else scores.without_prompt[at]
        losses = Losses(ids, scores.losses[at], alone)
        return filter_losses(losses, self.filter, k=self.k, like=self.like, seed=self.seed).reasons


@dataclass(frozen=True, kw_only=True)
class Normality:
    """How far values are from the Gaussian fitted to them; below 20 values `p_value` is None."""

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
    """Hold values against the Gaussian that is fitted to them.

    The test is D'Agostino and Pearson's: it asks for skewness and tails, which are the two ways in which losses depart,
    and needs no tables for large n. With 600,000 losses any departure has p = 0, so it stands beside sizes that do not
    grow with n. (Kolmogorov and Smirnov's p would be wrong here, as the Gaussian is fitted to the same losses.)

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
        p_value=float(stats.normaltest(values).pvalue) if len(values) >= _MIN_TESTED else None,
    )
