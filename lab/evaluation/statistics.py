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
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from jaxtyping import Float
from statsmodels.stats.multitest import multipletests

from lab.errors import LabError
from lab.evaluation.crossed import CrossedErrors, Effect, crossed_errors, effect_of

NUM_RESAMPLES = 10_000


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Resampled:
    """A crossed design and its rates on resampled sentences, the same draws for whatever is asked of them."""

    crossed: CrossedErrors
    rates: Float[np.ndarray, "resamples rows seeds"]
    order: npt.NDArray[np.int64]
    rng_seed: int

    def contrast(self, weights: Float[np.ndarray, " rows"], *, pool_seed_variance: bool = False) -> Effect:
        """The effect sum(weights x rates); `weights` sum to 0."""
        rates = self.crossed.rates()
        num_rows, num_seeds = rates.shape
        of_seed = np.einsum("r,brs->bs", weights, self.rates)
        if not pool_seed_variance or num_seeds == 1:
            return effect_of(weights @ rates, of_seed, self.order)
        residuals = rates - rates.mean(axis=0) - rates.mean(axis=1, keepdims=True) + rates.mean()
        mean_square = float((residuals**2).sum()) / ((num_rows - 1) * (num_seeds - 1))
        return effect_of(
            weights @ rates,
            of_seed,
            self.order,
            seed_variance=mean_square * float(weights @ weights),
            degrees_per_seed=num_rows - 1,
        )

    def interval(self, effect: Effect, confidence: float) -> Interval:
        """An effect's interval, with what it rests on."""
        low, high = effect.interval(confidence)
        return Interval(
            estimate=effect.estimate,
            low=low,
            high=high,
            confidence=confidence,
            num_seeds=len(self.crossed.seeds),
            num_utterances=self.crossed.num_utterances,
            num_sentences=len(self.crossed.lengths),
            num_resamples=len(self.rates),
            rng_seed=self.rng_seed,
        )


def resampled(frame: pd.DataFrame, metric: str, num_resamples: int, rng_seed: int) -> Resampled:
    """Lay out results as a crossed design and draw its sentences.

    Raises:
        LabError: as `crossed_errors`.
    """
    crossed = crossed_errors(frame, metric)
    rng = np.random.default_rng(rng_seed)
    rates = crossed.resampled_rates(num_resamples, rng)
    return Resampled(crossed=crossed, rates=rates, order=rng.permutation(num_resamples), rng_seed=rng_seed)


def bootstrap_interval(
    frame: pd.DataFrame,
    row: str,
    *,
    metric: str = "character_error_rate",
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
    rng_seed: int = 0,
) -> Interval:
    """The pooled error rate of `row`, with the percentile interval of a bootstrap over seeds and sentences together.

    Sentences are drawn with replacement, the same for all seeds; seeds are drawn from Student's t about their mean.
    (Owen's pigeonhole bootstrap, 2007, draws seeds with replacement as well: right with twenty seeds, much too narrow
    with three.) An interval may reach below 0 where few seeds differ much.

    Raises:
        LabError: `row` is not in `frame`; or as `crossed_errors`.
    """
    check_row(frame, row)
    one = resampled(frame[frame["row"] == row], metric, num_resamples, rng_seed)
    return one.interval(effect_of(one.crossed.rates()[0], one.rates[:, 0], one.order), confidence)


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
        check_row(frame, row)
    every = resampled(frame, metric, num_resamples, rng_seed)
    rows, num_seeds = every.crossed.rows, len(every.crossed.seeds)
    if len(rows) < 2:
        raise LabError(f"a comparison needs at least two rows; there is only {rows[0]!r}")
    lines = []
    for row_a, row_b in pairs or itertools.combinations(rows, 2):
        weights = np.array([(row == row_a) * 1.0 - (row == row_b) * 1.0 for row in rows])
        effect = every.contrast(weights, pool_seed_variance=pool_seed_variance)
        low, high = effect.interval(confidence)
        lines.append((row_a, row_b, effect.estimate, low, high, effect.p_value()))
    table = pd.DataFrame(lines, columns=["row_a", "row_b", "difference", "low", "high", "p_value"])
    table["p_value_holm"] = multipletests(table["p_value"], method="holm")[1]
    return table.assign(num_seeds=num_seeds, over_seeds=num_seeds > 1)


def check_columns(frame: pd.DataFrame, *names: str) -> None:
    """Raise a LabError that names the columns that are missing."""
    if missing := [name for name in names if name not in frame]:
        raise LabError(f"per-utterance results lack the columns {', '.join(missing)}, which say what each cell is")


def check_row(frame: pd.DataFrame, row: str) -> None:
    """Raise a LabError that lists the rows, where `row` is none of them."""
    check_columns(frame, "row")
    rows = sorted(frame["row"].unique())
    if row not in rows:
        raise LabError(f"no results of row {row!r}; there are: {', '.join(map(repr, rows))}")
