"""From a vision study's examples to the batches of its stages: views computed once, questions, tokens counted.

Section 3 of the paper. A step's batch is of one kind of data and holds about the same number of language-model tokens
whatever the kind (unless a number of examples is asked for), so a mixing weight is a share of tokens, and no row is
padded to the length of another kind.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int

from lab.data.batching import batches_from, padding_share
from lab.data.view_features import SeenFrames, ViewStore, store_views
from lab.errors import LabError, choose
from lab.parts.any_resolution import image_views, num_views, token_order
from lab.parts.joined_sequences import AnswerLoss
from lab.parts.vision_encoders import VisionEncoder
from lab.parts.vision_language_model import Branch, Question, VisionLanguageModel
from lab.parts.visual_tokens import Seen
from lab.training.stages import Stage
from lab.training.vision_examples import VisionExample


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How a frame becomes views (AnyRes) and their tokens one sequence; one tile is a fixed resolution."""

    max_tiles: int = 1
    fit: str = "pad"
    unpad: bool = False
    newline: bool = False


@dataclass(frozen=True, kw_only=True)
class VisionSplit:
    """Examples of one split and what is seen of them; `branch` is the projector that they pass through."""

    name: str
    examples: list[VisionExample]
    store: ViewStore
    image_size: int
    tiling: Tiling
    branch: Branch
    write: Callable[[str], str] = str.strip

    def __len__(self) -> int:
        return len(self.examples)

    def question(self, index: int, model: VisionLanguageModel) -> Question:
        """One example as the model takes it; the views are read from the store."""
        example, stored = self.examples[index], self.store[self.examples[index].id]
        grid = model.view_grid(self.branch, self.store.view_shape)
        order = _order(stored.size, self.image_size, self.tiling, grid) if num_views(stored.grid) > 1 else None
        # Half precision is for the disk: autocast on a CPU does not take it.
        views = torch.from_numpy(np.array(stored.views, np.uint8 if stored.views.dtype == np.uint8 else np.float32))
        seen = Seen(views=views, seconds=stored.seconds, grid=stored.grid, order=order)
        ids = model.codec.encode(self.write(example.question))
        return Question(seen=seen, question_ids=ids, branch=self.branch)

    def answer_ids(self, text: str, model: VisionLanguageModel) -> list[int]:
        """An answer or choice as token ids, without start and end."""
        return model.codec.encode(self.write(text))

    def num_visual_tokens(self, index: int, model: VisionLanguageModel) -> int:
        """Visual tokens of an example, all frames together."""
        stored = self.store[self.examples[index].id]
        grid = model.view_grid(self.branch, self.store.view_shape)
        tiled = num_views(stored.grid) > 1
        per_frame = len(_order(stored.size, self.image_size, self.tiling, grid)) if tiled else grid[0] * grid[1]
        return len(stored.seconds) * per_frame

    def num_tokens(self, index: int, model: VisionLanguageModel) -> int:
        """Positions of an example's joined sequence, its answer and the end included."""
        example = self.examples[index]
        text = len(model.codec.encode(self.write(example.question))) + len(self.answer_ids(example.answer, model))
        return self.num_visual_tokens(index, model) + text + len(model.codec.start_ids) + 1


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


def _apportioned(shares: Mapping[str, float], steps: int) -> dict[str, int]:
    """Steps of each kind, `steps` in all: whole parts first, then one more by the largest remainders."""
    whole = {kind: int(round(share * steps, 9)) for kind, share in shares.items()}
    by_remainder = sorted(shares, key=lambda kind: round(whole[kind] - shares[kind] * steps, 9))
    return {kind: whole[kind] + (kind in by_remainder[: steps - sum(whole.values())]) for kind in shares}


