"""Intervals for error rates, rows compared pairwise, and the claim as the interaction that it is.

All functions take the per-utterance results of many cells in one long frame (one corpus and split): the columns of a
cell's results, and `row` (label), `projector`, `downsample_rate` and `seed`. How the interval is built, and the model
behind it, stand in `lab.evaluation.crossed`. What it covers: new seeds and new sentences of the same kind, both at
once; speakers and corpus are taken as they are, and so is everything that all seeds shared (the language model, the
split). It assumes that seed effects are roughly normal, which three seeds cannot show. Simulated
(tests/evaluation/test_coverage.py), a nominal 95% covers 93 to 99% with three seeds; seeds drawn again like the
sentences cover 79% where seeds are what differs.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from jaxtyping import Float
from statsmodels.stats.multitest import multipletests

from lab.errors import LabError
from lab.evaluation.crossed import CrossedErrors, Effect, crossed_errors, effect_of

NUM_RESAMPLES = 10_000
# Beyond this many seeds the answer to "how many would decide it?" is no plan any more.
MOST_SEEDS = 1_000


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate, its interval, and what both rest on. Rates and differences of rates are fractions."""

    estimate: float
    low: float
    high: float
    confidence: float
    num_seeds: int
    num_utterances: int
    num_sentences: int
    num_resamples: int
    rng_seed: int

    @property
    def over_seeds(self) -> bool:
        """False where one seed was run: the interval is over utterances only, and too narrow for any claim on a row."""
        return self.num_seeds > 1


def bootstrap_interval(
    frame: pd.DataFrame,
    row: str,
    *,
    metric: str = "character_error_rate",
    seeds_drawn: Literal["student_t", "resampled"] = "student_t",
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
    rng_seed: int = 0,
) -> Interval:
    """The pooled error rate of `row`, with the percentile interval of a bootstrap over seeds and sentences together.

    Sentences are drawn with replacement, the same for all seeds. Seeds are drawn from Student's t about their mean,
    or, with `seeds_drawn="resampled"`, with replacement as well (Owen's pigeonhole bootstrap, 2007): right with
    twenty seeds, much too narrow with three. An interval may reach below 0 where few seeds differ much.

    Raises:
        LabError: `row` is not in `frame`; or as `crossed_errors`.
    """
    _check_row(frame, row)
    crossed = crossed_errors(frame[frame["row"] == row], metric)
    rng = np.random.default_rng(rng_seed)
    rates, resampled = crossed.rates()[0], crossed.resampled_rates(num_resamples, rng)[:, 0]
    effect = effect_of(rates, resampled, rng.permutation(num_resamples))
    if seeds_drawn == "student_t":
        low, high = effect.interval(confidence)
    else:
        drawn = rng.integers(len(rates), size=resampled.shape)
        draws = np.take_along_axis(resampled, drawn, axis=1).mean(axis=1)
        low, high = (float(x) for x in np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2]))
    return _interval(crossed, effect.estimate, low, high, confidence, num_resamples, rng_seed)


def pairwise_comparisons(
    frame: pd.DataFrame,
    pairs: Sequence[tuple[str, str]] | None = None,
    *,
    metric: str = "character_error_rate",
    pool_seed_variance: bool = False,
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
    rng_seed: int = 0,
) -> pd.DataFrame:
    """Compare rows on the same seeds and utterances; all pairs where `pairs` is None.

    One line a pair: `row_a`, `row_b`, `difference` (a - b, a fraction), `low`, `high` (not corrected for the number
    of pairs), `p_value`, `p_value_holm` (Holm's correction over the pairs given), `num_seeds`, `over_seeds`. The p
    value is that of the same draws as the interval: the smallest level at which the interval leaves 0 out, so both
    account for seeds and utterances. (A paired Wilcoxon or permutation test over utterances would not: it treats the
    seeds that were run as the only ones.)

    Three seeds of one pair leave 2 degrees of freedom, on which little survives Holm's correction: give the few pairs
    that matter, or run more seeds. `pool_seed_variance` takes the variance between seeds over all rows of `frame`
    instead, as the error term of an analysis of variance with seeds as blocks: (rows - 1) x (seeds - 1) degrees. That
    is right only where rows vary alike between seeds. Simulated with nine rows, a nominal 95% covers 84% for a pair
    that varies 1.7 times as much as the other seven rows, and 72% at 3 times, so it is not the default. With one seed
    the p value is over utterances only (`over_seeds` is False).

    Raises:
        LabError: no pair, fewer than two rows, or a pair names a row that is not in `frame`; or as `crossed_errors`.
    """
    if pairs is not None and not len(pairs):
        raise LabError("no pair of rows was given to compare")
    for row in itertools.chain.from_iterable(pairs or ()):
        _check_row(frame, row)
    crossed = crossed_errors(frame, metric)
    if len(crossed.rows) < 2:
        raise LabError(f"a comparison needs at least two rows; there is only {crossed.rows[0]!r}")
    rng = np.random.default_rng(rng_seed)
    resampled, order = crossed.resampled_rates(num_resamples, rng), rng.permutation(num_resamples)
    lines = []
    for row_a, row_b in pairs or itertools.combinations(crossed.rows, 2):
        weights = np.array([(row == row_a) * 1.0 - (row == row_b) * 1.0 for row in crossed.rows])
        effect = _contrast(crossed, resampled, weights, pool_seed_variance, order)
        low, high = effect.interval(confidence)
        lines.append((row_a, row_b, effect.estimate, low, high, effect.p_value()))
    table = pd.DataFrame(lines, columns=["row_a", "row_b", "difference", "low", "high", "p_value"])
    table["p_value_holm"] = multipletests(table["p_value"], method="holm")[1]
    return table.assign(num_seeds=len(crossed.seeds), over_seeds=len(crossed.seeds) > 1)


