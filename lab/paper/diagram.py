"""Boxes and arrows for the figures that show how something is built, in the style of `lab.paper.style`.

Places are in inches from the lower left corner of the figure, so that a box is as large as its words need.
"""

from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from lab.paper.style import GREY

SMALL, NORMAL = 7.0, 8.0
LINE_INCHES = 0.145
# Pale tints of `STYLES`: black words stay legible on each, and in grey they differ in lightness.
TINTS = {"input": "#F2F2F2", "encoder": "#CFE3F1", "projector": "#FBE3B8", "language_model": "#BFE3D6"}

Place = tuple[float, float]


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
