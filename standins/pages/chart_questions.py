"""Questions about a chart whose answers follow from its table (section 3: the paper's synthetic chart data).

Alternatives come from the same chart as far as there are enough, and the answer's place among the choices is uniform.
So who does not see the chart is at chance: exactly where one value or name is asked for, nearly where values are
counted, added or subtracted (some results are commoner than others).
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lab.errors import choose
from standins.drawn import Question, offered
from standins.pages.charts import NUM_LEVELS, Chart, chart_generator

# One purpose of a chart's random numbers.
_QUESTIONS = 1

_WORDING = {
    "reading": "What is the value of {name}?",
    "largest": "Which has the largest value?",
    "smallest": "Which has the smallest value?",
    "difference": "How much larger is {name} than {other}?",
    "count": "How many values are above {threshold}?",
    "comparison": "Which has the larger value, {name} or {other}?",
    "total": "What do the parts of {name} add up to?",
    "trend": "Does it rise or fall from the first year to the last?",
}
_NUM_CHOICES = 4


def chart_questions(chart: Chart, kinds: Sequence[str] = ()) -> tuple[Question, ...]:
    """Ask one question of every kind that the chart has, each about one series of it, drawn.

    A comparison and a trend have two choices, every other question four. `kinds` are keys of `CHART_QUESTIONS`, those
    of `FIRST` where there are none.
    """
    wanted = {kind: choose(CHART_QUESTIONS, kind, "kind of question about a chart") for kind in kinds or FIRST}
    asked = []
    for place, (kind, ask) in enumerate(CHART_QUESTIONS.items()):
        if kind not in wanted or _ONLY_OF.get(kind, chart.kind) != chart.kind:
            continue
        rng = chart_generator(chart.seed, chart.index, chart.split, _QUESTIONS, place)
        row = int(rng.integers(len(chart.series)))
        before = ""
        if kind != "total" and len(chart.series) > 1:
            before = f"{'By' if chart.kind == 'scatter' else 'For'} {chart.series[row]}: "
        gaps, answer, others = ask(rng, chart, chart.values[row])
        kept = [other for other in dict.fromkeys(others) if other != answer][: _NUM_CHOICES - 1]
        text = before + _WORDING[kind].format(**gaps)
        asked.append(Question(kind, text, offered(rng, answer, kept), answer))
    return tuple(asked)


_Asked = tuple[dict[str, str], str, list[str]]


def _reading(rng: np.random.Generator, chart: Chart, row: Sequence[int]) -> _Asked:
    order = rng.permutation(len(row))
    return {"name": chart.categories[order[0]]}, str(row[order[0]]), [str(row[i]) for i in order[1:]]


def _extreme(rng: np.random.Generator, chart: Chart, place: int) -> _Asked:
    others = [name for name in rng.permutation(np.array(chart.categories)).tolist() if name != chart.categories[place]]
    return {}, chart.categories[place], others


def _largest(rng: np.random.Generator, chart: Chart, row: Sequence[int]) -> _Asked:
    return _extreme(rng, chart, int(np.argmax(row)))


def _smallest(rng: np.random.Generator, chart: Chart, row: Sequence[int]) -> _Asked:
    return _extreme(rng, chart, int(np.argmin(row)))


def _difference(rng: np.random.Generator, chart: Chart, row: Sequence[int]) -> _Asked:
    low, high = sorted(rng.permutation(len(row))[:2], key=lambda i: row[i])
    gaps = [abs(a - b) for i, a in enumerate(row) for b in row[:i]]
    unit = chart.step if not chart.printed else 1
    others = [*rng.permutation(gaps).tolist(), *(unit * (1 + rng.permutation(NUM_LEVELS))).tolist()]
    asked = {"name": chart.categories[high], "other": chart.categories[low]}
    return asked, str(row[high] - row[low]), [str(other) for other in others]


def _count(rng: np.random.Generator, chart: Chart, row: Sequence[int]) -> _Asked:
    """The answer is drawn first, uniformly, and with it the value that so many others are above."""
    answer = int(rng.integers(1, len(row)))
    threshold = sorted(row, reverse=True)[answer]  # this value itself is not above
    return (
        {"threshold": str(threshold)},
        str(answer),
        [str(k) for k in (*(1 + rng.permutation(len(row) - 1)), len(row), 0)],
    )


def _comparison(rng: np.random.Generator, chart: Chart, row: Sequence[int]) -> _Asked:
    first, second = rng.permutation(len(row))[:2].tolist()
    higher, lower = (first, second) if row[first] > row[second] else (second, first)
    asked = {"name": chart.categories[first], "other": chart.categories[second]}
    return asked, chart.categories[higher], [chart.categories[lower]]


def _total(rng: np.random.Generator, chart: Chart, row: Sequence[int]) -> _Asked:
    totals = np.sum(chart.values, axis=0)
    order = rng.permutation(len(totals))
    return {"name": chart.categories[order[0]]}, str(totals[order[0]]), [str(totals[i]) for i in order[1:]]


def _trend(rng: np.random.Generator, chart: Chart, row: Sequence[int]) -> _Asked:
    answer, other = ("rise", "fall") if row[-1] > row[0] else ("fall", "rise")
    return {}, answer, [other]


CHART_QUESTIONS: Mapping[str, Callable[[np.random.Generator, Chart, Sequence[int]], _Asked]] = {
    "reading": _reading,
    "largest": _largest,
    "smallest": _smallest,
    "difference": _difference,
    "count": _count,
    "comparison": _comparison,
    "total": _total,
    "trend": _trend,
}
_ONLY_OF = {"total": "stacked_bar", "trend": "line"}

FIRST = ("reading", "largest", "smallest", "difference", "count", "comparison", "total")
"""What is asked where no kind is named; it stays so when kinds are added."""
