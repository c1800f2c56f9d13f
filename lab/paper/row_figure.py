"""A study of rows as a figure: a line a row with its seeds and interval, chance dashed, the paper's numbers apart."""

import textwrap
from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from lab.paper.figure_frame import HEADING_LETTERS, WIDTH, write_heading
from lab.paper.measured import Measured
from lab.paper.reported_panel import draw_reported, footnote, reported_height, stars
from lab.paper.row_scores import RowScore, mean_chance, panel_title, row_scores, score_column
from lab.paper.style import GREY, LOOKS, draw_seeds

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
        look = LOOKS[0]
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
