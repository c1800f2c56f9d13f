"""Charts drawn by matplotlib without a display, the same pixels for the same chart and matplotlib (section 3).

Sizes are in pixels; a chart is drawn at 100 pixels an inch.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from standins.pages.chart_tables import NUM_LEVELS, Chart
from standins.pages.fonts import TYPEFACES, ink_width, sized_font

DPI = 100
TEXT_POINTS = 8.5
_DIGIT_PIXELS = 9
_TYPEFACE = {"en": "dejavu_sans", "zh": "micro_hei"}
# Okabe and Ito's, told apart by everybody; black is the ink's.
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999")
_MARKERS = ("o", "s", "^")


def render_chart(chart: Chart) -> UInt8[ndarray, "height width 3"]:
    """Draw a chart; whatever the user's matplotlib is set to, and without a window or a global figure.

    Raises:
        LabError: the typeface of its language cannot be had.
    """
    # Importing matplotlib takes a second, which who only asks questions need not wait for.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings = {name: value for name, value in matplotlib.rcParamsDefault.items() if "backend" not in name}
    with matplotlib.rc_context():
        matplotlib.rcParams.update({**settings, "font.size": TEXT_POINTS, "axes.axisbelow": True})
        figure = Figure(figsize=(chart.width / DPI, chart.height / DPI), dpi=DPI)
        figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)  # inches
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _DRAW[chart.kind](axes, chart)
        if chart.kind != "scatter":
            figure.suptitle(chart.measure + " (%)" * (chart.kind == "pie"), fontproperties=_font(chart, 1.2))
        if len(chart.series) > 1 and chart.kind != "scatter":
            figure.legend(loc="outside lower center", ncols=len(chart.series), prop=_font(chart), frameon=False)
        for text in [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label]:
            text.set_fontproperties(_font(chart))
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


@cache
def _font_of(language: str, points: float) -> Any:
    from matplotlib.font_manager import FontProperties

    return FontProperties(fname=str(TYPEFACES[_TYPEFACE[language]].path()), size=points)


def _font(chart: Chart, scale: float = 1.0) -> Any:
    return _font_of(chart.settings.language, TEXT_POINTS * scale)


def _colour(chart: Chart, place: int) -> str:
    return _COLOURS[(chart.first_colour + place) % len(_COLOURS)]


def _value_axis(axes: Any, chart: Chart, top: int) -> None:
    """A line every step, or every second one where they would be too many to number; room for a printed number."""
    step = chart.step if top <= NUM_LEVELS * chart.step else 2 * chart.step * -(-top // (2 * NUM_LEVELS * chart.step))
    axes.set_ylim(0, top + 0.6 * step)
    axes.set_yticks(np.arange(0, top + 1, step))
    axes.grid(axis="y", color="#DDDDDD")
    axes.spines[["top", "right"]].set_visible(False)


def _category_axis(axes: Any, chart: Chart) -> None:
    """Names under their places, turned where the widest does not fit."""
    axes.set_xticks(range(len(chart.categories)), chart.categories)
    font = sized_font(_TYPEFACE[chart.settings.language], _DIGIT_PIXELS + 3 * (chart.settings.language == "zh"))
    room = 0.82 * chart.width / len(chart.categories)
    if max(ink_width(font, name) for name in chart.categories) + 6 > room:
        for text in axes.get_xticklabels():
            text.set(rotation=35, ha="right", rotation_mode="anchor")


def _bars(axes: Any, chart: Chart) -> None:
    places, count = np.arange(len(chart.categories)), len(chart.series)
    width = 0.8 / count
    for number, (name, row) in enumerate(zip(chart.series, chart.values, strict=True)):
        lefts = places + (number - (count - 1) / 2) * width
        bars = axes.bar(lefts, row, width * 0.94, color=_colour(chart, number), label=name, edgecolor="black", lw=0.5)
        if chart.printed:
            axes.bar_label(bars, padding=1, fontproperties=_font(chart))
    _value_axis(axes, chart, NUM_LEVELS * chart.step)
    _category_axis(axes, chart)


def _stacked_bars(axes: Any, chart: Chart) -> None:
    under = np.zeros(len(chart.categories), dtype=int)
    for number, (name, row) in enumerate(zip(chart.series, chart.values, strict=True)):
        colour = _colour(chart, number)
        bars = axes.bar(range(len(row)), row, 0.7, bottom=under, color=colour, label=name, edgecolor="black", lw=0.5)
        white = colour in ("#0072B2", "#009E73", "#D55E00")
        axes.bar_label(bars, label_type="center", color="white" if white else "black", fontproperties=_font(chart))
        under = under + np.array(row)
    _value_axis(axes, chart, int(under.max()))
    _category_axis(axes, chart)


def _lines(axes: Any, chart: Chart) -> None:
    for number, (name, row) in enumerate(zip(chart.series, chart.values, strict=True)):
        style = {"marker": _MARKERS[number], "color": _colour(chart, number), "markeredgecolor": "black"}
        axes.plot(range(len(row)), row, label=name, lw=2, markersize=6, markeredgewidth=0.5, clip_on=False, **style)
        for place, value in enumerate(row if chart.printed else ()):
            # Above a peak and below a valley: elsewhere the line runs through the number.
            around = [row[k] for k in (place - 1, place + 1) if 0 <= k < len(row)]
            below = sum(around) > value * len(around)
            axes.annotate(
                str(value),
                (place, value),
                xytext=(0, -6 if below else 6),
                textcoords="offset points",
                ha="center",
                va="top" if below else "bottom",
                fontproperties=_font(chart),
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
            )
    _value_axis(axes, chart, NUM_LEVELS * chart.step)
    _category_axis(axes, chart)
    axes.set_xlim(-0.4, len(chart.categories) - 0.6)  # the first and last number stand clear of the axis


def _slices(axes: Any, chart: Chart) -> None:
    (row,) = chart.values
    colours = [_colour(chart, place) for place in range(len(row))]
    numbers = iter(row)
    wedges = axes.pie(
        row,
        labels=chart.categories,
        colors=colours,
        autopct=lambda share: str(next(numbers)),
        pctdistance=0.72,
        labeldistance=1.08,
        startangle=90,
        counterclock=False,
        wedgeprops={"edgecolor": "white"},
        textprops={"fontproperties": _font(chart)},
    )
    for colour, text in zip(colours, wedges[2], strict=True):
        text.set_color("white" if colour in ("#0072B2", "#009E73", "#D55E00") else "black")


def _points(axes: Any, chart: Chart) -> None:
    across, up = chart.values
    axes.scatter(across, up, s=36, color=_colour(chart, 0), edgecolors="black", linewidths=0.5, zorder=3)
    for name, x, y in zip(chart.categories, across, up, strict=True):
        left = x > NUM_LEVELS * chart.step / 2  # the name stands on the side with more room
        axes.annotate(
            name,
            (x, y),
            xytext=(-6 if left else 6, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontproperties=_font(chart),
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
    _value_axis(axes, chart, NUM_LEVELS * chart.step)
    axes.set_xlim(0, (NUM_LEVELS + 0.6) * chart.step)
    lines = np.arange(0, NUM_LEVELS * chart.step + 1, chart.step)
    # Numbers of three digits and more would touch: every second line has one.
    axes.set_xticks(lines, [str(x) if chart.step < 20 or k % 2 == 0 else "" for k, x in enumerate(lines)])
    axes.grid(axis="x", color="#DDDDDD")
    axes.set_xlabel(chart.series[0])
    axes.set_ylabel(chart.series[1])


_DRAW: Mapping[str, Callable[[Any, Chart], None]] = {
    "bar": _bars,
    "grouped_bar": _bars,
    "stacked_bar": _stacked_bars,
    "line": _lines,
    "pie": _slices,
    "scatter": _points,
}
