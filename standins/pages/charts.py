"""Charts of random tables, of which questions have one answer: for the paper's synthetic chart data (section 3).

Axes: `series` (one colour each), `categories` (places along the axis, slices, named points). A value that is not
printed on the chart lies on a line of its grid, so that it can be read off; every chart has at least four categories.
matplotlib draws them without a display, the same pixels for the same chart and matplotlib. Sizes are in pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from lab.data.splits import Split
from lab.errors import choose
from standins.drawn import generator
from standins.pages.fonts import TYPEFACES, ink_width, sized_font
from standins.pages.page_values import draw_values

_DPI = 100
_TEXT_POINTS = 8.5
_DIGIT_PIXELS = 9
_TYPEFACE = "dejavu_sans"
# Okabe and Ito's, told apart by everybody; black is the ink's.
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999")
_MARKERS = ("o", "s", "^")
WIDTH, HEIGHT = (384, 512), (320, 416)
"""Of a chart, drawn uniformly, ends included."""
NUM_LEVELS = 10
_STEPS = (1, 2, 5, 10, 20, 50, 100)
_MEASURES = ("Visitors", "Sales", "Orders", "Points", "Tickets", "Books", "Calls", "Letters")


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Everything that `render_chart` draws.

    `values[series][category]`; of a scatter plot the two series are the coordinates x and y of the named points. The
    value axis has a line every `step`; `printed` says whether the values stand on the chart.
    """

    seed: int
    index: int
    split: Split
    kind: str
    width: int
    height: int
    measure: str
    categories: tuple[str, ...]
    series: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    step: int
    printed: bool
    first_colour: int

    @property
    def id(self) -> str:
        """Name the chart; two charts of one name are the same chart."""
        return f"chart-{self.kind}-{self.split}-{self.seed}-{self.index}"


@dataclass(frozen=True)
class _Table:
    series: tuple[str, ...]
    categories: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    printed: bool


def make_chart(kinds: Sequence[str], *, seed: int, index: int, split: Split) -> Chart:
    """Draw the chart of that number, of which there are endlessly many; the same arguments give the same chart.

    The kinds take turns, so that every one is as frequent as the others. Inside a series no value comes twice.
    """
    rng = chart_generator(seed, index, split)
    kind = kinds[index % len(kinds)]
    draw = choose(CHART_TABLES, kind, "kind of chart")
    step = _STEPS[int(rng.integers(len(_STEPS)))] if kind != "pie" else 5  # percent
    first, second = (_MEASURES[i] for i in rng.permutation(len(_MEASURES))[:2])
    table = draw(rng, step)
    width, height = (int(rng.integers(low, high + 1)) for low, high in (WIDTH, HEIGHT))
    return Chart(
        seed=seed,
        index=index,
        split=split,
        kind=kind,
        width=width,
        height=height,
        measure=first,
        categories=table.categories,
        series=(first, second) if kind == "scatter" else table.series,
        values=table.values,
        step=step,
        printed=table.printed,
        first_colour=int(rng.integers(8)),
    )


chart_generator = partial(generator, first=tuple(b"chart"))


def _names(rng: np.random.Generator, count: int, apart_from: tuple[str, ...] = ()) -> tuple[str, ...]:
    drawn = draw_values("word", rng, count=count, split=None, apart_from=apart_from)
    return tuple(name.capitalize() for name in drawn)


def _distinct(
    rng: np.random.Generator, num_series: int, num_categories: int, *, step: int, printed: bool
) -> tuple[tuple[int, ...], ...]:
    """Values without ties in a series or in a category: any whole numbers if printed, else multiples of the step."""
    spacing = 1 if printed else step
    levels = np.arange(step, NUM_LEVELS * step + 1, spacing)
    while True:
        table = np.stack([rng.permutation(levels)[:num_categories] for _ in range(num_series)])
        if all(len(set(column)) == num_series for column in table.T.tolist()):
            return tuple(tuple(row) for row in table.tolist())


def _bar(rng: np.random.Generator, step: int) -> _Table:
    count, printed = int(rng.integers(4, 8)), bool(rng.integers(2))
    return _Table(("",), _names(rng, count), _distinct(rng, 1, count, step=step, printed=printed), printed)


def _grouped_bar(rng: np.random.Generator, step: int) -> _Table:
    num_series, count = int(rng.integers(2, 4)), int(rng.integers(4, 6))
    series = _names(rng, num_series)
    categories = _names(rng, count, tuple(name.lower() for name in series))
    return _Table(series, categories, _distinct(rng, num_series, count, step=step, printed=False), False)


