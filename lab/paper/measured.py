"""What tables and figures are drawn from: a rung's results and its test utterances."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.study import results
from lab.study.ablation import Ablation, Column
from lab.study.adaptive import Look, read_looks

if TYPE_CHECKING:
    import pandas

    from lab.evaluation.statistics import CountedMetric, Interval


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """The measurements of one rung."""

    ablation: Ablation
    rung: str
    results: "pandas.DataFrame"
    """One line a cell."""
    utterances: "pandas.DataFrame"
    """Of the test split of `corpora`, with row, seed and the parameters that define the row."""
    corpora: tuple[str, ...]
    other_corpora: tuple[str, ...]
    """Those that the parameter `out_of_domain_corpus` names: tested on as well, in no part of the training."""
    looks: tuple[Look, ...] = ()
    """Those taken at the claim, where seeds were added until it decides."""

    def seeds(self, row: str) -> list[int]:
        """The seeds that were run, in order."""
        return sorted(int(seed) for seed in self.results.loc[self.results["row"] == row, "seed"])

    def values(self, row: str, metric: str, scale: float = 1.0) -> tuple[float, ...]:
        """What the cells of a row measured, by seed, `scale` times; nothing where it was not run."""
        lines = self.results[self.results["row"] == row].sort_values("seed")
        found = tuple(float(value) * scale for value in lines.get(metric, [math.nan] * len(lines)))
        if lacking := [str(seed) for seed, value in zip(lines["seed"], found, strict=True) if math.isnan(value)]:
            raise LabError(
                f"row {row!r} of {self.ablation.name!r}, seed {', '.join(lacking)}, has no {metric} in its results at "
                f"rung {self.rung!r}, so it cannot be drawn; run it again"
            )
        return found

    def column_interval(self, row: str, column: Column) -> "Interval | None":
        """The 95% interval of what a column shows, None where it has none or too little of the row was measured."""
        from lab.evaluation.statistics import bootstrap_interval

        if not column.interval:
            return None
        try:
            found = bootstrap_interval(of_test(self.utterances, column.test), row, metric=column.interval)
        except LabError:
            return None
        if column.better == "lower":
            return found
        # The column is one minus an error rate.
        return replace(found, estimate=1 - found.estimate, low=1 - found.high, high=1 - found.low)

    @property
    def counted(self) -> "tuple[Column, CountedMetric] | None":
        """The column that is counted from the utterances, and how; None where the ablation has none."""
        from lab.evaluation.statistics import METRICS

        column = next((column for column in self.ablation.columns if column.interval), None)
        return (column, METRICS[column.interval]) if column else None


def of_test(items: "pandas.DataFrame", test: str) -> "pandas.DataFrame":
    """The items of one test of a study that has several; all where none is named."""
    return items[items["test"] == test] if test else items


def load_measured(ablation: Ablation, rung: str) -> Measured:
    """Read the results file and the utterances of its cells.

    Raises:
        LabError: the rung is unknown or has no results, its file was changed by hand or has a row that is not declared
            any more, or utterances were measured on another machine.
    """
    ablation.rung(rung)
    lines = results.load_results(ablation, rung)
    if lost := sorted(set(lines["row"]) - {row.key for row in ablation.rows}):
        raise LabError(
            f"the results of {ablation.name!r} at rung {rung!r} have the row {', '.join(lost)}, which is not declared "
            f"any more; write it back into ablations/{ablation.name}.py or ablations/{ablation.name}.rows.toml"
        )
    frame, outside = _test_utterances(ablation, rung, None, lines["row"])
    return Measured(
        ablation=ablation,
        rung=rung,
        results=lines,
        utterances=frame[~outside],
        corpora=tuple(sorted(frame.loc[~outside, "source"].unique())),
        other_corpora=tuple(sorted(frame.loc[outside, "source"].unique())),
        looks=read_looks(ablation, rung),
    )


def load_rows(ablation: Ablation, rung: str, rows: Sequence[str]) -> "pandas.DataFrame":
    """The test utterances of these rows, those of the corpora out of the domain left out."""
    frame, outside = _test_utterances(ablation, rung, rows, rows)
    return frame[~outside]


def _test_utterances(
    ablation: Ablation, rung: str, read: Sequence[str] | None, rows: Iterable[str]
) -> "tuple[pandas.DataFrame, pandas.Series[bool]]":
    """The test utterances of the rows to read (None: all), and which of them are of a corpus out of the domain."""
    frame = results.load_utterances(ablation, rung, read)
    frame = frame[frame["split"] == "test"]
    outside = {ablation.resolve(row, rung).as_dict().get("out_of_domain_corpus", "") for row in rows}
    return frame, frame["source"].isin(outside)
