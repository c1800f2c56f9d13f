"""How often other intervals of an effect would cover it, and how wide they are beside the studies' own.

    python benchmarks/intervals.py [--studies 4000]

Known models are drawn from, as in tests/evaluation/test_coverage.py: an interaction of four rows, whose seeds,
sentences and sentences within a seed differ by known spreads, at 3, 6 and 12 seeds. Printed as Markdown, for each
interval and number of seeds: the lowest and highest share of studies that it covers over the families, and its width
over that of `lab.evaluation.statistics`, mean over the families.

Then, for three seeds, the least that is possible. The sentences' two variances are taken as known, and the half width
may be any function of the spread between seeds. What covers at least 94.5% whatever the true spread between seeds is a
convex set (the normal distribution is concave above its mean), and the mean width is linear, so the narrowest of them
in a family is found by linear programs. An interval that has to estimate those variances knows less.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import optimize, stats

from lab.evaluation.statistics import drawn_rates, effect_of

SIGNS = np.array([1.0, -1.0, -1.0, 1.0])
MEANS = np.array([0.7, 0.6, 0.5, 0.45])
# Spread of a row's error rate between seeds, between sentences, and of a sentence with a seed; number of sentences.
FAMILIES = {
    "sentences": (0.0, 0.15, 0.0, 120),
    "sentence x seed": (0.0, 0.0, 0.15, 120),
    "all, few seeds": (0.01, 0.1, 0.1, 120),
    "seeds, sentences": (0.03, 0.1, 0.0, 120),
    "seeds": (0.04, 0.0, 0.0, 120),
    "400 sentences": (0.006, 0.12, 0.0, 400),
}
NUM_SEEDS = (3, 6, 12)
LEAST_COVERAGE = 0.945
_RESAMPLES, _AT_ONCE = 800, 50
_NORMAL = stats.norm.ppf(0.975)
Ends = tuple[Float[np.ndarray, " studies"], Float[np.ndarray, " studies"]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Studies:
    """The effect of each study and seed, on its sentences and on resampled ones, and its variance in parts.

    `seeds`, `sentences` and `both` are the mean squares of the two-way analysis over seeds x sentences: the variance
    of the mean over both is estimated by seeds + sentences - both.
    """

    values: Float[np.ndarray, "studies seeds"]
    drawn: Float[np.ndarray, "resamples studies seeds"]
    redrawn: Float[np.ndarray, "resamples studies seeds"]  # resampled seeds of resampled sentences
    seeds: Float[np.ndarray, " studies"]
    sentences: Float[np.ndarray, " studies"]
    both: Float[np.ndarray, " studies"]
    num_sentences: int

    @property
    def shared(self) -> Float[np.ndarray, " studies"]:
        """The part of the variance that all seeds share."""
        return np.maximum(self.sentences - self.both, 0)

    @property
    def student(self) -> float:
        """Student's quantile for these seeds."""
        return float(stats.t.ppf(0.975, self.values.shape[1] - 1))

    def about(self, half: Float[np.ndarray, " studies"]) -> Ends:
        """Intervals of this half width."""
        mean = self.values.mean(axis=1)
        return mean - half, mean + half


def simulated(family: str, num_seeds: int, num_studies: int, rng: np.random.Generator) -> Studies:
    """Studies on the same sentences, of as many characters each."""
    of_seed, of_sentence, of_both, size = FAMILIES[family]
    lengths = np.round(rng.lognormal(3, 0.5, size)) + 5
    shape = (num_studies, size, 4, num_seeds)
    probabilities = (
        MEANS[:, None]
        + of_seed * rng.normal(size=(num_studies, 1, 4, num_seeds))
        + of_sentence * rng.normal(size=(num_studies, size, 4, 1))
        + of_both * rng.normal(size=shape)
    )
    counts = lengths.astype(int)[:, None, None]
    errors = np.einsum("r,surk->suk", SIGNS, rng.binomial(counts, np.clip(probabilities, 0, 1)).astype(float))
    values = errors.sum(axis=1) / lengths.sum()
    drawn = drawn_rates(errors.transpose(1, 0, 2), lengths, _RESAMPLES, rng)
    chosen = np.broadcast_to(rng.integers(num_seeds, size=(_RESAMPLES, 1, num_seeds)), drawn.shape)
    # A rate is a quotient of sums over sentences: each has this part in it, to first order.
    parts = values[:, None] + (errors - values[:, None] * lengths[:, None]) / lengths.mean()
    over_seeds, grand = parts.mean(axis=2, keepdims=True), parts.mean(axis=(1, 2), keepdims=True)
    rest = (parts - over_seeds - parts.mean(axis=1, keepdims=True) + grand) ** 2
    return Studies(
        values=values,
        drawn=drawn,
        redrawn=np.take_along_axis(drawn, chosen, axis=2),
        seeds=values.var(axis=1, ddof=1) / num_seeds,
        sentences=over_seeds[..., 0].var(axis=1, ddof=1) / size,
        both=rest.sum(axis=(1, 2)) / ((size - 1) * (num_seeds - 1) * size * num_seeds),
        num_sentences=size,
    )


