"""From a vision study's examples to what a model is given: views computed once, questions, tokens counted.

Section 3 of the paper.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from jaxtyping import Int

from lab.data.sample import Sample, Text
from lab.data.view_features import SeenFrames, ViewStore, store_views
from lab.parts.any_resolution import image_views, num_views, token_order
from lab.parts.omni_model import Example, OmniModel
from lab.parts.vision_encoders import VisionEncoder
from lab.parts.visual_tokens import Branch, Seen
from lab.training.examples import Examples
from lab.training.vision_examples import VisionExample


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How a frame becomes views (AnyRes) and their tokens one sequence; one tile is a fixed resolution."""

    max_tiles: int = 1
    fit: str = "pad"
    unpad: bool = False
    newline: bool = False


@dataclass(frozen=True, kw_only=True)
class VisionSplit(Examples):
    """Examples of one split and what is seen of them; `branch` is the projector that they pass through."""

    name: str
    examples: list[VisionExample]
    store: ViewStore
    image_size: int
    tiling: Tiling
    branch: Branch
    write: Callable[[str], str] = str.strip

    @property
    def ids(self) -> list[str]:
        """The examples' own."""
        return [example.id for example in self.examples]

    @cached_property
    def samples(self) -> Sequence[Sample]:
        """The questions, without what is seen."""
        return [
            Sample(
                id=one.id,
                group=one.group,
                task=one.kind,
                source=self.name,
                content=(Text(one.question),),
                answer=one.answer,
                choices=one.choices,
            )
            for one in self.examples
        ]

    def example(self, index: int, model: OmniModel) -> Example:
        """What is seen, then the question; the views are read from the store."""
        return self._example(index, model, self._seen(index, model, read=True))

    def num_tokens(self, index: int, model: OmniModel) -> int:
        """Positions of an example's sequence, its answer and the end included; no view is read for it."""
        return model.num_tokens(self._example(index, model, self._seen(index, model, read=False)))

    def num_visual_tokens(self, index: int, model: OmniModel) -> int:
        """Visual tokens of an example, all frames together."""
        return model.segment_tokens(self._seen(index, model, read=False))

    def shown_frames(self, index: int) -> int:
        """Pictures and frames of video that one example shows."""
        return len(self.store[self.examples[index].id].seconds)

    def answer_ids(self, text: str, model: OmniModel) -> list[int]:
        """An answer or choice as token ids, without start and end."""
        return model.codec.encode(self.write(text))

    def _example(self, index: int, model: OmniModel, seen: Seen) -> Example:
        one = self.examples[index]
        asked = model.codec.encode(self.write(one.question))
        return Example(content=[seen, asked], answer=self.answer_ids(one.answer, model))

    def _seen(self, index: int, model: OmniModel, *, read: bool) -> Seen:
        stored = self.store[self.examples[index].id]
        if read:
            # Half precision is for the disk: autocast on a CPU does not take it.
            views = np.array(stored.views, np.uint8 if stored.views.dtype == np.uint8 else np.float32)
            kept = torch.from_numpy(views)
        else:
            kind = torch.uint8 if stored.views.dtype == np.uint8 else torch.float32
            kept = torch.empty(stored.views.shape, dtype=kind, device="meta")
        order = None
        if num_views(stored.grid) > 1:
            order = _order(stored.size, self.image_size, self.tiling, model.view_grid(self.branch, kept))
        return Seen(views=kept, seconds=stored.seconds, branch=self.branch, grid=stored.grid, order=order)


@lru_cache(maxsize=4096)
def _order(
    size: tuple[int, int], image_size: int, tiling: Tiling, view_grid: tuple[int, int]
) -> Int[np.ndarray, " sequence"]:
    return token_order(
        *size,
        image_size=image_size,
        max_tiles=tiling.max_tiles,
        view_grid=view_grid,
        fit=tiling.fit,  # type: ignore[arg-type]
        unpad=tiling.unpad,
        newline=tiling.newline,
    )


def open_vision_split(
    name: str,
    examples: list[VisionExample],
    encoder: VisionEncoder,
    *,
    key: str,
    tiling: Tiling = Tiling(),
    branch: Branch = "video_projector",
    write: Callable[[str], str] = str.strip,
    features: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> VisionSplit:
    """A split with its views, computed where they are not there yet.

    Args:
        name: of the source, for messages and folders.
        examples: what is asked.
        encoder: its frozen self where `features` are wanted; else only its image size counts.
        key: everything that an example's frames depend on but its id.
        tiling: how a frame becomes views.
        branch: the projector for these.
        write: text as the language model writes it.
        features: what the frozen encoder gives; else pixels, for one that trains.
        progress: told how many samples of how many are done.

    Raises:
        LabError: as `store_views`.
    """
    size = encoder.image_size

    def see(place: int) -> SeenFrames:
        pixels, seconds = examples[place].see()
        height, width = pixels.shape[1:3]
        if tiling.max_tiles == 1 and (height, width) == (size, size):
            return SeenFrames(pixels, seconds, (height, width))
        cut = [image_views(f, image_size=size, max_tiles=tiling.max_tiles, fit=tiling.fit) for f in pixels]  # type: ignore[arg-type]
        views = np.concatenate([view.pixels for view in cut]) if cut else np.zeros((0, size, size, 3), dtype=np.uint8)
        return SeenFrames(views, seconds, (height, width), cut[0].grid if cut else (1, 1))

    identity = json.dumps([key, size, tiling.max_tiles, tiling.fit, encoder.key if features else "pixels"])
    store = store_views(
        name,
        [example.id for example in examples],
        see,
        encoder.encode if features else None,
        key=hashlib.sha256(identity.encode()).hexdigest(),
        progress=progress,
    )
    return VisionSplit(
        name=name,
        examples=examples,
        store=store,
        image_size=size,
        tiling=tiling,
        branch=branch,
        write=write,
    )
