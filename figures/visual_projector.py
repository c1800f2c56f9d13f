"""The report's visual projectors: accuracy against the visual tokens that a question costs."""

import textwrap
from statistics import fmean
from typing import TYPE_CHECKING

from lab.paper.measured import Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COST = "visual_tokens_per_question"
LABEL_LETTERS = 22


def draw(measured: Measured) -> "Figure":
    """A point a projector."""
    from matplotlib.figure import Figure

    from lab.paper import row_figure
    from lab.paper.style import GREY, WIDTH, style_of

    figure = Figure(figsize=(WIDTH, 4.8), layout="constrained")
    axes = figure.subplots()
    labels = {row.key: textwrap.fill(row.label, LABEL_LETTERS) for row in measured.ablation.rows}
    looks = {label: style_of(at) for at, label in enumerate(labels.values())}
    points = {
        labels[score.key]: {fmean(measured.values(score.key, COST)): score} for score in row_figure.row_scores(measured)
    }
    row_figure.draw_against(axes, points, looks)
    if (chance := row_figure.mean_chance(measured)) is not None:
        axes.axhline(chance, color=GREY, linestyle=row_figure.DASHES, linewidth=1.0, zorder=1)
    column = row_figure.score_column(measured)
    axes.set(xlabel="visual tokens a question", ylabel=f"{column.label} ({column.unit})")
    axes.set_title(row_figure.panel_title(measured))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize="small")
    row_figure.write_heading(figure, measured, "What a language model answers of pictures, by the visual projector")
    row_figure.write_footnote(figure, measured)
    return figure
