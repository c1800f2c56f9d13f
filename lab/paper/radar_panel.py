"""A radar chart: an axis a spoke from the top, clockwise; a curve a model, broken where it has no value."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lab.paper.style import GREY, Look

if TYPE_CHECKING:
    from matplotlib.projections.polar import PolarAxes

RINGS = (0.25, 0.5, 0.75, 1.0)
LABELLED = (0.25, 0.75)
_DIAGONALS = np.pi / 4 + np.pi / 2 * np.arange(4)
_LABELS_AT = 1.07
_SHADES = ("#FFFFFF", "#F0F0F0", "#E4E4E4")


def shade(axes: "PolarAxes", groups: Sequence[str], labels_at: float) -> None:
    """Tell runs of neighbouring axes apart by a shade of grey, with their names outside; `groups` has one an axis."""
    width = 2 * np.pi / len(groups)
    for at, name in enumerate(dict.fromkeys(groups)):
        mine = [index for index, group in enumerate(groups) if group == name]
        middle = width * (mine[0] + mine[-1]) / 2
        axes.bar(middle, 1, width=width * len(mine), color=_SHADES[at % len(_SHADES)], zorder=0)
        corner = _DIAGONALS[np.argmin(np.abs(_DIAGONALS - middle))]  # where labels of axes leave room
        axes.text(corner, labels_at, name, ha="center", va="center", color=GREY, fontweight="bold")


def spokes(count: int) -> np.ndarray:
    """The angles of the axes, in radians."""
    angles: np.ndarray = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return angles


def draw_radar(
    axes: "PolarAxes",
    labels: Sequence[str],
    curves: Mapping[str, Sequence[float | None]],
    looks: Mapping[str, Look],
    rings_at: int = 0,
) -> None:
    """Draw curves of values from 0 to 1, one a label; None is a gap.

    Args:
        rings_at: the rings are labelled between this axis and the next, where no curve should be.
    """
    angles = spokes(len(labels))
    axes.set_theta_zero_location("N")
    axes.set_theta_direction(-1)
    axes.set_ylim(0, 1)
    axes.set_yticks(RINGS, [f"{ring:g}" if ring in LABELLED else "" for ring in RINGS], fontsize="x-small", color=GREY)
    axes.set_rlabel_position(np.degrees(angles[rings_at : rings_at + 2].mean()))
    axes.set_xticks(angles, [""] * len(labels))
    axes.grid(True, axis="both", color="#DDDDDD")
    axes.spines["polar"].set_color("#BBBBBB")
    for model, values in curves.items():
        look = looks[model]
        closed = [np.nan if value is None else value for value in (*values, values[0])]
        axes.plot(
            [*angles, angles[0]],
            closed,
            label=model,
            color=look.colour,
            marker=look.marker,
            linestyle=look.line,
            markersize=4.5,
            clip_on=False,
            zorder=3,
        )
    for angle, label in zip(angles, labels, strict=True):
        side = np.sin(angle)
        axes.text(
            angle,
            _LABELS_AT,
            label,
            ha="center" if abs(side) < 0.1 else "left" if side > 0 else "right",
            va="bottom" if np.cos(angle) > 0.9 else "top" if np.cos(angle) < -0.9 else "center",
            fontsize="small",
        )