@dataclass
class StageBatches:
    """The batch of every step of a stage, the same for the same seed however often a run is interrupted.

    The steps of each kind of data are exact to rounding and their order is drawn; each kind goes through epochs of its
    own, no example twice in one (what does not fill a last batch is left out). `earlier` are the stages before it in a
    curriculum, on the same sources, batch tokens and seed: it goes on in each kind's epochs where they stopped, so that
    no example is seen a second time because a stage began anew.

    Raises:
        LabError: a kind of data that is not there, an example that alone has more than `batch_tokens`, or earlier
            stages with other batch tokens or another seed.
    """

    sources: Mapping[str, VisionSplit]
    model: VisionLanguageModel
    stage: Stage
    batch_tokens: int
    seed: int
    batch_size: int = 0
    """Examples a step, where rows are to see equally many whatever their tokens; 0: as `batch_tokens` gives."""
    earlier: Sequence["StageBatches"] = ()
    lengths: dict[str, list[int]] = field(init=False)
    kinds: list[str] = field(init=False)

    def __post_init__(self) -> None:
        assert self.stage.steps is not None
        shares = self.stage.mixing_shares
        own = (self.batch_tokens, self.batch_size, self.seed)
        if any((e.batch_tokens, e.batch_size, e.seed) != own for e in self.earlier):
            raise LabError(
                f"stage {self.stage.name!r} has batch_tokens {self.batch_tokens} and seed {self.seed}, and a stage "
                "before it has others; give all stages of a curriculum the same"
            )
        self._splits = {kind: choose(self.sources, kind, "kind of data") for kind in shares}
        self.lengths = {
            kind: [split.num_tokens(i, self.model) for i in range(len(split))] for kind, split in self._splits.items()
        }
        self._sizes = {kind: self._batch_size(kind) for kind in shares}
        order = [kind for kind, steps in _apportioned(shares, self.stage.steps).items() for _ in range(steps)]
        rng = np.random.default_rng([self.seed, len(order)])
        self.kinds = [order[i] for i in rng.permutation(len(order))]
        self._done = {kind: sum(stage.kinds.count(kind) for stage in self.earlier) for kind in shares}
        self._next: dict[str, tuple[int, object]] = {}

    def _batch_size(self, kind: str) -> int:
        lengths = self.lengths[kind]
        if max(lengths) > self.batch_tokens:
            raise LabError(
                f"an example of {kind!r} takes {max(lengths)} tokens, more than batch_tokens ({self.batch_tokens})"
            )
        return self.batch_size or max(1, round(self.batch_tokens / (sum(lengths) / len(lengths))))

    def indices(self, step: int) -> tuple[str, list[int]]:
        """The kind of data and the examples of a step."""
        kind = self.kinds[step]
        number = self._done[kind] + self.kinds[:step].count(kind)
        expected, batches = self._next.get(kind, (-1, None))
        if number != expected or batches is None:
            batches = batches_from(self.lengths[kind], batch_size=self._sizes[kind], seed=self.seed, first_step=number)
        chosen = next(batches)  # type: ignore[call-overload]
        self._next[kind] = (number + 1, batches)
        return kind, chosen

    def loss(self, step: int) -> AnswerLoss:
        """Losses of the batch of one step."""
        kind, chosen = self.indices(step)
        split = self._splits[kind]
        questions = [split.question(i, self.model) for i in chosen]
        answers = [split.answer_ids(split.examples[i].answer, self.model) for i in chosen]
        return self.model(questions, answers)

    def costs(self) -> tuple[int, int]:
        """Language-model tokens and decoded frames of all steps, padding left out."""
        tokens = frames = 0
        for step in range(len(self.kinds)):
            kind, chosen = self.indices(step)
            tokens += sum(self.lengths[kind][i] for i in chosen)
            split = self._splits[kind]
            frames += sum(len(split.store[split.examples[i].id].seconds) for i in chosen)
        self._next.clear()
        return tokens, frames

    def padding_share(self) -> float:
        """Share of the positions computed that are padding."""
        chosen = [self.indices(step) for step in range(len(self.kinds))]
        self._next.clear()
        padded = [padding_share(self.lengths[kind], [batch]) for kind, batch in chosen]
        return sum(padded) / len(padded)
