"""The questions about pictures and video that a vision study trains on and is measured by, from named sources.

Section 3 of the paper, image and video branch; at the `cpu` rung scenes composed from cut-out pictures, stills of them,
captions, and rendered text. What is asked of test data was never trained on: things, backgrounds, combinations, words.
"""

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from lab.data.fetch import packages
from lab.data.pages.chart_questions import chart_questions
from lab.data.pages.chart_tables import CHART_TABLES, Chart, ChartSettings, make_chart
from lab.data.pages.charts import render_chart
from lab.data.pages.page_questions import questions
from lab.data.pages.page_settings import PAGES
from lab.data.pages.rendered_text import Page, make_page, render
from lab.data.scenes.questions import KINDS, video_scene
from lab.data.scenes.rendering import frames
from lab.data.scenes.scene import Scene
from lab.data.scenes.stage import SceneOptions
from lab.data.scenes.stills import still_scene
from lab.data.splits import Split
from lab.errors import LabError, choose
from lab.training.hub_examples import hub_examples
from lab.training.vision_example import Sight, VisionExample

# Raise it when the same source and options would give other questions or pictures.
EXAMPLES_VERSION = 1
FIRST_SEED = {"train": 1, "dev": 2, "test": 3}
# Where a source names none.
SCENE_SECONDS, PAGE_KIND = "8-48", "labelled"


def _seen_scene(scene: Scene, sight: Sight) -> tuple[UInt8[ndarray, "frames height width 3"], tuple[float, ...]]:
    moments = sight.moments(scene.seconds) if scene.milliseconds else (0.0,)
    if not moments:
        return np.zeros((0, sight.frame_size, sight.frame_size, 3), dtype=np.uint8), ()
    return frames(scene, np.array(moments), sight.frame_size), moments


def _of_scene(scene: Scene, sight: Sight) -> VisionExample:
    asked = scene.question
    return VisionExample(
        id=scene.id,
        group=scene.twins or scene.id,
        kind=asked.kind,
        question=asked.text,
        choices=asked.choices,
        answer=asked.answer,
        see=partial(_seen_scene, scene, sight),
    )


def scene_examples(
    split: Split, count: int, sight: Sight, seconds: str = SCENE_SECONDS, events: str = "2-6", kinds: str = ""
) -> list[VisionExample]:
    """Video scenes.

    `seconds` and `events` are ranges of their lengths, as in "8-48"; `kinds` are the kinds of question, as in
    "moves,direction", all of them where it is empty.

    Raises:
        LabError: a range that is none, or an unknown kind.
    """
    options = SceneOptions(seconds=seconds_range(seconds), event_seconds=seconds_range(events))
    chosen = tuple(kinds.split(",")) if kinds else tuple(KINDS)
    seed = choose(FIRST_SEED, split, "split")
    return [
        _of_scene(video_scene(i, seed=seed, split=split, kinds=chosen, options=options), sight) for i in range(count)
    ]


def still_examples(split: Split, count: int, sight: Sight) -> list[VisionExample]:
    """Stills of the same things, with questions that one look answers."""
    seed = choose(FIRST_SEED, split, "split")
    return [_of_scene(still_scene(i, seed=seed, split=split), sight) for i in range(count)]


def _seen_page(page: Page) -> tuple[UInt8[ndarray, "frames height width 3"], tuple[float, ...]]:
    return render(page)[None], (0.0,)


def page_examples(split: Split, count: int, sight: Sight, pages: str = PAGE_KIND) -> list[VisionExample]:
    """Pages of small text, seen at their own size; `pages` is a key of `PAGES`. One question a page."""
    settings, seed = choose(PAGES, pages, "kind of page"), choose(FIRST_SEED, split, "split")
    found = []
    for index in range(count):
        page = make_page(settings, seed=seed, index=index, split=split)
        asked = questions(page)
        one = asked[index % len(asked)]
        found.append(
            VisionExample(
                id=page.id,
                group=page.id,
                kind=one.kind,
                question=one.text,
                choices=one.choices,
                answer=one.answer,
                see=partial(_seen_page, page),
            )
        )
    return found


def _seen_chart(chart: Chart) -> tuple[UInt8[ndarray, "frames height width 3"], tuple[float, ...]]:
    return render_chart(chart)[None], (0.0,)


def chart_examples(split: Split, count: int, sight: Sight, kinds: str = "") -> list[VisionExample]:
    """Charts of random tables, seen at their own size; `kinds` as in "bar,pie", all where empty. One question a chart.

    Raises:
        LabError: an unknown kind.
    """
    settings = ChartSettings(kinds=tuple(kinds.split(",")) if kinds else tuple(CHART_TABLES))
    seed = choose(FIRST_SEED, split, "split")
    found = []
    for index in range(count):
        chart = make_chart(settings, seed=seed, index=index, split=split)
        asked = chart_questions(chart)
        one = asked[index // len(settings.kinds) % len(asked)]  # so that every kind of chart is asked everything
        found.append(
            VisionExample(
                id=chart.id,
                group=chart.id,
                kind=one.kind,
                question=one.text,
                choices=one.choices,
                answer=one.answer,
                see=partial(_seen_chart, chart),
            )
        )
    return found


def seconds_range(text: str) -> tuple[float, float]:
    """The two ends of a range as a source names it, "8-48".

    Raises:
        LabError: it is none.
    """
    try:
        low, high = (float(number) for number in text.split("-"))
    except ValueError:
        raise LabError(f"{text!r} is no range of seconds; expected two numbers as in '8-48'") from None
    return low, high


@dataclass(frozen=True)
class ExampleSource:
    """How a source's examples are made, and the packages that they are made of."""

    read: Callable[..., list[VisionExample]]
    packages: tuple[str, ...]


_PICTURES = ("tuxpaint-stamps-default", "emoji-datasource-google", "emojibase-data")

EXAMPLES: dict[str, ExampleSource] = {
    "scenes": ExampleSource(scene_examples, _PICTURES),
    "stills": ExampleSource(still_examples, _PICTURES),
    "pages": ExampleSource(page_examples, ("fonts-wqy-microhei",)),
    "charts": ExampleSource(chart_examples, ()),
}
"""Named as in "scenes" or "scenes:8-48:2-6"; what follows colons are the options in their order."""
HUB = "@hub:"
"""Between a form and a data set, as in "next_qa@hub:OWNER/NAME:config:split"."""


def open_examples(source: str, split: Split, count: int, sight: Sight) -> list[VisionExample]:
    """The first `count` examples of one side of a source.

    Raises:
        LabError: an unknown source, or options that it does not take.
    """
    form, hub, dataset = source.partition(HUB)
    if hub:
        return hub_examples(form, f"hub:{dataset}", split, count, sight)
    name, *options = source.split(":")
    read = choose(EXAMPLES, name, "source of pictures or video").read
    if len(options) > (most := len(inspect.signature(read).parameters) - 3):
        raise LabError(f"{source!r} has {len(options)} options; source {name!r} takes at most {most}")
    return read(split, count, sight, *options)


def sources_sha256(source: str) -> str:
    """A hash of the packages that a source's examples are made of; of a hub's data set, its name alone is known."""
    if HUB in source:
        return hashlib.sha256(source.encode()).hexdigest()
    kind = choose(EXAMPLES, source.partition(":")[0], "source of pictures or video")
    return hashlib.sha256("".join(packages()[name].sha256 for name in kind.packages).encode()).hexdigest()
