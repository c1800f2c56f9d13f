"""The scale of the studies of pictures and video: the largest samples of each kind, in batches of so many tokens.

Sections 2 and 3 of the paper. Sizes of pictures and numbers of frames follow from the sources' names; the lengths of
questions and answers are ours.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, get_args

import torch

from lab.data.sources import largest_sample
from lab.data.video.moments import Sight
from lab.data.video.reading import VIDEO_FRAME
from lab.parts.any_resolution import num_tokens
from lab.parts.vision_backbones import VisionBackbone
from lab.parts.visual_projectors import Padding, build_visual_projector
from lab.parts.visual_tokens import Branch, VisualTokens
from lab.study.scale_cells import ANSWER_TOKENS, Asked, Column, Count
from lab.training.curricula import IMAGE, VIDEO
from lab.training.language_models import language_model_without_weights
from lab.training.memory import Memory, PartMemory
from lab.training.parameters import VisionParameters
from lab.training.samples import Tiling
from lab.training.saved_bytes import Precision
from lab.training.stages import PAPER_STAGES
from lab.training.vision import vision_backbone_without_weights
from lab.training.vision_cell import IMAGE_BRANCH, cell_branch, cell_stages, projector_options
from lab.training.vision_memory import BRANCHES, VISION_PARTS, VisionMemory, VisionSample, vision_memory

QUESTION_TOKENS = 64  # ours: a question with its choices
SOURCES = {IMAGE: "images", VIDEO: "videos"}
Leg = tuple[str, Branch, tuple[str, ...]]
"""A kind of data, the projector that it passes through, and what trains."""


@dataclass(frozen=True, kw_only=True)
class CellMemory(VisionMemory):
    """The dearest batch of a cell or stage, and that of its longest samples."""

    longest: VisionMemory


class VisionCells:
    """The cells of a rung, of which each may have an encoder, a language model and tokens of its own.

    Args:
        rows: parameters of each, by row.
        asked: of texts and batch.
        precision: of weights and products.

    Raises:
        LabError: an option that such a study has not.
    """

    kind = "pictures or video"
    needed: tuple[str, ...] = (
        "vision_encoder",
        "train_encoder",
        "projector",
        "language_model",
        "train_language_model",
        "curriculum",
        "batch_tokens",
        "precision",
    )
    parts = VISION_PARTS
    studied_as = "projector"
    stage_columns: Mapping[str, Column] = {
        "tokens a sample": lambda memory: f"{memory.longest.tokens:,}",
        "dearest batch": lambda memory: f"{memory.batch_size} {memory.sample.kind}",
    }
    columns: Mapping[str, Column] = {
        "tokens a frame": lambda memory: str(memory.longest.frame_tokens),
        "frames": lambda memory: str(memory.longest.sample.frames),
        **stage_columns,
    }

    def __init__(self, rows: Mapping[str, VisionParameters], asked: Asked, precision: Precision) -> None:
        asked.refuse("seconds", "a study of pictures or video")
        self._rows, self._asked, self._precision = rows, asked, precision
        self._question_tokens = QUESTION_TOKENS if asked.question_tokens is None else asked.question_tokens
        self._answer_tokens = ANSWER_TOKENS if asked.answer_tokens is None else asked.answer_tokens
        self._encoder = lru_cache(vision_backbone_without_weights)
        self._language_model: Any = lru_cache(language_model_without_weights)

    @property
    def heading(self) -> tuple[str, str]:
        """The models, which rows may change, and the samples of a step."""
        batch = f"about {self._values('batch_tokens')} tokens of samples"
        if self._asked.batch_size is not None:
            batch = f"{self._asked.batch_size} samples"
        return (
            f"{self._values('vision_encoder')} and {self._values('language_model')}",
            f"{batch} as large as their source has them, each the projector's tokens, {self._question_tokens} of "
            f"question, 1 start, {self._answer_tokens} of answer and its end",
        )

    def _values(self, name: str) -> str:
        return " or ".join(dict.fromkeys(str(getattr(parameters, name)) for parameters in self._rows.values()))

    def notes(self, parameters: Any) -> tuple[str, ...]:
        """What a frame of the paper's largest size takes, whole and in tiles, by what becomes of odd patches."""
        encoder = self._built_encoder(parameters)
        if encoder.image_size != VIDEO_FRAME[0]:
            return ()
        reduces = parameters.projector != "mlp"
        found = []
        for padding in get_args(Padding) if reduces else ("",):
            options = {**projector_options(parameters), **({"padding": padding} if reduces else {})}
            with torch.device("meta"):
                projector = build_visual_projector(parameters.projector, hidden_size=1, output_size=1, **options)
            tokens = partial(
                num_tokens,
                *VIDEO_FRAME,
                image_size=encoder.image_size,
                view_grid=projector.output_grid(*encoder.grid),
                newline=parameters.newline,
            )
            named = f" with padding {padding!r}" if padding else ""
            found.append(f"{tokens(max_tiles=1)} or {tokens(max_tiles=2)}{named}")
        return (
            f"Tokens of a frame of {VIDEO_FRAME[0]} x {VIDEO_FRAME[1]}, whole or with its tiles: {', '.join(found)}.",
        )

    def studied(self, memory: Memory) -> PartMemory:
        """The projector that the dearest batch passes through."""
        assert isinstance(memory, VisionMemory)
        return next(part for part in memory.parts if part.name == memory.sample.branch)

    def row(self, parameters: Any) -> Count:
        """Counts the dearest batch of a cell's own stages."""
        return lambda: self._dearest(parameters, list(dict.fromkeys(_own_legs(parameters))))

    def stages(self, parameters: Any) -> dict[str, Count]:
        """Count the paper's stages of image and video, on the dearest batch of the data that the cell has."""
        found: dict[str, Count] = {}
        for stage in PAPER_STAGES.values():
            trained = tuple(part for part in VISION_PARTS if part in stage.trained)
            legs: list[Leg] = [
                (kind, branch, trained)
                for branch in BRANCHES
                for kind in _KINDS[branch]
                if branch in stage.parts and getattr(parameters, SOURCES[kind])
            ]
            if legs:
                found[stage.name] = partial(self._dearest, parameters, legs)
        return found

    def _built_encoder(self, parameters: VisionParameters) -> VisionBackbone:
        return self._encoder(parameters.vision_encoder, image_size=parameters.image_size, stride=parameters.stride)

    def _dearest(self, parameters: VisionParameters, legs: list[Leg]) -> CellMemory:
        counted = [self._count(parameters, *leg) for leg in legs]
        dearest = max(counted, key=lambda memory: memory.total)
        return CellMemory(**vars(dearest), longest=max(counted, key=lambda memory: memory.tokens))

    def _count(self, parameters: VisionParameters, kind: str, branch: Branch, trained: tuple[str, ...]) -> VisionMemory:
        encoder = self._built_encoder(parameters)
        language_model = self._language_model(parameters.language_model)
        tiling = Tiling(max_tiles=parameters.max_tiles, fit=parameters.fit, unpad=parameters.unpad)
        seen = largest_sample(
            getattr(parameters, SOURCES[kind]),
            Sight(
                frame_size=parameters.frame_size,
                frames_per_second=parameters.frames_per_second,
                max_frames=parameters.max_frames,
            ),
            is_video=kind == VIDEO,
            image_size=encoder.image_size,
            max_tiles=tiling.max_tiles,
        )
        with torch.device("meta"):
            projector = VisualTokens(
                projector=build_visual_projector(
                    parameters.projector,
                    hidden_size=encoder.hidden_size,
                    output_size=language_model.config.hidden_size,
                    **projector_options(parameters),
                ),
                marks_places=parameters.marks_places,
                newline=parameters.newline,
            )
        return vision_memory(
            backbone=encoder,
            projector=projector,
            language_model=language_model,
            sample=VisionSample(
                kind=kind,
                branch=branch,
                frames=seen.frames,
                frame_size=seen.frame_size,
                tiling=tiling,
                question_tokens=self._question_tokens,
                answer_tokens=self._answer_tokens,
            ),
            trained=trained,
            precision=self._precision,
            batch_tokens=parameters.batch_tokens,
            batch_size=self._asked.batch_size,
        )


_KINDS: dict[Branch, tuple[str, ...]] = {"visual_projector": (IMAGE,), "video_projector": (IMAGE, VIDEO)}


def _own_legs(parameters: VisionParameters) -> Iterator[Leg]:
    for stage in cell_stages(parameters):
        branch: Branch = "visual_projector" if stage.name == IMAGE_BRANCH else cell_branch(parameters)
        for kind in stage.data:
            yield kind, branch, tuple(part for part in VISION_PARTS if part in stage.trained)
