"""Questions about scenes, stills, pages and charts, as the sources of pictures and video that vision studies name.

What is asked of test data was never trained on: things, backgrounds, combinations, words.
"""

from functools import partial

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from lab.data.splits import Split
from lab.errors import LabError, choose
from lab.training.vision_example import Sight, VisionExample
from lab.training.vision_examples import ExampleSource, Largest
from standins.pages.chart_questions import chart_questions
from standins.pages.chart_tables import CHART_TABLES, Chart, ChartSettings, make_chart
from standins.pages.charts import render_chart
from standins.pages.page_questions import questions
from standins.pages.page_settings import PAGES
from standins.pages.rendered_text import Page, make_page, render
from standins.scenes.questions import KINDS, video_scene
from standins.scenes.rendering import frames
from standins.scenes.scene import Scene
from standins.scenes.stage import SceneOptions
from standins.scenes.stills import still_scene

FIRST_SEED = {"train": 1, "dev": 2, "test": 3}
# Where a source names none.
SCENE_SECONDS, PAGE_KIND = "8-48", "labelled"
CHARTS = ChartSettings()


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


def _largest_scene(sight: Sight, seconds: str = SCENE_SECONDS, *options: str) -> Largest:
    return Largest(len(sight.moments(seconds_range(seconds)[1])), (sight.frame_size, sight.frame_size))


def _largest_still(sight: Sight) -> Largest:
    return Largest(1, (sight.frame_size, sight.frame_size))


def _largest_page(sight: Sight, pages: str = PAGE_KIND) -> Largest:
    settings = choose(PAGES, pages, "kind of page")
    return Largest(1, (settings.height[1], settings.width[1]))


def _largest_chart(sight: Sight, kinds: str = "") -> Largest:
    return Largest(1, (CHARTS.height[1], CHARTS.width[1]))


_PICTURES = ("tuxpaint-stamps-default", "emoji-datasource-google", "emojibase-data")
SCENES = ExampleSource(read=scene_examples, largest=_largest_scene, packages=_PICTURES)
STILLS = ExampleSource(read=still_examples, largest=_largest_still, packages=_PICTURES)
PAGES_OF_TEXT = ExampleSource(read=page_examples, largest=_largest_page, packages=("fonts-wqy-microhei",))
CHARTS_OF_TABLES = ExampleSource(read=chart_examples, largest=_largest_chart, packages=())
