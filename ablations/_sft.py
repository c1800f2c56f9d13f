"""The tasks of multimodal fine-tuning: what the study of section 3's last stage mixes, and how often each is drawn.

The paper has about 600,000 pairs of over 200 tasks, whose kinds and shares are not found. These are tasks that packages
and our own drawings give, of every kind that the model takes; a language model of small letters alone can write them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt
from types import MappingProxyType

from lab.data.fetch import packages
from lab.errors import choose

MOST_SAMPLES = 2000
"""Scenes, pages and charts are drawn endlessly, so a size is counted up to this."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task: `source` opens its samples, `samples` counts those of the training side, up to `MOST_SAMPLES`."""

    kind: str
    source: str
    samples: int = MOST_SAMPLES
    licence: str


def _licence(*names: str) -> str:
    return "; ".join(dict.fromkeys(packages()[name].licence for name in names))


_BIGBENCH = _licence("bigbench")
_TALKS = _licence("chatterbot-corpus")
_THINGS = _licence("tuxpaint-stamps-default", "emoji-datasource-google", "emojibase-data")
_FONT = _licence("fonts-wqy-microhei")
_OWN = "drawn by this project, under its own"
_VOICE = "the voice is eSpeak NG's output, free of its GPL-3.0"
_BIGBENCH_SAMPLES = {
    "facts": MOST_SAMPLES,
    "wikidata": MOST_SAMPLES,
    "questions": MOST_SAMPLES,
    "negations": MOST_SAMPLES,
    "pronouns": 686,
    "plurals": 1475,
    "past": 1509,
    "situations": 1649,
    "steps": 1839,
    "goals": 1366,
    "orders": MOST_SAMPLES,
    "sorting": 1596,
    "counting": 826,
    "sports": 825,
    "scrambled": MOST_SAMPLES,
    "pig_latin": 848,
    "metaphors": 584,
    "colours": 1017,
    "beliefs": 1688,
    "elements": 444,
    "tenses": 262,
    "categories": 276,
    "anachronisms": 196,
    "entailments": 115,
    "reversed": MOST_SAMPLES,
}
# Years stand along a line, and no digit can be written.
_CHARTS = "bar,grouped_bar,stacked_bar,pie,scatter"
_PICTURES = {
    "stills": "stills",
    "captions": "descriptions",
    "interleaved": "interleaved",
    "grounding": "worded:grounding:10",
}
_DRAWN = {
    "maths": "worded:maths",
    "chart_comparison": f"charts:{_CHARTS}:comparison",
    "chart_extremes": f"charts:{_CHARTS}:largest,smallest",
    "chart_trend": "charts:line:trend",
    "chart_reading": f"worded:charts:{_CHARTS}:reading",
    "chart_sums": f"worded:charts:{_CHARTS}:difference,count,total",
}
_VIDEO = ("moves", "direction", "came_first", "left_first", "before", "how_many", "size_change", "turns", "hides")

TASKS: Mapping[str, Task] = MappingProxyType(
    {
        **{
            name: Task(kind="text", source=f"text:bigbench:{name}", samples=samples, licence=_BIGBENCH)
            for name, samples in _BIGBENCH_SAMPLES.items()
        },
        "chat": Task(kind="instructions", source="text:chatterbot", samples=1015, licence=_TALKS),
        "turns": Task(kind="several turns", source="text:conversations", samples=193, licence=_TALKS),
        "manners": Task(kind="system message", source="text:manners", licence=_BIGBENCH),
        **{name: Task(kind="pictures", source=source, licence=_THINGS) for name, source in _PICTURES.items()},
        "page_questions": Task(kind="OCR", source="pages:reading", licence=_FONT),
        "page_transcripts": Task(kind="OCR", source="transcripts:reading", licence=_FONT),
        **{
            name: Task(kind="charts" if "chart" in name else "mathematics", source=source, licence=_OWN)
            for name, source in _DRAWN.items()
        },
        **{f"video_{kind}": Task(kind="video", source=f"scenes:8-12:2-4:{kind}", licence=_THINGS) for kind in _VIDEO},
        "speech": Task(
            kind="speech recognition", source="speech:default", licence=_licence("flight-of-the-amazon-queen")
        ),
        **{
            f"spoken_{name}": Task(
                kind="spoken questions", source=f"spoken:espeak:{source}", licence=f"{_THINGS}; {_VOICE}"
            )
            for name, source in {"stills": "stills", "video": "scenes:8-12:2-4"}.items()
        },
        **{
            f"spoken_{name}": Task(
                kind="spoken questions",
                source=f"spoken:espeak:text:bigbench:{name}",
                samples=_BIGBENCH_SAMPLES[name],
                licence=f"{_BIGBENCH}; {_VOICE}",
            )
            for name in ("plurals", "negations", "counting")
        },
        "quarters": Task(kind="a quarter heard", source="quarters:espeak:descriptions", licence=f"{_THINGS}; {_VOICE}"),
    }
)
"""In the order of the tables; no name here is another's."""

WEIGHTINGS: Mapping[str, Callable[[int], float]] = MappingProxyType(
    {"proportional": float, "square_root": sqrt, "equal": lambda samples: 1.0}
)
"""What a task's size counts; the paper's is proportional, "according to relative size"."""


def weights(how: str) -> dict[str, float]:
    """How often each task is drawn, by its size: shares that add up to 1.

    Raises:
        LabError: `how` is none of `WEIGHTINGS`.
    """
    counts = {name: choose(WEIGHTINGS, how, "weighting of tasks")(task.samples) for name, task in TASKS.items()}
    return {name: count / sum(counts.values()) for name, count in counts.items()}


def table() -> str:
    """The tasks as a table of Markdown, as it stands in docs/studies.md."""
    lines = ["| task | kind | source | training samples | licence |", "|---|---|---|---|---|"]
    for name, task in TASKS.items():
        count = f"{task.samples:,}{' or more' * (task.samples == MOST_SAMPLES)}"
        lines.append(f"| {name} | {task.kind} | `{task.source}` | {count} | {task.licence} |")
    return "\n".join(lines)
