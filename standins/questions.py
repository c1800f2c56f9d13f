"""Questions about scenes, stills, pages and charts, as the sources of pictures and video that vision studies name.

What is asked of test data was never trained on: things, backgrounds, combinations, words.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from lab.data.filters.filtering import LeftOut
from lab.data.sample import Drawn, Image, Sample, Text, Video
from lab.data.sources import Largest, OuterSource, SampleSource, check_source, open_samples, sources_sha256
from lab.data.splits import Split
from lab.data.video import Sight, VideoFrames
from lab.errors import LabError, choose
from standins.drawn import generator, offered
from standins.pages.chart_questions import chart_questions
from standins.pages.charts import CHART_TABLES, HEIGHT, WIDTH, Chart, make_chart, render_chart
from standins.pages.page_values import draw_values, result
from standins.pages.rendered_text import PAGES, TRANSCRIBE, Page, make_page, questions, render, transcript
from standins.pictures.pictures import EMOJI_NAMES, EMOJI_PICTURES, STAMPS
from standins.scenes.questions import KINDS, STILL_KINDS, make_scene, still_scene, video_scene
from standins.scenes.scene import THOUSAND, Scene, frames, standing_box
from standins.scenes.stage import SceneOptions
from standins.scenes.stills import described
from standins.texts import in_words

FIRST_SEED = {"train": 1, "dev": 2, "test": 3}
# Where a source names none.
SCENE_SECONDS, PAGE_KIND = "8-48", "labelled"
_MATHS_CHOICES = 4
_GRID = (10, 1000)

Pixels = UInt8[ndarray, "height width 3"]


def _asking(asked: Any, media: Image | Video, id: str, group: str = "") -> Sample:
    """A sample of one of the stand-ins' questions."""
    content = (media, Text(asked.text))
    return Sample(id=id, group=group, task=asked.kind, content=content, answer=asked.answer, choices=asked.choices)


def _film(scene: Scene, sight: Sight) -> VideoFrames:
    moments = np.array(sight.moments(scene.seconds))
    size = sight.frame_size
    seen = frames(scene, moments, size) if len(moments) else np.zeros((0, size, size, 3), dtype=np.uint8)
    return VideoFrames(frames=seen, seconds=moments, duration_seconds=scene.seconds)


def _still(scene: Scene, sight: Sight) -> Pixels:
    (picture,) = frames(scene, np.zeros(1), sight.frame_size)
    return picture


def _own_size(draw: Callable[[Any], Pixels], given: Page | Chart, sight: Sight) -> Pixels:
    return draw(given)


def scene_samples(
    split: Split, count: int, seconds: str = SCENE_SECONDS, events: str = "2-6", kinds: str = ""
) -> list[Sample]:
    """Video scenes.

    `seconds` and `events` are ranges of their lengths, as in "8-48"; `kinds` are the kinds of question, as in
    "moves,direction", all of them where it is empty.
    """
    options = SceneOptions(seconds=seconds_range(seconds), event_seconds=seconds_range(events))
    chosen = tuple(kinds.split(",")) if kinds else tuple(KINDS)
    seed = choose(FIRST_SEED, split, "split")
    made = (video_scene(i, seed=seed, split=split, kinds=chosen, options=options) for i in range(count))
    return [_asking(scene.question, Video(Drawn(_film, (scene,))), scene.id, scene.twins) for scene in made]


def still_samples(split: Split, count: int) -> list[Sample]:
    """Stills of the same things, with questions that one look answers."""
    seed = choose(FIRST_SEED, split, "split")
    made = (still_scene(i, seed=seed, split=split) for i in range(count))
    return [_asking(scene.question, Image(Drawn(_still, (scene,))), scene.id, scene.twins) for scene in made]


def description_samples(split: Split, count: int) -> list[Sample]:
    """The same stills, to be described."""
    seed = choose(FIRST_SEED, split, "split")
    return [
        Sample(
            id=f"{scene.id}-described",
            group=scene.twins,
            task="describe",
            content=(Image(Drawn(_still, (scene,))), Text("Describe the picture.")),
            answer=described(scene),
        )
        for scene in (still_scene(i, seed=seed, split=split) for i in range(count))
    ]


