"""Studies of the whole model as figures: a panel a test, by row, or stage after stage.

Scores are in the units of the table.
"""

from collections.abc import Callable
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.paper.measured import Measured
from lab.paper.row_figure import DASHES, draw_scores, mean_chance, row_scores, write_footnote, write_heading
from lab.paper.style import GREY, WIDTH, draw_seeds, style_of
from lab.study.ablation import Column
from lab.training.stages import PAPER_STAGES

_ACROSS = 2


def draw_tests(measured: Measured, title: str) -> Figure:
    """The rows that were run, test by test; the line is what guessing gives."""

    def draw(axes: Axes, column: Column, first: bool) -> None:
        draw_scores(axes, row_scores(measured, column), mean_chance(measured, column))
        if not first:
            axes.set_yticklabels([])

    return _panels(measured, title, draw, height=0.8 + 0.42 * measured.results["row"].nunique())


def draw_stages(measured: Measured, title: str) -> Figure:
    """The score of each row after each stage, of the items that are asked between stages; dashed is chance."""

    def draw(axes: Axes, column: Column, first: bool) -> None:
        stages = [name for name in PAPER_STAGES if f"after_{name}_{column.metric}" in measured.results]
        for at, row in enumerate(row for row in measured.ablation.rows if measured.seeds(row.key)):
            look = style_of(at)
            values = [measured.values(row.key, f"after_{name}_{column.metric}", column.scale) for name in stages]
            drawn: Any = {"color": look.colour, "marker": look.marker, "linestyle": look.line, "label": row.label}
            axes.plot(range(len(stages)), [fmean(own) for own in values], **drawn)
            for place, own in enumerate(values):
                draw_seeds(axes, [place] * len(own), own, look.colour)
        if (chance := mean_chance(measured, column)) is not None:
            axes.axhline(chance, color=GREY, linewidth=1.0, linestyle=DASHES)
        axes.set_xticks(np.arange(len(stages)), [name.replace("_", " ") for name in stages], rotation=30, ha="right")
        axes.set_ylabel(column.unit, fontsize="small")
        axes.set_ylim(0, 1.08 * axes.get_ylim()[1])

    asked = measured.ablation.resolve(measured.ablation.rows[0].key, measured.rung).as_dict()["num_between"]
    figure = _panels(measured, f"{title}: the first {asked} items of each test", draw, height=2.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower right", ncols=2, fontsize="small")
    return figure


def _panels(measured: Measured, title: str, draw: Callable[[Axes, Column, bool], None], *, height: float) -> Figure:
    shown = [column for column in measured.ablation.columns if column.test]
    down = -(-len(shown) // _ACROSS)
    figure = Figure(figsize=(WIDTH, 1.1 + down * height), layout="constrained")
    panels = figure.subplots(down, _ACROSS, squeeze=False)
    for at, axes in enumerate(panels.flat):
        if at < len(shown):
            draw(axes, shown[at], at % _ACROSS == 0)
            axes.set_title(f"{shown[at].label}\n({shown[at].better} is better)", fontsize="medium")
        else:
            axes.set_visible(False)
    write_heading(figure, measured, title)
    write_footnote(figure, measured)
    return figure
