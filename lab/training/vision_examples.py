"""The questions about pictures and video that a vision study trains on and is measured by, from named sources.

Section 3 of the paper, image and video branch; at the `cpu` rung scenes composed from cut-out pictures, stills of them,
captions, and rendered text. What is asked of test data was never trained on: things, backgrounds, combinations, words.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from lab.data.moments import chosen_seconds
from lab.data.page_questions import questions
from lab.data.page_settings import PAGES
from lab.data.rendered_text import Page, make_page, render
from lab.data.scene_questions import video_scene
from lab.data.scene_rendering import frames
from lab.data.scene_stage import SceneOptions
from lab.data.scene_stills import still_scene
from lab.data.scenes import Scene
from lab.data.splits import Split
from lab.errors import LabError, choose

FIRST_SEED = {"train": 1, "dev": 2, "test": 3}


@dataclass(frozen=True, kw_only=True)
class VisionExample:
    """One question, its choices where it has some, and how to see what it is about.

    Examples of one `group` are no independent witnesses: twins of a scene, questions of a page.
    """

    id: str
    group: str
    kind: str
    question: str
    choices: tuple[str, ...]
    answer: str
    see: Callable[[], tuple[UInt8[ndarray, "frames height width 3"], tuple[float, ...]]]


@dataclass(frozen=True, kw_only=True)
class Sight:
    """How much is seen of a source.

    Raises:
        LabError: a number out of range.
    """

    frame_size: int = 128
    """Pixels, height and width of a rendered frame or still."""
    frames_per_second: float = 1.0
    max_frames: int = 8
    """Of a video; 0: nothing is seen, 1: the frame in the middle."""

    def __post_init__(self) -> None:
        if self.frame_size < 8 or self.max_frames < 0 or not self.frames_per_second > 0:
            raise LabError(
                f"frame_size {self.frame_size}, frames_per_second {self.frames_per_second} and max_frames "
                f"{self.max_frames}: expected at least 8, above 0 and at least 0"
            )

    def moments(self, seconds: float) -> tuple[float, ...]:
        """When a video of that length is looked at."""
        if self.max_frames == 0:
            return ()
        if self.max_frames == 1:
            return (seconds / 2,)
        chosen = chosen_seconds(seconds, frames_per_second=self.frames_per_second, max_frames=self.max_frames)
        return tuple(float(moment) for moment in chosen)


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
    split: Split, count: int, sight: Sight, seconds: str = "8-48", events: str = "2-6"
) -> list[VisionExample]:
    """Video scenes; `seconds` and `events` are ranges of their lengths, as in "8-48".

    Raises:
        LabError: a range that is none.
    """
    options = SceneOptions(seconds=_range(seconds), event_seconds=_range(events))
    seed = choose(FIRST_SEED, split, "split")
    return [_of_scene(video_scene(i, seed=seed, split=split, options=options), sight) for i in range(count)]


def still_examples(split: Split, count: int, sight: Sight) -> list[VisionExample]:
    """Stills of the same things, with questions that one look answers."""
    seed = choose(FIRST_SEED, split, "split")
    return [_of_scene(still_scene(i, seed=seed, split=split), sight) for i in range(count)]


def _seen_page(page: Page) -> tuple[UInt8[ndarray, "frames height width 3"], tuple[float, ...]]:
    return render(page)[None], (0.0,)


def page_examples(split: Split, count: int, sight: Sight, pages: str = "labelled") -> list[VisionExample]:
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


def _range(text: str) -> tuple[float, float]:
    try:
        low, high = (float(number) for number in text.split("-"))
    except ValueError:
        raise LabError(f"{text!r} is no range of seconds; expected two numbers as in '8-48'") from None
    return low, high


EXAMPLES: dict[str, Callable[..., list[VisionExample]]] = {
    "scenes": scene_examples,
    "stills": still_examples,
    "pages": page_examples,
}
"""A source's name, as in "scenes" or "scenes:8-48:2-6"; what follows colons are its options in their order."""


def open_examples(source: str, split: Split, count: int, sight: Sight) -> list[VisionExample]:
    """The first `count` examples of one side of a source."""
    name, *options = source.split(":")
    read = choose(EXAMPLES, name, "source of pictures or video")
    if len(options) > (most := len(inspect.signature(read).parameters) - 3):
        raise LabError(f"{source!r} has {len(options)} options; source {name!r} takes at most {most}")
    return read(split, count, sight, *options)
