"""How far error rates of rows, and differences between them, can be trusted: their intervals and p values.

Axis names: `resamples`, `sentences`, `rows`, `seeds`. Every row was trained with every seed and read every utterance,
so chance enters twice: through the utterances that happened to be in the test set, and through the seeds that were
run. All functions take the item tables of many cells in one long frame (one corpus and split), with the columns `row`
(label) and `seed` beside those of `lab.evaluation.items`.

The model behind the interval, for one effect (a difference of rows, say) with seed s and sentence u:
    value(s, u) = effect + seed(s) + sentence(u) + both(s, u),
so that the mean over K seeds and N sentences has variance
    [var(seed) + var(both) / N] / K    +    var(sentence) / N.
The first part is the variance of the effect between seeds over K, and shrinks with more seeds; the second is what all
seeds share when sentences are drawn again, and does not.

What an interval covers: new seeds and new sentences of the same kind, both at once; speakers and corpus are taken as
they are, and so is everything that all seeds shared (the language model, the split). It assumes that seed effects are
roughly normal, which three seeds cannot show. Simulated (benchmarks/intervals.py), a nominal 95% covers 95.0 to 98.5%
with three seeds and 93.9 to 97.1% with twelve; seeds drawn again like the sentences cover 81% where seeds are what
differs. It adds two parts as if each were at its worst (Behrens & Fisher's interval), and is wide for that. With three
seeds Satterthwaite's degrees of freedom (1946) are 14% narrower, but cover 92.4 to 95.1%; what covers 94.5% for any
spread between seeds can be 4 to 16% narrower, by the model (docs/studies.md).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from jaxtyping import Float
from scipy import stats
from statsmodels.stats.multitest import multipletests

from lab.errors import LabError, choose

NUM_RESAMPLES = 10_000
_CONFIDENCE = 0.95
# Draws at a time: 2,000 x 500 weights are 8 MB, where all of them for a large test set would fill the memory.
_RESAMPLES_AT_ONCE = 2_000
# A rate is a quotient of counts, so what is smaller is rounding: (0.7 - 0.6) - (0.5 - 0.4) must not count as above 0.
_DECIMALS = 12


@dataclass(frozen=True, kw_only=True)
class CountedMetric:
    """An error rate by the columns of the item table that it is counted from; how messages call items and groups.

    Items of one group are no independent witnesses: two speakers of one sentence, two questions on one scene.
    """

    errors: str
    length: str
    item: str = "utterance"
    groups: str = "sentences"

    @property
    def items(self) -> str:
        """More than one of them."""
        return f"{self.item}s"


METRICS = {
    "character_error_rate": CountedMetric(errors="character_errors", length="num_characters"),
    "word_error_rate": CountedMetric(errors="word_errors", length="num_words"),
    "error_rate": CountedMetric(
        errors="wrong_answers", length="num_questions", item="question", groups="groups of questions"
    ),
}


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

    @property
    def over_seeds(self) -> bool:
        """False where one seed was run: the interval is over utterances only, and too narrow for any claim on a row."""
        return self.num_seeds > 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Effect:
    """An estimate with its two kinds of chance, kept apart so that the number of seeds can be varied.

    `deviations` are the bootstrap's deviations of the estimate through sentences alone, as if there were seeds without
    end; `seed_variance` is the variance of one seed's value. With one seed there is none to estimate: it is 0, and the
    deviations are that seed's own.
    """

    estimate: float
    deviations: Float[np.ndarray, " resamples"]
    order: npt.NDArray[np.int64]  # a permutation, which pairs each deviation with a quantile of Student's t
    num_seeds: int
    seed_variance: float

    def draws(self, num_seeds: float | None = None) -> Float[np.ndarray, " draws"]:
        """Estimates as they could have come out with `num_seeds` seeds (as many as were run where None; may be inf).

        The mean over few seeds strays from the truth like Student's t, so the seeds' part is drawn from it rather than
        by resampling: three seeds drawn again show only two thirds of the variance, and nothing of the tails. Its
        quantiles are spread evenly, and each stands once with either sign, which keeps the tails free of chance and
        the interval of b - a the mirror image of a - b.
        """
        count = self.num_seeds if num_seeds is None else num_seeds
        if count == 1 or np.isinf(count):
            return np.round(self.estimate + self.deviations, _DECIMALS)
        size = len(self.deviations)
        quantiles = stats.t.ppf((np.arange(size) + 0.5) / size, df=count - 1)[self.order]
        strayed = np.sqrt(self.seed_variance / count) * quantiles
        strays = np.concatenate([self.deviations + strayed, self.deviations - strayed])
        return np.round(self.estimate + strays, _DECIMALS)

    def interval(self, confidence: float, num_seeds: float | None = None) -> tuple[float, float]:
        """Percentiles of the draws."""
        tail = (1 - confidence) / 2
        low, high = np.quantile(self.draws(num_seeds), [tail, 1 - tail])
        return float(low), float(high)

    def ends(self, confidence: float) -> "tuple[Effect, Effect]":
        """The effect as seeds without end may show it at these sentences: at the low and high end of its seeds' part.

        That part alone is Student's interval over seeds. It needs two seeds or more.
        """
        quantile = stats.t.ppf((1 + confidence) / 2, df=self.num_seeds - 1)
        half = float(quantile * np.sqrt(self.seed_variance / self.num_seeds))
        return replace(self, estimate=self.estimate - half), replace(self, estimate=self.estimate + half)

    def p_value(self) -> float:
        """Two-sided, of an effect of 0: the smallest level at which the interval leaves 0 out (at least 2 / draws)."""
        draws = self.draws()
        beyond = min(np.count_nonzero(draws <= 0), np.count_nonzero(draws >= 0))
        return float(min(1.0, 2 * (beyond + 1) / (len(draws) + 1)))


def effect_of(
    values: Float[np.ndarray, " seeds"],
    resampled: Float[np.ndarray, "resamples seeds"],
    order: npt.NDArray[np.int64],
) -> Effect:
    """The mean of `values` over seeds, from each seed's value on the test set and on resampled sentences.

    `order` is a permutation of the resamples. Few seeds can agree by luck, so their variance is kept above the value at
    which an interval of 95% would be narrower than the one over sentences alone.
    """
    num_seeds = len(values)
    deviations = (resampled - values).mean(axis=1)
    estimate = float(values.mean())
    if num_seeds == 1:
        return Effect(estimate=estimate, deviations=deviations, order=order, num_seeds=1, seed_variance=0.0)
    covariance = np.cov(resampled, rowvar=False)
    shared = max(0.0, float((covariance.sum() - np.trace(covariance)) / (num_seeds * (num_seeds - 1))))
    unshared = max(0.0, float(np.trace(covariance)) / num_seeds - shared)
    total = deviations.var(ddof=1)
    least = unshared * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, df=num_seeds - 1)) ** 2
    return Effect(
        estimate=estimate,
        # Never above 1 but by rounding, which alone is left where utterances do not differ (0 / 0 would be anything).
        deviations=deviations * np.sqrt(min(1.0, shared / total) if total > 0 else 0.0),
        order=order,
        num_seeds=num_seeds,
        seed_variance=max(float(values.var(ddof=1)), least),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Resampled:
    """Pooled error rates of every row and seed, on the test set and on resampled sentences: the same draws for all.

    Sentences rather than utterances are drawn, with all utterances of them: two speakers of one sentence are not two
    independent witnesses.
    """

    rows: tuple[str, ...]
    num_utterances: int
    num_sentences: int
    rates: Float[np.ndarray, "rows seeds"]
    drawn: Float[np.ndarray, "resamples rows seeds"]
    order: npt.NDArray[np.int64]

    def effect(self, weights: Sequence[float]) -> Effect:
        """The effect sum(weights x rates)."""
        each = np.asarray(weights)
        return effect_of(each @ self.rates, np.einsum("r,brs->bs", each, self.drawn), self.order)

    def interval(self, effect: Effect, confidence: float) -> Interval:
        """An effect's interval, with what it rests on."""
        low, high = effect.interval(confidence)
        return Interval(
            estimate=effect.estimate,
            low=low,
            high=high,
            confidence=confidence,
            num_seeds=effect.num_seeds,
            num_utterances=self.num_utterances,
            num_sentences=self.num_sentences,
        )


