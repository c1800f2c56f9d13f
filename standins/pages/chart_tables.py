"""Random tables behind charts, of which questions have one answer: for the paper's synthetic chart data (section 3).

Axes: `series` (one colour each), `categories` (places along the axis, slices, named points). A value that is not
printed on the chart lies on a line of its grid, so that it can be read off; every chart has at least
four categories. Sizes are in pixels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from lab.data.splits import Split
from lab.errors import LabError, choose
from standins.drawn import generator, name_of
from standins.pages.page_values import draw_values

Range = tuple[int, int]

STEPS = (1, 2, 5, 10, 20, 50, 100)
NUM_LEVELS = 10
MEASURES: Mapping[str, tuple[str, ...]] = {
    "en": ("Visitors", "Sales", "Orders", "Points", "Tickets", "Books", "Calls", "Letters"),
    "zh": ("人数", "销量", "订单", "得分", "车票", "图书", "电话", "信件"),
}


@dataclass(frozen=True, kw_only=True)
class ChartSettings:
    """What charts look like; a range is drawn from uniformly, ends included. `kinds` are keys of `CHART_TABLES`.

    Raises:
        LabError: a range that is empty or outside what can be drawn, an unknown kind or language.
    """

    kinds: tuple[str, ...] = ("bar", "grouped_bar", "stacked_bar", "line", "pie", "scatter")
    width: Range = (384, 512)
    height: Range = (320, 416)
    language: str = "en"

    def __post_init__(self) -> None:
        for name, (low, high) in {"width": self.width, "height": self.height}.items():
            if not 320 <= low <= high <= 4096:
                raise LabError(f"{name} of a chart is ({low}, {high}), expected a range inside 320 to 4096 pixels")
        for kind in self.kinds or ("",):
            choose(CHART_TABLES, kind, "kind of chart")
        choose(MEASURES, self.language, "language of charts")


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Everything that `standins.pages.charts.render_chart` draws.

    `values[series][category]`; of a scatter plot the two series are the coordinates x and y of the named points. The
    value axis has a line every `step`; `printed` says whether the values stand on the chart.
    """

    settings: ChartSettings
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
        return f"chart-{name_of(self.settings, self.split, self.seed, self.index)}"


@dataclass(frozen=True)
class _Table:
    series: tuple[str, ...]
    categories: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    printed: bool


def make_chart(settings: ChartSettings, *, seed: int, index: int, split: Split) -> Chart:
    """Draw the chart of that number, of which there are endlessly many; the same arguments give the same chart.

    Kinds take turns, so that every one is as frequent as the others. Inside a series no value comes twice.

    Raises:
        LabError: a negative seed or index, or an unknown split.
    """
    rng = chart_generator(seed, index, split)
    kind = settings.kinds[index % len(settings.kinds)]
    step = STEPS[int(rng.integers(len(STEPS)))] if kind != "pie" else 5  # percent
    names = MEASURES[settings.language]
    first, second = (names[i] for i in rng.permutation(len(names))[:2])
    table = CHART_TABLES[kind](rng, step, settings.language)
    width, height = (int(rng.integers(low, high + 1)) for low, high in (settings.width, settings.height))
    return Chart(
        settings=settings,
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


chart_generator = partial(generator, what="chart", first=tuple(b"chart"))


def _names(rng: np.random.Generator, count: int, language: str, apart_from: tuple[str, ...] = ()) -> tuple[str, ...]:
    drawn = draw_values("word", rng, count=count, split=None, language=language, apart_from=apart_from)
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


def _bar(rng: np.random.Generator, step: int, language: str) -> _Table:
    count, printed = int(rng.integers(4, 8)), bool(rng.integers(2))
    return _Table(("",), _names(rng, count, language), _distinct(rng, 1, count, step=step, printed=printed), printed)


def _grouped_bar(rng: np.random.Generator, step: int, language: str) -> _Table:
    num_series, count = int(rng.integers(2, 4)), int(rng.integers(4, 6))
    series = _names(rng, num_series, language)
    categories = _names(rng, count, language, tuple(name.lower() for name in series))
    return _Table(series, categories, _distinct(rng, num_series, count, step=step, printed=False), False)


def _stacked_bar(rng: np.random.Generator, step: int, language: str) -> _Table:
    """Always printed, because the upper part of a stack begins on no line; no part is too low for its number."""
    num_series, count = int(rng.integers(2, 4)), int(rng.integers(4, 6))
    series = _names(rng, num_series, language)
    categories = _names(rng, count, language, tuple(name.lower() for name in series))
    low = 3 * step
    while True:
        values = np.stack([low + rng.permutation(max(7 * step, count))[:count] for _ in range(num_series)])
        if len(set(values.sum(0).tolist())) == count:
            return _Table(series, categories, tuple(tuple(row) for row in values.tolist()), True)


def _line(rng: np.random.Generator, step: int, language: str) -> _Table:
    """Years along the axis; of several lines the values are not printed, because they would meet."""
    num_series, count = int(rng.integers(1, 4)), int(rng.integers(4, 8))
    printed = num_series == 1 and bool(rng.integers(2))
    first = int(rng.integers(1950, 2020))
    series = ("",) if num_series == 1 else _names(rng, num_series, language)
    years = tuple(str(first + k) for k in range(count))
    return _Table(series, years, _distinct(rng, num_series, count, step=step, printed=printed), printed)


def _pie(rng: np.random.Generator, step: int, language: str) -> _Table:
    """Printed shares that add up to 100, each at least 6: a slice has to hold its number."""
    count = int(rng.integers(4, 7))
    while True:
        cuts = np.sort(rng.choice(np.arange(1, 100), count - 1, replace=False))
        shares = np.diff(np.concatenate([[0], cuts, [100]])).tolist()
        if min(shares) >= 6 and len(set(shares)) == count:
            return _Table(("",), _names(rng, count, language), (tuple(shares),), True)


def _scatter(rng: np.random.Generator, step: int, language: str) -> _Table:
    """No two points in a row or column of the grid, so that their names stand apart."""
    count = int(rng.integers(4, 8))
    values = _distinct(rng, 2, count, step=step, printed=False)
    return _Table(("", ""), _names(rng, count, language), values, False)


CHART_TABLES: Mapping[str, Callable[[np.random.Generator, int, str], _Table]] = {
    "bar": _bar,
    "grouped_bar": _grouped_bar,
    "stacked_bar": _stacked_bar,
    "line": _line,
    "pie": _pie,
    "scatter": _scatter,
}
