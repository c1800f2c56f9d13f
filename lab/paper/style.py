"""The one style of the figures: legible in grey and for the colour-blind, and the same file from the same numbers.

Boxes and arrows for those that show how something is built.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, findSystemFonts, fontManager, get_font
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.text import Text

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


FONT = "DejaVu Sans"  # comes with matplotlib: the same letters on every machine
OTHER_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei"),
    *("PingFang SC", "Hiragino Sans GB", "Heiti SC", "Microsoft YaHei", "SimHei", "Arial Unicode MS"),
)
"""Families with Chinese and more, of Linux, macOS and Windows: taken is the first on a machine that has the letters."""

# Any: matplotlib's stubs list every key as a literal of their own.
RC_PARAMS: Any = {
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "font.family": [FONT],
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


@contextmanager
def with_all_letters(figure: Figure) -> Iterator[None]:
    """Show or write the figure in here: letters that its font lacks come from another one that this machine has.

    Only texts with such letters change, so that any other figure has the same bytes on every machine. Letters that no
    font has are named in one warning, and are empty boxes.
    """
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_ticklabels()  # makes those there are to be
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    lacking = {letter for text in texts for letter in text.get_text() if letter.isprintable()} - _letters(FONT)
    found, boxes = _fonts_with(lacking) if lacking else ([], set())
    for text in texts:
        if found and not lacking.isdisjoint(text.get_text()):
            text.set_fontfamily([*text.get_fontfamily(), *found])
    if boxes:
        warnings.warn(
            f"no font for {' '.join(sorted(boxes))}: empty boxes stand for them in the figure; install a font that has "
            f"them, for Chinese one of {', '.join(OTHER_FONTS)} (Debian, Ubuntu: apt install fonts-noto-cjk)",
            stacklevel=3,
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")  # said above, once for all of them
        yield


def _letters(family: str) -> set[str]:
    return set(map(chr, get_font(findfont(family)).get_charmap()))


def _fonts_with(letters: set[str]) -> tuple[list[str], set[str]]:
    """Families of this machine that have the letters between them, and the letters that none has."""
    for path in {*findSystemFonts()} - {font.fname for font in fontManager.ttflist}:
        with suppress(OSError, RuntimeError):  # matplotlib keeps its list for ever, so one that came later is not in it
            fontManager.addfont(path)
    found, there = [], {font.name for font in fontManager.ttflist}
    for family in OTHER_FONTS:
        if family in there and (has := letters & _letters(family)):
            found.append(family)
            letters = letters - has
    return found, letters


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
        with whole(path) as unfinished, with_all_letters(figure):
            figure.savefig(unfinished, format=ending, metadata=fields)
        written.append(path)
    return written


SMALL, NORMAL = 7.0, 8.0
LINE_INCHES = 0.145
# Pale tints of `STYLES`: black words stay legible on each, and in grey they differ in lightness.
TINTS = {"input": "#F2F2F2", "encoder": "#CFE3F1", "projector": "#FBE3B8", "language_model": "#BFE3D6"}

Place = tuple[float, float]
"""In inches from the lower left corner of a figure, so that a box is as large as its words need."""


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure whose axes count inches."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.axis("off")
    return figure, axes


def box(axes: Axes, place: Place, size: Place, lines: Sequence[str], tint: str, *, num_bold: int = 1) -> None:
    """A box with its lower left corner at `place`; the first lines are bold, all are centred."""
    (x, y), (width, height) = place, size
    shape = "round,pad=0,rounding_size=0.06"
    axes.add_patch(FancyBboxPatch((x, y), width, height, shape, facecolor=tint, edgecolor=GREY, linewidth=0.8))
    top = y + height / 2 + LINE_INCHES * (len(lines) - 1) / 2
    for number, line in enumerate(lines):
        axes.text(
            x + width / 2,
            top - number * LINE_INCHES,
            line,
            ha="center",
            va="center",
            fontsize=NORMAL if number < num_bold else SMALL,
            fontweight="bold" if number < num_bold else "normal",
        )


def arrow(axes: Axes, *places: Place, label: str = "") -> None:
    """A line through all places with its head at the last; the label stands right of its last stretch."""
    for start, end in pairwise(places[:-1]):
        axes.plot(*zip(start, end, strict=True), color=GREY, linewidth=1.0, solid_capstyle="round")
    axes.add_patch(
        FancyArrowPatch(
            places[-2], places[-1], arrowstyle="-|>", mutation_scale=9, shrinkA=0, shrinkB=0, color=GREY, linewidth=1.0
        )
    )
    if label:
        (x, y), (x_end, y_end) = places[-2:]
        axes.text((x + x_end) / 2 + 0.06, (y + y_end) / 2, label, ha="left", va="center", fontsize=SMALL)


def rounded(count: int) -> str:
    """A number of parameters as people say it: 7.62 B, 413 M, 19.7 M, 5.12 k."""
    size, letter = next(((s, letter) for s, letter in ((1e9, "B"), (1e6, "M")) if count >= s), (1e3, "k"))
    return f"{count / size:.3g} {letter}"


def product(shape: Sequence[int]) -> str:
    """As in 27 × 27 × 1,152."""
    return " × ".join(f"{size:,}" for size in shape)
