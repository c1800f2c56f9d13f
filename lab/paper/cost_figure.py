"""Accuracy against what it costs, on a logarithmic axis: a point a row, with its interval and its name beside it."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.paper.figure_frame import WIDTH, write_heading
from lab.paper.measured import Measured
from lab.paper.row_figure import RowScore, mean_chance, panel_title, row_scores, score_column, write_footnote
from lab.paper.style import GREY, draw_seeds, style_of

HEIGHT = 4.8
LABEL_LETTERS = 20
# Points whose costs differ by less stand side by side, as one group with one column of names.
ALIKE = 1.6
# Factors on the cost axis: from one point of a group to the next, from the last to the names, and room at either end.
DODGE, TO_NAMES, ROOM_LEFT, ROOM_RIGHT = 1.1, 1.12, 1.3, 2.6
# The height of one line of a name, as a share of the axis.
LINE_SHARE = 0.055


@dataclass(frozen=True, kw_only=True)
class CostPoint:
    """A row, its cost, and where it is drawn on the axis of costs."""

    score: RowScore
    cost: float
    at: float


def draw_cost(measured: Measured, title: str, *, cost: str, label: str) -> Figure:
    """Draw the rows that were run against the column `cost` of their results.

    Raises:
        LabError: the ablation declares no column that is counted from single answers; a row has no such cost.
    """
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.subplots()
    groups = cost_groups(measured, cost)
    looks = {row.key: style_of(at) for at, row in enumerate(measured.ablation.rows)}
    for point in (point for group in groups for point in group):
        own = looks[point.score.key]
        bars = [[end] for end in point.score.reach]
        axes.errorbar(point.at, point.score.mean, yerr=bars, color=own.colour, marker=own.marker, elinewidth=1.4)
        draw_seeds(axes, [point.at * DODGE**0.3] * len(point.score.seeds), point.score.seeds, own.colour)
    if (chance := mean_chance(measured)) is not None:
        axes.axhline(chance, color=GREY, linestyle=(0, (4, 3)), linewidth=1.0, zorder=1)
    costs = sorted({point.cost for group in groups for point in group})
    axes.set_xscale("log", base=2)
    axes.set_xticks(costs, [f"{value:.4g}" for value in costs])
    axes.minorticks_off()
    axes.set_xlim(groups[0][0].at / ROOM_LEFT, groups[-1][-1].at * ROOM_RIGHT)
    axes.set_ylim(*axes.get_ylim())  # the names must not move it
    for group in groups:
        _name(axes, group, {key: own.colour for key, own in looks.items()})
    column = score_column(measured)
    axes.set_xlabel(label)
    axes.set_ylabel(f"{column.label} ({column.unit})")
    axes.set_title(panel_title(measured))
    write_heading(figure, measured, title)
    write_footnote(figure, measured)
    return figure


def cost_groups(measured: Measured, cost: str) -> list[list[CostPoint]]:
    """The rows from the cheapest on, those of like cost in one group, side by side about their own costs."""
    costs = {row.key: fmean(found) for row in measured.ablation.rows if (found := measured.values(row.key, cost))}
    scores = sorted(row_scores(measured), key=lambda score: (costs[score.key], -score.mean))
    gathered: list[list[RowScore]] = []
    for score in scores:
        if gathered and costs[score.key] < ALIKE * costs[gathered[-1][0].key]:
            gathered[-1].append(score)
        else:
            gathered.append([score])
    return [
        [
            CostPoint(score=score, cost=costs[score.key], at=costs[score.key] * shift)
            for place, score in enumerate(group)
            for shift in (DODGE ** (place - (len(group) - 1) / 2),)
        ]
        for group in gathered
    ]


def _name(axes: Axes, group: Sequence[CostPoint], colours: dict[str, str]) -> None:
    low, high = axes.get_ylim()
    names = [textwrap.fill(point.score.label, LABEL_LETTERS) for point in group]
    sizes = [(name.count("\n") + 1.4) * LINE_SHARE * (high - low) for name in names]
    wanted = [point.score.mean for point in group]
    for point, name, height in zip(group, names, spread(wanted, sizes, low, high), strict=True):
        axes.annotate(
            name,
            (point.at, point.score.mean),
            xytext=(group[-1].at * TO_NAMES, height),
            va="center",
            fontsize="small",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            arrowprops={
                "arrowstyle": "-",
                "color": colours[point.score.key],
                "linewidth": 0.6,
                "shrinkB": 4,
                "relpos": (0, 0.5),
            },
        )


def spread(wanted: Sequence[float], sizes: Sequence[float], low: float, high: float) -> list[float]:
    """Middles as near to `wanted` as may be, so that things of those sizes do not overlap between `low` and `high`.

    Each is pushed down by what lies above it, then what went below `low` is pushed up. Three of size 2 that are wanted
    at 5, 5 and 0 stand at 5, 3 and 1. Where they do not all fit, they go beyond `high`.
    """
    order = sorted(range(len(wanted)), key=lambda at: -wanted[at])
    places = list(wanted)
    ceiling = high
    for at in order:
        places[at] = min(wanted[at], ceiling - sizes[at] / 2)
        ceiling = places[at] - sizes[at] / 2
    floor = low
    for at in reversed(order):
        places[at] = max(places[at], floor + sizes[at] / 2)
        floor = places[at] + sizes[at] / 2
    return places