def drawn_rates(
    errors: Float[np.ndarray, "sentences rows seeds"],
    lengths: Float[np.ndarray, " sentences"],
    num_resamples: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "resamples rows seeds"]:
    """Pooled rates on sentences drawn with replacement, the same draw for all rows and seeds."""
    size, flat = len(errors), errors.reshape(len(errors), -1)
    chunks = []
    for start in range(0, num_resamples, _RESAMPLES_AT_ONCE):
        draws = min(_RESAMPLES_AT_ONCE, num_resamples - start)
        weights = rng.multinomial(size, np.full(size, 1 / size), draws).astype(np.float64)
        chunks.append((weights @ flat) / (weights @ lengths)[:, None])
    return np.concatenate(chunks).reshape(num_resamples, *errors.shape[1:])


def resampled(frame: pd.DataFrame, metric: str, num_resamples: int) -> Resampled:
    """Lay out results as a crossed design and draw its sentences; the order of the lines of `frame` does not matter.

    `frame` holds one corpus and split: one line for each `row`, `seed` and item of the metric (`METRICS`).

    Raises:
        LabError: an unknown metric; a missing column; a result that stands twice; a row without a seed that another row
            has; a cell without an utterance that another cell has; one utterance with two references; fewer than two
            sentences; nothing to count.
    """
    counted = choose(METRICS, metric, "metric")
    _check(frame, counted)
    ordered = frame.sort_values(["id", "row", "seed"])
    rows, num_seeds = tuple(sorted(frame["row"].unique())), frame["seed"].nunique()
    one_cell = ordered.iloc[:: len(rows) * num_seeds]
    sentence, sentences = pd.factorize(one_cell["group"], sort=True)
    errors = np.zeros((len(sentences), len(rows), num_seeds))
    lengths = np.zeros(len(sentences))
    np.add.at(errors, sentence, ordered[counted.errors].to_numpy(np.float64).reshape(-1, *errors.shape[1:]))
    np.add.at(lengths, sentence, one_cell[counted.length].to_numpy(np.float64))
    rng = np.random.default_rng(0)
    return Resampled(
        rows=rows,
        num_utterances=len(one_cell),
        num_sentences=len(sentences),
        rates=errors.sum(axis=0) / lengths.sum(),
        drawn=drawn_rates(errors, lengths, num_resamples, rng),
        order=rng.permutation(num_resamples),
    )