@dataclass(frozen=True, kw_only=True)
class Interaction:
    """By how much the gap (error of the baseline - error of the candidate) grows from `low_rate` to `high_rate`.

    `interval` is of that growth, `relative_growth` of the ratio (baseline's error at the high rate over its error at
    the low one) / (the same of the candidate): above 1, the candidate's error grows less in proportion too. None
    where a cell made no error at all. `seed_standard_deviation` is one seed's (None with one seed),
    `utterance_standard_error` that which would be left with seeds without end.
    """

    baseline: str
    candidate: str
    low_rate: int
    high_rate: int
    metric: str
    gap_low: float
    gap_high: float
    interval: Interval
    p_value: float
    relative_growth: Interval | None
    seed_standard_deviation: float | None
    utterance_standard_error: float
    effect: Effect = field(repr=False, compare=False)

    def seeds_to_decide(self, smallest_effect: float = 0.0) -> tuple[int | None, str]:
        """How many further seeds would decide it if the effect and both variances stay what they seem, and why.

        Decided means: the interval is above 0, or below `smallest_effect`. More seeds shrink the seeds' part of the
        interval and free more degrees of freedom; the utterances' part stays. None where that part alone leaves it
        open, where more than 1,000 seeds would be needed, or where one seed shows no variance to plan with. A number
        to plan with, no promise: new seeds move the effect as well, so it decides in about half of all cases.
        """

        def decided(num_seeds: float) -> bool:
            low, high = self.effect.interval(self.interval.confidence, num_seeds)
            return low > 0 or high < smallest_effect

        run = self.effect.num_seeds
        if run == 1:
            return None, "one seed does not show how much seeds differ"
        if decided(run):
            return 0, "decided"
        if not decided(np.inf):
            return None, f"{self.interval.num_utterances} utterances leave it open however many seeds are run"
        if not decided(MOST_SEEDS):
            return None, f"more than {MOST_SEEDS} seeds would be needed"
        low, high = run, MOST_SEEDS
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if decided(middle) else (middle, high)
        return high - run, "if the effect and the spread between seeds stay as estimated"


