"""Questions about a chart whose answers follow from its table (section 3: the paper's synthetic chart data).

Alternatives come from the same chart as far as there are enough, and the answer's place among the choices is uniform.
So who does not see the chart is at chance: exactly where one value or name is asked for, nearly where values are
counted, added or subtracted (some results are commoner than others).
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lab.errors import LabError
from standins.drawn import Question, offered
from standins.pages.chart_tables import NUM_LEVELS, Chart, chart_generator

# One purpose of a chart's random numbers.
_QUESTIONS = 1

WORDING: Mapping[str, Mapping[str, str]] = {
    "en": {
        "reading": "What is the value of {name}?",
        "largest": "Which has the largest value?",
        "smallest": "Which has the smallest value?",
        "difference": "How much larger is {name} than {other}?",
        "count": "How many values are above {threshold}?",
        "comparison": "Which has the larger value, {name} or {other}?",
        "total": "What do the parts of {name} add up to?",
        "of series": "For {series}: ",
        "of points": "By {series}: ",
    },
    "zh": {
        "reading": "{name}的值是多少？",
        "largest": "哪一个的值最大？",
        "smallest": "哪一个的值最小？",
        "difference": "{name}比{other}多多少？",
        "count": "有几个值大于{threshold}？",
        "comparison": "{name}和{other}，哪一个的值更大？",
        "total": "{name}的各部分合计是多少？",
        "of series": "在{series}中，",
        "of points": "按{series}来看，",
    },
}


def chart_questions(chart: Chart, *, num_choices: int = 4) -> tuple[Question, ...]:
    """Ask one question of every kind that the chart has, each about one series of it, drawn.

    A comparison has two choices, every other question `num_choices`.

    Raises:
        LabError: fewer than two choices or more than four: a chart may have no more names than that.
    """
    if not 2 <= num_choices <= 4:
        raise LabError(f"a question about a chart has {num_choices} choices, expected 2 to 4")
    asked = []
    for place, (kind, ask) in enumerate(CHART_QUESTIONS.items()):
        if kind == "total" and chart.kind != "stacked_bar":
            continue
        rng = chart_generator(chart.seed, chart.index, chart.split, _QUESTIONS, place)
        row = int(rng.integers(len(chart.series)))
        wording = WORDING[chart.settings.language]
        before = "" if kind == "total" else _about(chart, row, wording)
        gaps, answer, others = ask(rng, chart, chart.values[row])
        kept = [other for other in dict.fromkeys(others) if other != answer][: num_choices - 1]
        text = before + wording[kind].format(**gaps)
        asked.append(Question(kind, text, offered(rng, answer, kept), answer))
    return tuple(asked)


def _about(chart: Chart, row: int, wording: Mapping[str, str]) -> str:
    if len(chart.series) == 1:
        return ""
    return wording["of points" if chart.kind == "scatter" else "of series"].format(series=chart.series[row])


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


CHART_QUESTIONS: Mapping[str, Callable[[np.random.Generator, Chart, Sequence[int]], _Asked]] = {
    "reading": _reading,
    "largest": _largest,
    "smallest": _smallest,
    "difference": _difference,
    "count": _count,
    "comparison": _comparison,
    "total": _total,
}
