"""What training on pictures and video takes, counted before anything is rented: views, tokens, samples, bytes by part.

Sections 2 and 3 of the paper. As in `lab.training.memory`; the projectors are traced with their place marks and the
order of AnyRes. A frozen vision encoder is outside the step, its features are computed once; the projector of the other
branch is in the model and takes its weights alone.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lab.errors import LabError
from lab.parts.any_resolution import best_grid, num_views, token_order
from lab.parts.vision_backbones import SiglipBackbone, VisionBackbone
from lab.parts.visual_tokens import Branch, Seen, VisualTokens
from lab.training.memory import Memory, check_trained, language_model_memory, logits_bytes, outside, part_memory
from lab.training.samples import Tiling
from lab.training.saved_bytes import Precision, Saved, vision_encoder_saved
from lab.training.traced_bytes import batch_saved

VISION_PARTS = ("vision_encoder", "visual_projector", "video_projector", "language_model")
BRANCHES: tuple[Branch, ...] = ("visual_projector", "video_projector")


@dataclass(frozen=True, kw_only=True)
class VisionSample:
    """One question: `frames` of `frame_size` (height and width in pixels) seen through a branch, and its texts."""

    kind: str
    branch: Branch
    frames: int
    frame_size: tuple[int, int]
    tiling: Tiling
    question_tokens: int
    answer_tokens: int

    def __post_init__(self) -> None:
        for name in ("frames", "question_tokens", "answer_tokens"):
            if getattr(self, name) < 0:
                raise LabError(f"{name} is {getattr(self, name)}; expected at least 0")


@dataclass(frozen=True, kw_only=True)
class VisionMemory(Memory):
    """As `Memory`, with what is seen of a sample."""

    sample: VisionSample
    views: int
    """Of each frame: its tiles and the whole, or the whole alone."""
    frame_tokens: int


def vision_memory(
    *,
    backbone: VisionBackbone,
    projector: VisualTokens,
    language_model: nn.Module,
    sample: VisionSample,
    trained: Collection[str],
    precision: Precision,
    batch_tokens: int,
    batch_size: int | None = None,
) -> VisionMemory:
    """What a step of a vision language model takes on a batch of one kind of sample.

    Args:
        backbone: of the encoder; all parts best on the meta device.
        projector: that of each branch, which are alike.
        language_model: transformers' causal model of Qwen2, Qwen3 or Llama.
        sample: the longest one.
        trained: names of `VISION_PARTS`.
        precision: of weights and products.
        batch_tokens: positions of a batch, padding left out, which decide the number of samples.
        batch_size: samples, instead.

    Raises:
        LabError: an unknown part, nothing to train, no sample, nothing seen where only encoder and projectors train, a
            grid too small for a token, a sample longer than `batch_tokens`, or a language model whose form has no
            formula.
    """
    check_trained(trained, VISION_PARTS)
    if batch_size is not None and batch_size < 1:
        raise LabError(f"batch_size is {batch_size}; expected at least 1")
    if not sample.frames and "language_model" not in trained:
        raise LabError(f"nothing is seen, so nothing can train of: {', '.join(sorted(trained))}")
    view_grid = projector.projector.output_grid(*backbone.grid)
    tiles = best_grid(*sample.frame_size, image_size=backbone.image_size, max_tiles=sample.tiling.max_tiles)
    order = token_order(
        *sample.frame_size,
        image_size=backbone.image_size,
        max_tiles=sample.tiling.max_tiles,
        view_grid=view_grid,
        fit=sample.tiling.fit,
        unpad=sample.tiling.unpad,
        newline=projector.newline is not None,
    )
    tokens = sample.frames * len(order) + sample.question_tokens + 1 + sample.answer_tokens + 1
    if tokens > batch_tokens and batch_size is None:
        raise LabError(f"a sample of {sample.kind} takes {tokens} tokens, more than batch_tokens ({batch_tokens})")
    size = max(1, round(batch_tokens / tokens)) if batch_size is None else batch_size
    views = num_views(tiles)
    encoder_trains = "vision_encoder" in trained

    def seen() -> tuple[Seen]:
        features = torch.empty(sample.frames * views, *backbone.grid, backbone.hidden_size)
        features.requires_grad_(encoder_trains)
        return (Seen(views=features, seconds=(0.0,) * sample.frames, grid=tiles, order=order if views > 1 else None),)

    encoder = part_memory(
        "vision_encoder",
        backbone,
        precision,
        trained=encoder_trains,
        saved=_backbone_saved(backbone, sample.frames * views, size, precision) if encoder_trains else Saved(),
    )
    projectors = []
    for branch in BRANCHES:
        saved = Saved()
        if branch == sample.branch and sample.frames and (encoder_trains or branch in trained):
            saved = batch_saved(projector, seen, size, precision, trained=branch in trained)
        projectors.append(part_memory(branch, projector, precision, trained=branch in trained, saved=saved))
    read = language_model_memory(
        language_model,
        precision,
        trained="language_model" in trained,
        batch_size=size,
        # The answer's end is scored and not read.
        tokens=tokens - 1,
        answer_tokens=sample.answer_tokens,
    )
    return VisionMemory(
        parts=(encoder if encoder_trains else outside(encoder), *projectors, read),
        batch_size=size,
        tokens=tokens,
        logits=logits_bytes(language_model, size, sample.answer_tokens),
        sample=sample,
        views=views,
        frame_tokens=len(order),
    )


def _backbone_saved(backbone: VisionBackbone, views: int, batch_size: int, precision: Precision) -> Saved:
    if not views:
        return Saved()
    if isinstance(backbone, SiglipBackbone):
        config: Any = backbone.siglip.config
        size = backbone.image_size
        return vision_encoder_saved(backbone.siglip, batch_size * views, config, precision, image_size=size)

    def pixels() -> tuple[torch.Tensor]:
        return (torch.empty(views, 3, backbone.image_size, backbone.image_size),)

    return batch_saved(backbone, pixels, batch_size, precision)