def interaction(
    frame: pd.DataFrame,
    *,
    baseline: str,
    candidate: str,
    low_rate: int,
    high_rate: int,
    metric: str = "character_error_rate",
    pool_seed_variance: bool = False,
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
    rng_seed: int = 0,
) -> Interaction:
    """Test whether the gap between two projectors grows with the downsample rate.

    The effect, in error rate: (baseline[high] - candidate[high]) - (baseline[low] - candidate[low]), taken within each
    seed, so that whatever a seed does to all four cells falls out. With `pool_seed_variance` the variance between
    seeds is pooled over the four cells (3 x (seeds - 1) degrees of freedom rather than seeds - 1), which assumes that
    the four vary alike; without, nothing is assumed of them.

    Raises:
        LabError: `low_rate` is not below `high_rate`; the projectors are the same; one of the four cells is missing,
            or two rows fit it; or as `crossed_errors`.
    """
    if low_rate >= high_rate:
        raise LabError(f"the low downsample rate, {low_rate}, must be below the high one, {high_rate}")
    if baseline == candidate:
        raise LabError(f"baseline and candidate are both {baseline!r}; name two projectors")
    cells = [(p, rate) for rate in (high_rate, low_rate) for p in (baseline, candidate)]
    four = pd.concat([_cell(frame, *cell).assign(row=f"{cell[0]} n={cell[1]}") for cell in cells])
    crossed = crossed_errors(four, metric)
    position = [crossed.rows.index(f"{p} n={rate}") for p, rate in cells]
    signs = np.array([1.0, -1.0, -1.0, 1.0])
    weights = np.zeros(4)
    weights[position] = signs
    rng = np.random.default_rng(rng_seed)
    resampled, order = crossed.resampled_rates(num_resamples, rng), rng.permutation(num_resamples)
    effect = _contrast(crossed, resampled, weights, pool_seed_variance, order)
    rates = crossed.rates()
    baseline_high, candidate_high, baseline_low, candidate_low = rates[position].mean(axis=1)
    growth = None
    if (rates > 0).all():
        # Half an error where a resample has none: the logarithm needs something to hold on to.
        logs = np.log(np.maximum(resampled, 0.5 / crossed.lengths.sum()))
        of_logs = effect_of(weights @ np.log(rates), np.einsum("r,brs->bs", weights, logs), order)
        low, high = (float(np.exp(x)) for x in of_logs.interval(confidence))
        estimate = float(np.exp(of_logs.estimate))
        growth = _interval(crossed, estimate, low, high, confidence, num_resamples, rng_seed)
    return Interaction(
        baseline=baseline,
        candidate=candidate,
        low_rate=low_rate,
        high_rate=high_rate,
        metric=metric,
        gap_low=float(baseline_low - candidate_low),
        gap_high=float(baseline_high - candidate_high),
        interval=_interval(crossed, effect.estimate, *effect.interval(confidence), confidence, num_resamples, rng_seed),
        p_value=effect.p_value(),
        relative_growth=growth,
        seed_standard_deviation=float(np.sqrt(effect.seed_variance)) if effect.num_seeds > 1 else None,
        utterance_standard_error=float(effect.deviations.std(ddof=1)),
        effect=effect,
    )


def _contrast(
    crossed: CrossedErrors,
    resampled: Float[np.ndarray, "resamples rows seeds"],
    weights: Float[np.ndarray, " rows"],
    pool_seed_variance: bool,
    order: npt.NDArray[np.int64],
) -> Effect:
    """The effect sum(weights x rates); `weights` sum to 0."""
    rates = crossed.rates()
    num_rows, num_seeds = rates.shape
    of_seed = np.einsum("r,brs->bs", weights, resampled)
    if not pool_seed_variance or num_seeds == 1:
        return effect_of(weights @ rates, of_seed, order)
    residuals = rates - rates.mean(axis=0) - rates.mean(axis=1, keepdims=True) + rates.mean()
    mean_square = float((residuals**2).sum()) / ((num_rows - 1) * (num_seeds - 1))
    return effect_of(
        weights @ rates,
        of_seed,
        order,
        seed_variance=mean_square * float(weights @ weights),
        degrees_per_seed=num_rows - 1,
    )


def _cell(frame: pd.DataFrame, projector: str, rate: int) -> pd.DataFrame:
    _check_columns(frame, "row", "projector", "downsample_rate")
    cell = frame[(frame["projector"] == projector) & (frame["downsample_rate"] == rate)]
    if cell.empty:
        there = sorted(set(zip(frame["projector"], frame["downsample_rate"], strict=True)))
        named = ", ".join(f"{p} at {r}" for p, r in there)
        raise LabError(f"no results of projector {projector!r} at downsample rate {rate}; there are: {named}")
    if len(labels := sorted(cell["row"].unique())) > 1:
        raise LabError(
            f"projector {projector!r} at downsample rate {rate} is in {len(labels)} rows: "
            f"{', '.join(map(repr, labels))}; keep one of them"
        )
    return cell


def _check_columns(frame: pd.DataFrame, *names: str) -> None:
    if missing := [name for name in names if name not in frame]:
        raise LabError(f"per-utterance results lack the columns {', '.join(missing)}, which say what each cell is")


def _check_row(frame: pd.DataFrame, row: str) -> None:
    _check_columns(frame, "row")
    rows = sorted(frame["row"].unique())
    if row not in rows:
        raise LabError(f"no results of row {row!r}; there are: {', '.join(map(repr, rows))}")


def _interval(
    crossed: CrossedErrors,
    estimate: float,
    low: float,
    high: float,
    confidence: float,
    num_resamples: int,
    rng_seed: int,
) -> Interval:
    return Interval(
        estimate=estimate,
        low=low,
        high=high,
        confidence=confidence,
        num_seeds=len(crossed.seeds),
        num_utterances=crossed.num_utterances,
        num_sentences=len(crossed.lengths),
        num_resamples=num_resamples,
        rng_seed=rng_seed,
    )
