"""Vision examples of random pixels and splits of them, for the tests of several rooms."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lab.parts.visual_tokens import Branch
from lab.training.vision_data import Tiling, VisionSplit, open_vision_split
from lab.training.vision_examples import VisionExample
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
) -> VisionExample:
    """What is seen hangs on the name alone."""

    def see() -> tuple[np.ndarray, tuple[float, ...]]:
        rng = np.random.default_rng(list(name.encode()))
        return rng.integers(0, 256, (frames, *size, 3), dtype=np.uint8), tuple(0.5 * i for i in range(frames))

    facts = {"group": name, "kind": "k", **facts}
    return VisionExample(id=name, question=question, choices=tuple(choices), answer=answer, see=see, **facts)


def various(prefix: str, count: int, **options: Any) -> list[VisionExample]:
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
    examples: list[VisionExample],
    *,
    name: str = "s",
    branch: Branch = "video_projector",
    tiling: Tiling = FIXED,
    **options: Any,
) -> VisionSplit:
    return open_vision_split(name, examples, tiny_encoder(), key="k", branch=branch, tiling=tiling, **options)