def own(studies: Studies) -> Ends:
    """The studies' own: Student's for the seeds, bootstrapped sentences."""
    order = np.random.default_rng(0).permutation(_RESAMPLES)
    each = zip(studies.values, studies.drawn.swapaxes(0, 1), strict=True)
    low, high = np.array([effect_of(values, drawn, order).interval(0.95) for values, drawn in each]).T
    return low, high


def satterthwaite(studies: Studies) -> Ends:
    """Two-way random effects with Satterthwaite's degrees of freedom.

    Kenward and Roger's are the same in a balanced design with one mean.
    """
    total = studies.seeds + studies.shared
    spread = studies.seeds**2 / (studies.values.shape[1] - 1) + studies.shared**2 / (studies.num_sentences - 1)
    return studies.about(stats.t.ppf(0.975, total**2 / spread) * np.sqrt(total))


def satterthwaite_corrected(studies: Studies) -> Ends:
    """The same where the variance between seeds, corrected for that of sentences within them, is never below 0."""
    total = np.maximum(studies.seeds - studies.both, 0) + studies.sentences
    spread = studies.seeds**2 / (studies.values.shape[1] - 1) + studies.sentences**2 / (studies.num_sentences - 1)
    return studies.about(stats.t.ppf(0.975, total**2 / spread) * np.sqrt(total))


def cochran(studies: Studies, power: float) -> Ends:
    """A quantile between the normal one and Student's by the seeds' share of the variance, raised to `power`.

    Cochran's approximate t has 1. The least power that covers 94.5% with three seeds, whatever the shares, is 1.4.
    """
    total = studies.seeds + studies.shared
    quantile = _NORMAL + (studies.student - _NORMAL) * (studies.seeds / total) ** power
    return studies.about(quantile * np.sqrt(total))


def larger_part(studies: Studies) -> Ends:
    """The wider of the interval over seeds and the one over sentences."""
    return studies.about(
        np.maximum(studies.student * np.sqrt(studies.seeds), _NORMAL * np.sqrt(studies.sentences)),
    )


def pigeonhole(studies: Studies) -> Ends:
    """Owen's bootstrap (2007): seeds and sentences drawn again, percentiles."""
    low, high = np.quantile(studies.redrawn.mean(axis=2), [0.025, 0.975], axis=0)
    return low, high


def pigeonhole_t(studies: Studies) -> Ends:
    """The same, studentised: seeds that come out alike three times leave only the sentences to divide by."""
    strayed = np.abs(studies.redrawn.mean(axis=2) - studies.values.mean(axis=1))
    error = np.sqrt(studies.redrawn.var(axis=2, ddof=1) / studies.values.shape[1] + studies.shared)
    with np.errstate(divide="ignore", invalid="ignore"):
        quantile = np.quantile(np.nan_to_num(strayed / error, posinf=1e9), 0.95, axis=0)
    return studies.about(quantile * np.sqrt(studies.seeds + studies.shared))


INTERVALS: dict[str, Callable[[Studies], Ends]] = {
    "the studies' own": own,
    "two-way, Satterthwaite's degrees": satterthwaite,
    "the same, components never below 0": satterthwaite_corrected,
    "Cochran's approximate t": lambda studies: cochran(studies, 1.0),
    "the same, calibrated": lambda studies: cochran(studies, 1.4),
    "the wider of seeds and sentences": larger_part,
    "pigeonhole bootstrap": pigeonhole,
    "pigeonhole bootstrap-t": pigeonhole_t,
}


