"""Samples of random pixels and examples of them, for the tests of several rooms."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lab.data.sample import Drawn, Sample, Text, Video
from lab.data.video import Sight, VideoFrames
from lab.parts.media_tokens import Branch
from lab.training.samples import SampleExamples, Tiling
from tests.parts.tiny_vision import IMAGE_SIZE, tiny_encoder

FIXED = Tiling()
SQUARE = (IMAGE_SIZE, IMAGE_SIZE)


def example(
    name: str,
    *,
    frames: int = 1,
    size: tuple[int, int] = SQUARE,
    question: str = "ab",
    choices: Sequence[str] = ("c", "d"),
    answer: str = "c",
    **facts: str,
) -> Sample:
    """What is seen hangs on the name alone; an answer that is none of the choices has none."""
    choices = choices if answer in choices else ()
    content = (Video(Drawn(noise, (name, frames, size))), Text(question))
    return Sample(id=name, content=content, choices=tuple(choices), answer=answer, **{"task": "k", **facts})


def noise(name: str, frames: int, size: tuple[int, int], sight: Sight) -> VideoFrames:
    rng = np.random.default_rng(list(name.encode()))
    pixels = rng.integers(0, 256, (frames, *size, 3), dtype=np.uint8)
    return VideoFrames(frames=pixels, seconds=0.5 * np.arange(frames), duration_seconds=0.5 * frames)


def various(prefix: str, count: int, **options: Any) -> list[Sample]:
    """Examples of one to four frames, with questions of one to five characters and answers of one to three."""
    rng = np.random.default_rng(0)

    def texts(most: int) -> str:
        return "".join(rng.choice(list("abcd"), rng.integers(1, most + 1)))

    made = []
    for i in range(count):
        answer, frames, question = texts(3), int(rng.integers(1, 5)), texts(5)
        choices = sorted({answer, "a", "bd"})
        facts = {"frames": frames, "question": question, "choices": choices, "answer": answer, **options}
        made.append(example(f"{prefix}{i}", **facts))
    return made


def split_of(
    samples: list[Sample],
    *,
    name: str = "s",
    branch: Branch = "video_projector",
    tiling: Tiling = FIXED,
    write: Callable[[str], str] = str.strip,
    **options: Any,
) -> SampleExamples:
    found = SampleExamples(samples=samples, name=name, branch=branch, tiling=tiling, write=write)
    return found.kept_by(tiny_encoder(), key="k", **options)
