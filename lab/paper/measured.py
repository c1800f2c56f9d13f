"""What tables and figures are drawn from: a rung's results, its test utterances, and a fingerprint of both."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lab import paths
from lab.errors import LabError
from lab.study import results
from lab.study.ablation import Ablation, Column
from lab.study.adaptive import Look, read_looks
from lab.study.definitions import code_hash
from lab.study.reach import our_modules

if TYPE_CHECKING:
    import pandas

    from lab.evaluation.statistics import CountedMetric, Interval

# Pooled from the utterances and from the cell itself; more than rounding apart means that they are not the same thing.
_TOLERANCE = 1e-6


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
        """What the cells of a row measured, by seed, `scale` times; nothing where the row was not run.

        Raises:
            LabError: a cell has no such number. It would be drawn as nothing.
        """
        lines = self.results[self.results["row"] == row].sort_values("seed")
        found = tuple(float(value) * scale for value in lines.get(metric, [math.nan] * len(lines)))
        if lacking := [str(seed) for seed, value in zip(lines["seed"], found, strict=True) if math.isnan(value)]:
            raise LabError(
                f"row {row!r} of {self.ablation.name!r}, seed {', '.join(lacking)}, has no {metric} in its results at "
                f"rung {self.rung!r}, so it cannot be drawn; run it again"
            )
        return found

    def interval(self, row: str, metric: str) -> "Interval | None":
        """The 95% interval of a pooled error rate, None where the row or too little of it was measured."""
        from lab.evaluation.statistics import bootstrap_interval

        try:
            return bootstrap_interval(self.utterances, row, metric=metric)
        except LabError:
            return None

    def column_interval(self, row: str, column: Column) -> "Interval | None":
        """The 95% interval of what a column shows: turned about where that is one minus an error rate."""
        interval = self.interval(row, column.interval) if column.interval else None
        if interval is None or column.better == "lower":
            return interval
        return replace(interval, estimate=1 - interval.estimate, low=1 - interval.high, high=1 - interval.low)

    @property
    def counted(self) -> "tuple[Column, CountedMetric] | None":
        """The column that is counted from the utterances, and how; None where the ablation has none."""
        from lab.evaluation.statistics import METRICS

        column = next((column for column in self.ablation.columns if column.interval), None)
        return (column, METRICS[column.interval]) if column else None

    def mismatches(self) -> list[str]:
        """The cells whose utterances do not add up to what the results file says of them."""
        if self.counted is None:
            return []
        column, metric = self.counted
        sums = self.utterances.groupby(["row", "seed"])[[metric.errors, metric.length]].sum()
        found = []
        for line in self.results.to_dict("records"):
            there = (line["row"], line["seed"])
            if column.metric not in line or there not in sums.index:
                continue
            errors, length = sums.loc[there]
            rate = errors / max(length, 1)
            if not abs((1 - rate if column.better == "higher" else rate) - line[column.metric]) <= _TOLERANCE:
                found.append(f"{line['row']}, seed {line['seed']}")
        return found


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
    frame = _test_utterances(ablation, rung, None)
    outside = frame["source"].isin(_out_of_domain(ablation, rung, lines["row"]))
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
    """The test utterances of these rows, those of the corpora out of the domain left out.

    Raises:
        LabError: as `load_measured`.
    """
    frame = _test_utterances(ablation, rung, rows)
    return frame[~frame["source"].isin(_out_of_domain(ablation, rung, rows))]


def _test_utterances(ablation: Ablation, rung: str, rows: Sequence[str] | None) -> "pandas.DataFrame":
    frame = results.load_utterances(ablation, rung, rows)
    return frame[frame["split"] == "test"]


def _out_of_domain(ablation: Ablation, rung: str, rows: Iterable[str]) -> set[str]:
    return {ablation.resolve(row, rung).as_dict().get("out_of_domain_corpus", "") for row in rows}


def results_checksum(ablation: Ablation, rung: str) -> str:
    """The SHA-256 of the rung's results file.

    Raises:
        LabError: there are no results of that rung, or the file was changed by hand.
    """
    if not any(line["rung"] == rung for line in results.read_lines(ablation, rung)):
        raise LabError(
            f"there are no results of {ablation.name!r} at rung {rung!r}; "
            f"run `lab reproduce {ablation.name} --rung {rung}`"
        )
    return hashlib.sha256(results.results_path(ablation, rung).read_bytes()).hexdigest()


def fingerprint(ablation: Ablation, rung: str, scripts: Iterable[Path] = ()) -> str:
    """16 hexadecimal digits of what a table or figure depends on: results, looks, declaration, code, `scripts`.

    The paper's numbers count as well: an ablation names them, and they stand in the ledger.

    Importing pandas, statsmodels and seaborn takes longer than a look at this, so what is up to date is not made anew.
    """
    declaration = paths.repository_root() / "ablations" / f"{ablation.name}.py"
    parts = [results_checksum(ablation, rung)]
    parts += [repr(look) for look in read_looks(ablation, rung)]
    parts += [repr(entry) for entry in ablation.reported]
    code = [path for name, path in our_modules().items() if name.startswith(("lab.paper.", "lab.evaluation."))]
    parts += [code_hash(path.read_text(encoding="utf-8"), ()) for path in code]
    parts += [hashlib.sha256(path.read_bytes()).hexdigest() for path in (declaration, *scripts)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