def bootstrap_interval(
    frame: pd.DataFrame,
    row: str,
    *,
    metric: str = "character_error_rate",
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """The pooled error rate of `row`, with the 95% percentile interval of a bootstrap over seeds and sentences.

    Sentences are drawn with replacement, the same for all seeds; seeds are drawn from Student's t about their mean.
    (Owen's pigeonhole bootstrap, 2007, draws seeds with replacement as well: right with twenty seeds, much too narrow
    with three.) An interval may reach below 0 where few seeds differ much.

    Raises:
        LabError: `row` is not in `frame`; or as `resampled`.
    """
    check_row(frame, row)
    one = resampled(frame[frame["row"] == row], metric, num_resamples)
    return one.interval(one.effect([1.0]), _CONFIDENCE)


def pairwise_comparisons(
    frame: pd.DataFrame,
    pairs: Sequence[tuple[str, str]] | None = None,
    *,
    metric: str = "character_error_rate",
    num_resamples: int = NUM_RESAMPLES,
) -> pd.DataFrame:
    """Compare rows on the same seeds and utterances; all pairs where `pairs` is None.

    One line a pair: `row_a`, `row_b`, `difference` (a - b, a fraction), `low`, `high` (not corrected for the number
    of pairs), `p_value`, `p_value_holm` (Holm's correction over the pairs given), `num_seeds`, `over_seeds`. The p
    value is that of the same draws as the interval: the smallest level at which the interval leaves 0 out, so both
    account for seeds and utterances. (A paired Wilcoxon or permutation test over utterances would not: it treats the
    seeds that were run as the only ones.)

    Three seeds of one pair leave 2 degrees of freedom, on which little survives Holm's correction: give the few pairs
    that matter, or run more seeds. With one seed the p value is over utterances only (`over_seeds` is False).

    Raises:
        LabError: no pair, fewer than two rows, or a pair names a row that is not in `frame`; or as `resampled`.
    """
    if pairs is not None and not len(pairs):
        raise LabError("no pair of rows was given to compare")
    for row in itertools.chain.from_iterable(pairs or ()):
        check_row(frame, row)
    every = resampled(frame, metric, num_resamples)
    if len(every.rows) < 2:
        raise LabError(f"a comparison needs at least two rows; there is only {every.rows[0]!r}")
    lines = []
    for row_a, row_b in pairs or itertools.combinations(every.rows, 2):
        effect = every.effect([(row == row_a) * 1.0 - (row == row_b) * 1.0 for row in every.rows])
        lines.append((row_a, row_b, effect.estimate, *effect.interval(_CONFIDENCE), effect.p_value()))
    table = pd.DataFrame(lines, columns=["row_a", "row_b", "difference", "low", "high", "p_value"])
    table["p_value_holm"] = multipletests(table["p_value"], method="holm")[1]
    num_seeds = every.rates.shape[1]
    return table.assign(num_seeds=num_seeds, over_seeds=num_seeds > 1)


def check_row(frame: pd.DataFrame, row: str) -> None:
    """Raise a LabError that lists the rows, where `row` is none of them."""
    if "row" not in frame:
        raise LabError("results of single items lack the column row, which says what each cell is")
    rows = sorted(frame["row"].unique())
    if row not in rows:
        raise LabError(f"no results of row {row!r}; there are: {', '.join(map(repr, rows))}")


def _check(frame: pd.DataFrame, counted: CountedMetric) -> None:
    item, items, length = counted.item, counted.items, counted.length
    needed = ["row", "seed", "id", "group", counted.errors, length]
    if missing := [name for name in needed if name not in frame]:
        raise LabError(f"results of single {items} lack the columns {', '.join(missing)}; needed: {', '.join(needed)}")
    if frame.empty:
        raise LabError(f"no results of single {items} were given; at least one row with two {counted.groups} is needed")
    doubled = frame[frame.duplicated(["row", "seed", "id"])]
    if not doubled.empty:
        row, seed, one = doubled[["row", "seed", "id"]].iloc[0]
        raise LabError(
            f"row {row!r}, seed {seed}, has two results for {item} {one!r}; give one corpus, split and run a cell"
        )
    seeds = set(frame["seed"])
    if lacking := [
        f"{row!r} lacks {', '.join(map(str, sorted(absent)))}"
        for row, group in frame.groupby("row")
        if (absent := seeds - set(group["seed"]))
    ]:
        listed = ", ".join(map(str, sorted(seeds)))
        raise LabError(f"rows are compared on the same seeds, but of seeds {listed} row {'; row '.join(lacking)}")
    every = set(frame["id"])
    for (row, seed), group in frame.groupby(["row", "seed"]):
        if absent := every - set(group["id"]):
            named = ", ".join(repr(name) for name in sorted(absent)[:3]) + (", ..." if len(absent) > 3 else "")
            raise LabError(
                f"rows are compared on the same {items}, but row {row!r}, seed {seed}, lacks {len(absent)} that "
                f"other cells have: {named}"
            )
    references = frame.groupby("id")[["group", length]].nunique()
    if not (differing := references[(references > 1).any(axis=1)]).empty:
        raise LabError(
            f"{item} {differing.index[0]!r} has different references in different cells; score all cells with one "
            f"corpus and one normaliser"
        )
    if frame["group"].nunique() < 2:
        raise LabError(f"an interval over {items} needs at least two {counted.groups}; all {items} are of one")
    if frame[length].sum() == 0:
        raise LabError(f"{length} is 0 in every result, so there is nothing to count: choose another metric")
