"""How well each row of a study answered, in its table's units, with seeds and intervals; and what guessing gives."""

import textwrap
from dataclasses import dataclass

from lab.errors import LabError
from lab.paper.figure_frame import seeds_run
from lab.paper.measured import Measured
from lab.study.ablation import Column

CHANCE = "test_chance"
# What a label begins with where the row is no contender but what contenders are held against.
YARDSTICKS = ("Baseline", "Control")


@dataclass(frozen=True, kw_only=True)
class RowScore:
    """One row that was run, in the units of the table (percent, not fractions)."""

    key: str
    label: str
    mean: float
    low: float
    high: float
    """The ends of the 95% interval; both are the mean where too little was measured for one."""
    seeds: tuple[float, ...]
    """The single seeds' scores, by seed."""

    @property
    def is_yardstick(self) -> bool:
        """A baseline or a control: its label says so."""
        return self.label.startswith(YARDSTICKS)

    @property
    def reach(self) -> tuple[float, float]:
        """How far the interval reaches below and above the mean."""
        return max(0.0, self.mean - self.low), max(0.0, self.high - self.mean)


def score_column(measured: Measured) -> Column:
    """The column that is counted from single answers.

    Raises:
        LabError: the ablation has none.
    """
    if measured.counted is None:
        raise LabError(
            f"a figure of rows shows the column whose `interval` is set, but ablation {measured.ablation.name!r} "
            "declares none"
        )
    return measured.counted[0]


def row_scores(measured: Measured) -> list[RowScore]:
    """The rows that were run, in the order of their declaration.

    Raises:
        LabError: as `score_column` and `Measured.values`.
    """
    column = score_column(measured)
    scores = []
    for row in measured.ablation.rows:
        values = measured.values(row.key, column.metric, column.scale)
        if not values:
            continue
        mean = sum(values) / len(values)
        interval = measured.column_interval(row.key, column)
        scores.append(
            RowScore(
                key=row.key,
                label=row.label,
                mean=mean,
                low=interval.low * column.scale if interval else mean,
                high=interval.high * column.scale if interval else mean,
                seeds=values,
            )
        )
    return scores


def mean_chance(measured: Measured) -> float | None:
    """What guessing gives, over all cells, in the table's units; None where it was not measured."""
    if CHANCE not in measured.results:
        return None
    return float(measured.results[CHANCE].mean()) * score_column(measured).scale


def panel_title(measured: Measured, letters: int = 70) -> str:
    """What was tested, and what points, bars and the line of chance are; in lines of so many letters at most."""
    metric = measured.counted[1] if measured.counted else None
    single = measured.results.groupby("row")["seed"].nunique().max() == 1
    over = f" over {metric.clusters} alone" if metric and single else ""
    lines = [
        f"{', '.join(measured.corpora)}, test set",
        f"{seeds_run(measured)} (small points), 95% intervals{over}",
    ]
    if (chance := mean_chance(measured)) is not None:
        lines.append(f"dashed: chance, {chance:.1f}%")
    return "\n".join(textwrap.fill(line, letters) for line in lines)
