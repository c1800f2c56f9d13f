"""Errors in a crossed design (rows x seeds x sentences) and how far a difference of rates can be trusted in it.

Axis names: `resamples`, `sentences`, `rows`, `seeds`. Every row was trained with every seed and read every utterance,
so chance enters twice: through the utterances that happened to be in the test set, and through the seeds that were
run.

The model behind the interval, for one effect (a difference of rows, say) with seed s and sentence u:
    value(s, u) = effect + seed(s) + sentence(u) + both(s, u),
so that the mean over K seeds and N sentences has variance
    [var(seed) + var(both) / N] / K    +    var(sentence) / N.
The first part is the variance of the effect between seeds over K, and shrinks with more seeds; the second is what all
seeds share when sentences are drawn again, and does not.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from jaxtyping import Float
from scipy import stats

from lab.errors import LabError, choose


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
# Draws at a time: 2,000 x 500 weights are 8 MB, where all of them for a large test set would fill the memory.
_RESAMPLES_AT_ONCE = 2_000
# A rate is a quotient of counts, so what is smaller is rounding: (0.7 - 0.6) - (0.5 - 0.4) must not count as above 0.
_DECIMALS = 12


@dataclass(frozen=True, kw_only=True, eq=False)
class CrossedErrors:
    """Errors of every row, seed and sentence, and the length of every sentence (over all utterances of it)."""

    rows: tuple[str, ...]
    seeds: tuple[int, ...]
    num_utterances: int
    errors: Float[np.ndarray, "sentences rows seeds"]
    lengths: Float[np.ndarray, " sentences"]

    def rates(self) -> Float[np.ndarray, "rows seeds"]:
        """Pooled error rates, fractions."""
        rates: npt.NDArray[np.float64] = self.errors.sum(axis=0) / self.lengths.sum()
        return rates

    def resampled_rates(
        self, num_resamples: int, rng: np.random.Generator
    ) -> Float[np.ndarray, "resamples rows seeds"]:
        """Pooled rates on sentences drawn with replacement, the same draw for all rows and seeds.

        Sentences rather than utterances are drawn, with all utterances of them: two speakers of one sentence are not
        two independent witnesses.
        """
        num_sentences, *shape = self.errors.shape
        flat = self.errors.reshape(num_sentences, -1)
        chunks = []
        for start in range(0, num_resamples, _RESAMPLES_AT_ONCE):
            size = min(_RESAMPLES_AT_ONCE, num_resamples - start)
            weights = rng.multinomial(num_sentences, np.full(num_sentences, 1 / num_sentences), size).astype(np.float64)
            chunks.append((weights @ flat) / (weights @ self.lengths)[:, None])
        return np.concatenate(chunks).reshape(num_resamples, *shape)


def crossed_errors(frame: pd.DataFrame, metric: str) -> CrossedErrors:
    """Lay out per-utterance results as a crossed design; the order of the lines of `frame` does not matter.

    `frame` holds one corpus and split: one line for each `row`, `seed` and item of the metric (`METRICS`).

    Raises:
        LabError: an unknown metric; a missing column; a result that stands twice; a row without a seed that another row
            has; a cell without an utterance that another cell has; one utterance with two references; fewer than two
            sentences; nothing to count.
    """
    counted = choose(METRICS, metric, "metric")
    errors, length = counted.errors, counted.length
    _check(frame, counted)
    ordered = frame.sort_values(["id", "row", "seed"])
    rows, seeds = tuple(sorted(frame["row"].unique())), tuple(sorted(int(seed) for seed in frame["seed"].unique()))
    shape = (-1, len(rows), len(seeds))
    one_cell = ordered.iloc[:: len(rows) * len(seeds)]
    sentence, sentences = pd.factorize(one_cell["group"], sort=True)
    summed_errors = np.zeros((len(sentences), *shape[1:]))
    summed_lengths = np.zeros(len(sentences))
    np.add.at(summed_errors, sentence, ordered[errors].to_numpy(np.float64).reshape(shape))
    np.add.at(summed_lengths, sentence, one_cell[length].to_numpy(np.float64))
    return CrossedErrors(
        rows=rows, seeds=seeds, num_utterances=len(one_cell), errors=summed_errors, lengths=summed_lengths
    )


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Effect:
    """An estimate with its two kinds of chance, kept apart so that the number of seeds can be varied.

    `deviations` are the bootstrap's deviations of the estimate through sentences alone, as if there were seeds without
    end; `seed_variance` is the variance of one seed's value, estimated with `degrees_per_seed` x (seeds - 1) degrees of
    freedom. With one seed there is no `seed_variance` to estimate: it is 0, and the deviations are that seed's own.
    """

    estimate: float
    deviations: Float[np.ndarray, " resamples"]
    order: npt.NDArray[np.int64]  # a permutation, which pairs each deviation with a quantile of Student's t
    num_seeds: int
    seed_variance: float
    degrees_per_seed: int = 1

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
        quantiles = stats.t.ppf((np.arange(size) + 0.5) / size, df=self.degrees_per_seed * (count - 1))[self.order]
        strayed = np.sqrt(self.seed_variance / count) * quantiles
        strays = np.concatenate([self.deviations + strayed, self.deviations - strayed])
        return np.round(self.estimate + strays, _DECIMALS)

    def interval(self, confidence: float, num_seeds: float | None = None) -> tuple[float, float]:
        """Percentiles of the draws."""
        tail = (1 - confidence) / 2
        low, high = np.quantile(self.draws(num_seeds), [tail, 1 - tail])
        return float(low), float(high)

    def p_value(self) -> float:
        """Two-sided, of an effect of 0: the smallest level at which the interval leaves 0 out (at least 2 / draws)."""
        draws = self.draws()
        beyond = min(np.count_nonzero(draws <= 0), np.count_nonzero(draws >= 0))
        return float(min(1.0, 2 * (beyond + 1) / (len(draws) + 1)))


def effect_of(
    values: Float[np.ndarray, " seeds"],
    resampled: Float[np.ndarray, "resamples seeds"],
    order: npt.NDArray[np.int64],
    *,
    seed_variance: float | None = None,
    degrees_per_seed: int = 1,
) -> Effect:
    """The mean of `values` over seeds, from each seed's value on the test set and on resampled sentences.

    `order` is a permutation of the resamples.

    `seed_variance` is taken from `values` themselves where None. Few seeds can agree by luck, so it is kept above the
    value at which an interval of 95% would be narrower than the one over sentences alone.
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
    between_seeds = float(values.var(ddof=1)) if seed_variance is None else seed_variance
    degrees = degrees_per_seed * (num_seeds - 1)
    return Effect(
        estimate=estimate,
        # Never above 1 but by rounding, which alone is left where utterances do not differ (0 / 0 would be anything).
        deviations=deviations * np.sqrt(min(1.0, shared / total) if total > 0 else 0.0),
        order=order,
        num_seeds=num_seeds,
        seed_variance=max(between_seeds, unshared * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, df=degrees)) ** 2),
        degrees_per_seed=degrees_per_seed,
    )
