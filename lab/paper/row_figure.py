"""A study of rows as a figure: a line a row with its seeds and interval, chance dashed, the paper's numbers apart.

How well each row answered is in its table's units (`row_scores`).
"""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from lab.errors import LabError
from lab.paper.figure_frame import HEADING_LETTERS, WIDTH, seeds_run, write_heading
from lab.paper.measured import Measured
from lab.paper.reported_panel import draw_reported, footnote, reported_height, stars
from lab.paper.style import GREY, STYLES, draw_seeds
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
    over = f" over {metric.groups} alone" if metric and single else ""
    lines = [
        f"{', '.join(measured.corpora)}, test set",
        f"{seeds_run(measured)} (small points), 95% intervals{over}",
    ]
    if (chance := mean_chance(measured)) is not None:
        lines.append(f"dashed: chance, {chance:.1f}%")
    return "\n".join(textwrap.fill(line, letters) for line in lines)


LABEL_LETTERS = 30

Below = tuple[float, Callable[[FigureBase, Measured], None]]
"""A panel beneath: its height in inches, and what fills it."""


def draw_rows(measured: Measured, title: str, below: Below | None = None) -> Figure:
    """The rows that were run, the paper's numbers to their right where there are any, `below` beneath both.

    Raises:
        LabError: the ablation declares no column that is counted from single answers.
    """
    column = score_column(measured)
    scores = row_scores(measured)
    height = max(_rows_height(scores), reported_height(measured.ablation, column))
    further = below[0] if below else 0.0
    figure = Figure(figsize=(WIDTH, 0.9 + height + further), layout="constrained")
    top: FigureBase = figure
    if below:
        parts = figure.subfigures(2, 1, height_ratios=(height, further), squeeze=False)
        top, beneath = parts[:, 0]
    widths = (1.9, 1.0) if stars(measured.ablation, column) else (1.0,)
    panels = top.subfigures(1, len(widths), width_ratios=widths, squeeze=False)[0]
    draw_scores(panels[0].subplots(), scores, measured)
    panels[0].suptitle(panel_title(measured), x=0.02, ha="left", fontsize="medium")
    for panel in panels[1:]:
        draw_reported(panel, measured.ablation, column)
    if below:
        below[1](beneath, measured)
    write_heading(figure, measured, title)
    write_footnote(figure, measured)
    return figure


def _rows_height(scores: list[RowScore]) -> float:
    lines = sum(len(textwrap.wrap(score.label, LABEL_LETTERS)) for score in scores)
    return 1.3 + 0.15 * lines + 0.2 * len(scores)


def draw_scores(axes: Axes, scores: list[RowScore], measured: Measured) -> None:
    """One line a row from the top: the mean with its interval, and the single seeds beneath it; yardsticks in grey."""
    column = score_column(measured)
    chance = mean_chance(measured)
    heights = range(len(scores), 0, -1)
    if chance is not None:
        axes.axvline(chance, color=GREY, linestyle=(0, (4, 3)), linewidth=1.0, zorder=1)
    for score, height in zip(scores, heights, strict=True):
        look = STYLES[0]
        colour = GREY if score.is_yardstick else look.colour
        below, above = score.reach
        axes.errorbar(
            score.mean,
            height,
            xerr=[[below], [above]],
            color=colour,
            marker="s" if score.is_yardstick else look.marker,
            elinewidth=1.4,
            linestyle="none",
        )
        draw_seeds(axes, score.seeds, [height - 0.27] * len(score.seeds), colour)
    axes.set_yticks(heights, [textwrap.fill(score.label, LABEL_LETTERS) for score in scores])
    axes.set_ylim(0.4, len(scores) + 0.6)
    axes.set_xlim(*(min(max(end, -1.0), 101.0) for end in axes.get_xlim()))
    axes.grid(False)
    axes.grid(axis="x")
    axes.set_xlabel(f"{column.label} ({column.unit})")


def write_footnote(figure: Figure, measured: Measured) -> None:
    """What is to be said of the paper's numbers, at the foot."""
    text = footnote(measured.ablation, score_column(measured))
    figure.supxlabel(textwrap.fill(text, HEADING_LETTERS + 12), x=0.01, ha="left", fontsize="small")