def _stacked_bar(rng: np.random.Generator, step: int) -> _Table:
    """Always printed, because the upper part of a stack begins on no line; no part is too low for its number."""
    num_series, count = int(rng.integers(2, 4)), int(rng.integers(4, 6))
    series = _names(rng, num_series)
    categories = _names(rng, count, tuple(name.lower() for name in series))
    low = 3 * step
    while True:
        values = np.stack([low + rng.permutation(max(7 * step, count))[:count] for _ in range(num_series)])
        if len(set(values.sum(0).tolist())) == count:
            return _Table(series, categories, tuple(tuple(row) for row in values.tolist()), True)


def _line(rng: np.random.Generator, step: int) -> _Table:
    """Years along the axis; of several lines the values are not printed, because they would meet."""
    num_series, count = int(rng.integers(1, 4)), int(rng.integers(4, 8))
    printed = num_series == 1 and bool(rng.integers(2))
    first = int(rng.integers(1950, 2020))
    series = ("",) if num_series == 1 else _names(rng, num_series)
    years = tuple(str(first + k) for k in range(count))
    return _Table(series, years, _distinct(rng, num_series, count, step=step, printed=printed), printed)


def _pie(rng: np.random.Generator, step: int) -> _Table:
    """Printed shares that add up to 100, each at least 6: a slice has to hold its number."""
    count = int(rng.integers(4, 7))
    while True:
        cuts = np.sort(rng.choice(np.arange(1, 100), count - 1, replace=False))
        shares = np.diff(np.concatenate([[0], cuts, [100]])).tolist()
        if min(shares) >= 6 and len(set(shares)) == count:
            return _Table(("",), _names(rng, count), (tuple(shares),), True)


def _scatter(rng: np.random.Generator, step: int) -> _Table:
    """No two points in a row or column of the grid, so that their names stand apart."""
    count = int(rng.integers(4, 8))
    values = _distinct(rng, 2, count, step=step, printed=False)
    return _Table(("", ""), _names(rng, count), values, False)


CHART_TABLES: Mapping[str, Callable[[np.random.Generator, int], _Table]] = {
    "bar": _bar,
    "grouped_bar": _grouped_bar,
    "stacked_bar": _stacked_bar,
    "line": _line,
    "pie": _pie,
    "scatter": _scatter,
}


def render_chart(chart: Chart) -> UInt8[ndarray, "height width 3"]:
    """Draw a chart; whatever the user's matplotlib is set to, and without a window or a global figure."""
    # Importing matplotlib takes a second, which who only asks questions need not wait for.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings = {name: value for name, value in matplotlib.rcParamsDefault.items() if "backend" not in name}
    with matplotlib.rc_context():
        matplotlib.rcParams.update({**settings, "font.size": _TEXT_POINTS, "axes.axisbelow": True})
        figure = Figure(figsize=(chart.width / _DPI, chart.height / _DPI), dpi=_DPI)
        figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)  # inches
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _DRAW[chart.kind](axes, chart)
        if chart.kind != "scatter":
            figure.suptitle(chart.measure + " (%)" * (chart.kind == "pie"), fontproperties=_font(1.2))
        if len(chart.series) > 1 and chart.kind != "scatter":
            figure.legend(loc="outside lower center", ncols=len(chart.series), prop=_font(), frameon=False)
        for text in [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label]:
            text.set_fontproperties(_font())
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


@cache
def _font(scale: float = 1.0) -> Any:
    from matplotlib.font_manager import FontProperties

    return FontProperties(fname=str(TYPEFACES[_TYPEFACE].path()), size=_TEXT_POINTS * scale)


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
    font = sized_font(_TYPEFACE, _DIGIT_PIXELS)
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
            axes.bar_label(bars, padding=1, fontproperties=_font())
    _value_axis(axes, chart, NUM_LEVELS * chart.step)
    _category_axis(axes, chart)


def _stacked_bars(axes: Any, chart: Chart) -> None:
    under = np.zeros(len(chart.categories), dtype=int)
    for number, (name, row) in enumerate(zip(chart.series, chart.values, strict=True)):
        colour = _colour(chart, number)
        bars = axes.bar(range(len(row)), row, 0.7, bottom=under, color=colour, label=name, edgecolor="black", lw=0.5)
        white = colour in ("#0072B2", "#009E73", "#D55E00")
        axes.bar_label(bars, label_type="center", color="white" if white else "black", fontproperties=_font())
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
                fontproperties=_font(),
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
        textprops={"fontproperties": _font()},
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
            fontproperties=_font(),
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
