"""The one style of the figures: legible in grey and for the colour-blind, and the same file from the same numbers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.paths import whole


@dataclass(frozen=True, kw_only=True)
class SeriesStyle:
    """How one series is drawn: each of colour, marker and line tells it apart by itself."""

    colour: str
    marker: str
    line: str | tuple[int, tuple[float, ...]]


# Okabe and Ito's palette (2008) without yellow, which vanishes on white; neighbours differ in lightness too.
STYLES = (
    SeriesStyle(colour="#0072B2", marker="o", line="-"),
    SeriesStyle(colour="#E69F00", marker="s", line=(0, (5, 2))),
    SeriesStyle(colour="#009E73", marker="^", line=(0, (1, 1.2))),
    SeriesStyle(colour="#D55E00", marker="D", line=(0, (5, 1.5, 1, 1.5))),
    SeriesStyle(colour="#56B4E9", marker="v", line=(0, (8, 2))),
    SeriesStyle(colour="#CC79A7", marker="P", line=(0, (3, 1, 1, 1, 1, 1))),
    SeriesStyle(colour="#000000", marker="X", line=(0, (2, 3))),
)
GREY = "#555555"
WIDTH = 8.6  # of a figure, in inches


def style_of(at: int) -> SeriesStyle:
    """That of the series at a place: after the last of `STYLES`, colours return with other markers and lines."""
    turn, place = divmod(at, len(STYLES))
    other = STYLES[(place + turn) % len(STYLES)]
    return replace(STYLES[place], marker=other.marker, line=other.line)


# Any: matplotlib's stubs list every key as a literal of their own.
RC_PARAMS: Any = {
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same letters on every machine
    "axes.titlesize": "medium",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#DDDDDD",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 6.0,
    "errorbar.capsize": 3.0,
    "svg.hashsalt": "omni-lab",  # else the ids within an SVG are drawn at random
    "svg.fonttype": "none",  # text that can be searched and read aloud
}


@contextmanager
def paper_style() -> Iterator[None]:
    """Draw in the style of the project for as long as the context lasts."""
    with sns.plotting_context("paper", font_scale=1.1), sns.axes_style("ticks"), mpl.rc_context(RC_PARAMS):
        yield


def draw_seeds(axes: Axes, xs: Sequence[float], ys: Sequence[float], colour: str) -> None:
    """Single seeds as small points."""
    edge: Any = {"markeredgewidth": 0.4, "markeredgecolor": "white"}
    axes.plot(xs, ys, color=colour, marker="o", markersize=3.0, zorder=4, linestyle="none", **edge)


def save(figure: Figure, stem: Path, metadata: Mapping[str, str]) -> list[Path]:
    """Write `stem`.svg and `stem`.png; neither holds a date, so the same numbers give the same bytes.

    `metadata` (`Title`, `Description`) becomes SVG metadata and PNG text chunks.
    """
    own = {"svg": {**metadata, "Date": None, "Creator": "omni-lab"}, "png": {**metadata, "Software": "omni-lab"}}
    written = []
    for ending, fields in own.items():
        path = stem.with_name(f"{stem.name}.{ending}")
        with whole(path) as unfinished:
            figure.savefig(unfinished, format=ending, metadata=fields)
        written.append(path)
    return written