def grounding_samples(split: Split, count: int, grid: str = "100") -> list[Sample]:
    """Stills of which a thing is to be found: its box as left, top, right and bottom, "35 5 65 35".

    Places are counted from 0 at the left or top to `grid` at the right or bottom, so of 100 they are whole percent. The
    other choices are where the thing stands in the scene's twins, so who does not see it is at chance.
    """
    if not grid.isascii() or not grid.isdigit() or not _GRID[0] <= int(grid) <= _GRID[1]:
        raise LabError(f"the grid of a box is {grid!r}; expected a whole number from {_GRID[0]} to {_GRID[1]}")
    seed, twins = choose(FIRST_SEED, split, "split"), STILL_KINDS["where"].answers
    found = []
    for index in range(count):
        first = index // twins * twins
        made = [make_scene(first + n, seed=seed, split=split, kinds=("where",)) for n in range(twins)]
        scene = made[index % twins]
        boxes = {one.question.answer: _in_grid(standing_box(one.actors[-1]), int(grid)) for one in made}
        asked = f"Where is the {scene.actors[-1].word}? Give its left, top, right and bottom, from 0 to {grid}."
        found.append(
            Sample(
                id=f"{scene.id}-box",
                group=scene.twins,
                task="box",
                content=(Image(Drawn(_still, (scene,))), Text(asked)),
                answer=boxes[scene.question.answer],
                choices=tuple(boxes[place] for place in scene.question.choices),
            )
        )
    return found


def _in_grid(box: tuple[int, ...], grid: int) -> str:
    return " ".join(str(round(grid * place / THOUSAND)) for place in box)


def maths_samples(split: Split, count: int) -> list[Sample]:
    """Pictures of a sum, a difference or a product, to be worked out; the same numbers are on one side of the split."""
    found = []
    for page in _pages(split, count, "maths"):
        rng = generator(page.seed, page.index, split, first=tuple(b"maths"))
        (entry,), answer = page.entries, result(page.entries[0].value)
        others: dict[int, str] = {}
        while len(others) < _MATHS_CHOICES - 1:
            (other,) = draw_values(page.kind, rng, count=1, split=split)
            if result(other) != answer:
                others[result(other)] = other
        found.append(
            Sample(
                id=f"{page.id}-solved",
                group=f"maths-{entry.value}",
                task=page.kind,
                content=(Image(Drawn(_own_size, (render, page))), Text("What does it come to?")),
                answer=str(answer),
                choices=offered(rng, str(answer), list(map(str, others))),
            )
        )
    return found


def interleaved_samples(split: Split, count: int) -> list[Sample]:
    """Documents of three pictures of one thing each, all but the last with its name behind it."""
    seed, answers = choose(FIRST_SEED, split, "split"), STILL_KINDS["what"].answers
    scenes = [
        # Not its twins, which show the choices of one question.
        [make_scene(answers * (3 * i + n) + n, seed=seed, split=split, kinds=("what",)) for n in range(3)]
        for i in range(count)
    ]
    found = []
    for shown in scenes:
        pictures = [Image(Drawn(_still, (scene,))) for scene in shown]
        names = [Text(f"This is a {scene.question.answer}.") for scene in shown[:-1]]
        content = (pictures[0], names[0], pictures[1], names[1], pictures[2], Text("This is a"))
        last = shown[-1]
        found.append(
            Sample(
                id=f"{last.id}-document",
                group=last.twins,
                task="continue",
                content=content,
                answer=last.question.answer,
                choices=last.question.choices,
            )
        )
    return found


def page_samples(split: Split, count: int, pages: str = PAGE_KIND) -> list[Sample]:
    """Pages of small text, seen at their own size; `pages` is a key of `PAGES`. One question a page."""
    found = []
    for index, page in enumerate(_pages(split, count, pages)):
        asked = questions(page)
        found.append(_asking(asked[index % len(asked)], Image(Drawn(_own_size, (render, page))), page.id))
    return found


def transcript_samples(split: Split, count: int, pages: str = PAGE_KIND) -> list[Sample]:
    """The same pages, to be written down from the top to the bottom."""
    found = []
    for page in _pages(split, count, pages):
        content = (Image(Drawn(_own_size, (render, page))), Text(TRANSCRIBE[page.settings.language]))
        found.append(
            Sample(id=f"{page.id}-text", group=page.id, task="write", content=content, answer=transcript(page))
        )
    return found


