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
Values = Float[ndarray, " samples"]
Bounds = tuple[float, float]


@dataclass(frozen=True)
class Losses:
    """The losses of samples, in their order; the ids may be Arrow's and are read only where one is named.

    `without_prompt` are those of the answers alone, NaN where it was not measured.

    Raises:
        LabError: not one loss an id.
    """

    ids: Sequence[Any]
    losses: Float[ndarray, " samples"]
    without_prompt: Float[ndarray, " samples"] | None = None

    def __post_init__(self) -> None:
        if len(self.losses) != len(self.ids):
            raise LabError(f"there are {len(self.losses)} losses for {len(self.ids)} samples; expected one each")

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, places: Int[ndarray, " some"]) -> "Losses":
        """Those of some samples."""
        alone = None if self.without_prompt is None else self.without_prompt[places]
        return Losses([self.ids[int(i)] for i in places], self.losses[places], alone)


def loss_files(path: Path) -> list[Path]:
    """The Parquet files of a scoring, one file or the folder that `lab score` wrote.

    Raises:
        LabError: nothing there, an unfinished scoring, or a file that is damaged or has other columns.
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
    """The losses of a scoring: 16 bytes a sample, and its id."""
    table = read_parquet(loss_files(path), ["id", "loss", "loss_without_prompt"])
    # A null becomes a NaN, which is named as such where it is looked at.
    return Losses(table["id"], table["loss"].to_numpy(), table["loss_without_prompt"].to_numpy())


@dataclass(frozen=True, kw_only=True)
class LossFilter:
    """`value` gives what is judged of each sample; `bounds` of values and k the least and the greatest that stays.

    `high` is why a sample above is dropped.
    """

    value: Callable[[Losses], Values]
    bounds: Callable[[Values, float], Bounds]
    high: str = "loss above the bound"
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
    """Between which values of a filter samples stay: minus or plus infinity where a side drops nothing."""
    if not 0 <= k < math.inf:
        raise LabError(f"k is {k}; expected at least 0 standard deviations")
    chosen = choose({**LOSS_FILTERS, RANDOM: LOSS_FILTERS["none"]}, name, "loss filter")
    wrong = ~(np.isfinite(losses.losses) & (losses.losses >= 0))
    _refuse(losses, wrong, "; expected a finite number of at least 0: score it again, or leave it out")
    if len(losses) < 2:
        raise LabError(f"loss filter {name!r} needs losses of at least two samples, not {len(losses)}")
    return chosen.bounds(chosen.value(losses), k)


def _refuse(losses: Losses, wrong: Bool[ndarray, " samples"], why: str) -> None:
    """Raise a LabError that names the first sample of which something is wrong, if there is one."""
    if wrong.any():
        at = int(wrong.argmax())
        raise LabError(f"the loss of sample {str(losses.ids[at])!r} is {losses.losses[at]}{why}")


def _loss(losses: Losses) -> Values:
    return losses.losses


def _log_loss(losses: Losses) -> Values:
    _refuse(losses, losses.losses == 0, " and has no logarithm; choose another loss filter")
    return np.log(losses.losses)


def _ratio(losses: Losses) -> Values:
    alone = np.full(len(losses), np.nan) if losses.without_prompt is None else losses.without_prompt
    why = ", and there is none without the prompt, by which 'ifd' divides; score with `lab score --without-prompt`"
    _refuse(losses, ~(np.isfinite(alone) & (alone > 0)), why)
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
        """The hash of the scores."""
        return " ".join(sha256_of(file) for file in loss_files(self.scores))

    def sketch(self, rows: pa.Table) -> pa.Table:
        """The ids, by which the losses are found."""
        return rows.select(["id"])

    def judge(self, known: pa.Table) -> Reasons:
        """The filter's own bounds, over the rows that came this far; each has to have been scored."""
        scores, ids = read_losses(self.scores), known["id"]
        places = pc.index_in(ids, value_set=scores.ids)
        if places.null_count:
            first = pc.index(pc.is_null(places), True).as_py()
            raise LabError(
                f"sample {str(ids[first])!r} has no loss in {self.scores}, as have {places.null_count - 1} others; "
                "run `lab score` over the same samples"
            )
        at = places.to_numpy()
        assert scores.without_prompt is not None  # those of a file always are there, if only as NaN
        losses = Losses(ids, scores.losses[at], scores.without_prompt[at])
        return filter_losses(losses, self.filter, k=self.k, like=self.like, seed=self.seed).reasons


def normality(values: Float[ndarray, " samples"]) -> str:
    """How far values are from the Gaussian that is fitted to them, in words.

    The test is D'Agostino and Pearson's: it asks for skewness and tails, which are the two ways in which losses depart.
    With 600,000 losses any departure has p = 0, so sizes stand beside it that do not grow with n, among them the
    largest distance of both distribution functions (0.05: one in twenty samples misplaced).

    Raises:
        LabError: fewer than two values, or all equal.
    """
    # A second of import that only this needs.
    from scipy import stats

    if len(values) < 2 or not values.std():
        raise LabError(f"a Gaussian is fitted to losses that differ, not to {len(values)} equal ones")
    distance = stats.kstest(values, "norm", args=(values.mean(), values.std())).statistic
    told = f"skewness {stats.skew(values):+.2f}, excess kurtosis {stats.kurtosis(values):+.2f}, "
    told += f"{distance:.2f} from the Gaussian"
    # Below so many losses the test does not hold.
    return told if len(values) < 20 else f"{told}, normality test p = {stats.normaltest(values).pvalue:.1g}"