def least_width(between: float, both: float, shared: float, num_seeds: int = 3) -> float:
    """The least mean half width in a family, of all intervals that cover 94.5% at every spread between seeds.

    The variance of the mean is `between` (seeds, unknown) + `both` + `shared` (known). The half width is linear between
    knots in the spread seen, so that the true least is narrower by less than a hundredth.
    """
    unit, degrees = both + shared, num_seeds - 1
    nodes, weights = np.polynomial.legendre.leggauss(150)
    chi_square, weights = stats.chi2.ppf((nodes + 1) / 2, degrees) / degrees, weights / 2
    knots = np.concatenate([[0], np.geomspace(0.003, 3_000, 50)])
    truths = np.concatenate([[0], np.geomspace(0.02, 300, 45)])

    def half_widths(truth: float) -> Float[np.ndarray, "nodes knots"]:
        seen = np.log((truth + both / unit) * chi_square + 0.01)
        each = [np.interp(seen, np.log(knots + 0.01), unit_vector) for unit_vector in np.eye(len(knots))]
        return np.stack(each, axis=1) * np.sqrt((1 + knots) / (1 + truth))

    tables = np.stack([half_widths(truth) for truth in truths])
    mean = weights @ half_widths(between / unit) * np.sqrt(1 + between / unit)
    found = np.full(len(knots), stats.t.ppf(0.975, degrees))
    radius = 0.5
    for _ in range(60):
        halves = tables @ found
        covered = (2 * stats.norm.cdf(halves) - 1) @ weights
        slopes = np.einsum("tn,tnk->tk", 2 * stats.norm.pdf(halves) * weights, tables)
        bounds = np.stack([np.maximum(found - radius, 0), found + radius], axis=1)
        step = optimize.linprog(mean, A_ub=-slopes, b_ub=covered - LEAST_COVERAGE - slopes @ found, bounds=bounds)
        found = step.x
        radius = max(0.85 * radius, 0.005)
    return float(mean @ found * np.sqrt(unit))


def times(ratio: float) -> str:
    """Two decimals; a bootstrap-t that divided by nothing has no end."""
    return f"{ratio:.2f}" if ratio < 10 else "endless"


def table(lines: Sequence[Sequence[str]]) -> str:
    """As Markdown, the first line its head."""
    head, *rest = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([head, "|---" * len(lines[0]) + "|", *rest])


def main() -> None:
    """Simulate, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--studies", type=int, default=4_000, help="of a family and number of seeds (4,000)")
    num_studies = parser.parse_args().studies
    truth = float(SIGNS @ MEANS)
    hits, widths = np.zeros((2, len(INTERVALS), len(NUM_SEEDS), len(FAMILIES)))
    variances = np.zeros((len(FAMILIES), 3))
    for f, family in enumerate(FAMILIES):
        for k, num_seeds in enumerate(NUM_SEEDS):
            rng = np.random.default_rng([f, num_seeds])
            for _ in range(blocks := -(-num_studies // _AT_ONCE)):
                studies = simulated(family, num_seeds, _AT_ONCE, rng)
                for i, interval in enumerate(INTERVALS.values()):
                    low, high = interval(studies)
                    hits[i, k, f] += ((low <= truth) & (truth <= high)).mean() / blocks
                    widths[i, k, f] += (high - low).mean() / blocks
                if num_seeds == NUM_SEEDS[0]:
                    both = studies.both.mean()
                    parts = (studies.seeds.mean() - both, both, studies.sentences.mean() - both)
                    variances[f] += np.maximum(parts, 0) / blocks
    ratios = widths / widths[0]
    lines = [["interval", *(f"{count} seeds" for count in NUM_SEEDS)]]
    for i, name in enumerate(INTERVALS):
        cells = (
            f"{100 * hits[i, k].min():.1f} to {100 * hits[i, k].max():.1f}%, {times(ratios[i, k].mean())}"
            for k in range(len(NUM_SEEDS))
        )
        lines.append([name, *cells])
    print(table(lines), end="\n\n")
    lines = [["3 seeds", *INTERVALS, "least possible"]]
    for f, family in enumerate(FAMILIES):
        least = 2 * least_width(*variances[f]) / widths[0, 0, f]
        cells = (f"{100 * hits[i, 0, f]:.1f}%, {times(ratios[i, 0, f])}" for i in range(len(INTERVALS)))
        lines.append([family, *cells, f"{100 * LEAST_COVERAGE}%, {least:.2f}"])
    print(table(lines))


if __name__ == "__main__":
    main()