def _pages(split: Split, count: int, pages: str) -> list[Page]:
    settings, seed = choose(PAGES, pages, "kind of page"), choose(FIRST_SEED, split, "split")
    return [make_page(settings, seed=seed, index=index, split=split) for index in range(count)]


def chart_samples(split: Split, count: int, kinds: str = "", questions: str = "") -> list[Sample]:
    """Charts of random tables, at their own size; `kinds` as in "bar,pie", all where empty. One question a chart.

    `questions` are kinds of these, as in "comparison,trend"; where empty, all but what was added later (a trend).
    """
    chosen = kinds.split(",") if kinds else list(CHART_TABLES)
    seed = choose(FIRST_SEED, split, "split")
    found = []
    for index in range(count):
        chart = make_chart(chosen, seed=seed, index=index, split=split)
        asked = chart_questions(chart, questions.split(",") if questions else ())
        if not asked:
            raise LabError(f"a chart of kind {chart.kind!r} has no question of kind {questions!r}; name other kinds")
        one = asked[index // len(chosen) % len(asked)]  # so that every kind of chart is asked everything
        found.append(_asking(one, Image(Drawn(_own_size, (render_chart, chart))), chart.id))
    return found


def seconds_range(text: str) -> tuple[float, float]:
    """The two ends of a range as a source names it, "8-48"."""
    try:
        low, high = (float(number) for number in text.split("-"))
    except ValueError:
        raise LabError(f"{text!r} is no range of seconds; expected two numbers as in '8-48'") from None
    return low, high


def _largest_scene(sight: Sight, seconds: str = SCENE_SECONDS, *options: str) -> Largest:
    size = (sight.frame_size, sight.frame_size)
    return Largest(len(sight.moments(seconds_range(seconds)[1])), size, is_video=True)


def _largest_still(sight: Sight, pictures: int = 1) -> Largest:
    return Largest(pictures, (sight.frame_size, sight.frame_size))


def _largest_page(sight: Sight, pages: str = PAGE_KIND) -> Largest:
    settings = choose(PAGES, pages, "kind of page")
    return Largest(1, (settings.height[1], settings.width[1]))


def _worded(split: Split, count: int, inner: str) -> tuple[list[Sample], LeftOut]:
    """Samples whose whole numbers are written in words, for a language model without digits."""
    samples, left_out = open_samples(inner, split, count)
    return [
        replace(
            one,
            content=tuple(replace(p, text=in_words(p.text)) if isinstance(p, Text) else p for p in one.content),
            answer=in_words(one.answer),
            choices=tuple(map(in_words, one.choices)),
        )
        for one in samples
    ], left_out


def _largest_chart(sight: Sight, kinds: str = "", questions: str = "") -> Largest:
    return Largest(1, (HEIGHT[1], WIDTH[1]))


_PICTURES = (STAMPS, EMOJI_PICTURES, EMOJI_NAMES)
SCENES = SampleSource(read=scene_samples, largest=_largest_scene, packages=_PICTURES)
STILLS = SampleSource(read=still_samples, largest=_largest_still, packages=_PICTURES)
DESCRIPTIONS = SampleSource(read=description_samples, largest=_largest_still, packages=_PICTURES)
GROUNDING = SampleSource(read=grounding_samples, largest=lambda sight, *grid: _largest_still(sight), packages=_PICTURES)
INTERLEAVED = SampleSource(
    read=interleaved_samples, largest=lambda sight: _largest_still(sight, pictures=3), packages=_PICTURES
)
PAGES_OF_TEXT = SampleSource(read=page_samples, largest=_largest_page, packages=("fonts-wqy-microhei",))
TRANSCRIPTS = SampleSource(read=transcript_samples, largest=_largest_page, packages=PAGES_OF_TEXT.packages)
MATHS = SampleSource(read=maths_samples, largest=lambda sight: _largest_page(sight, "maths"), packages=())
CHARTS_OF_TABLES = SampleSource(read=chart_samples, largest=_largest_chart, packages=())
WORDED = OuterSource(read=_worded, check=check_source, state=sources_sha256)
