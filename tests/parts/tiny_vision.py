"""A vision encoder of a few weights and models that join it to a tiny language model, for several rooms' tests."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lab.parts.any_resolution import num_views, token_order
from lab.parts.media_tokens import Branch, Seen, VisualTokens
from lab.parts.omni_model import BRANCHES as BRANCHES
from lab.parts.omni_model import Example, OmniModel
from lab.parts.vision_encoders import VisionBackbone, VisionEncoder
from lab.parts.visual_projectors import build_visual_projector
from tests.parts.tiny_models import HIDDEN_SIZE, SPREAD, language_model

IMAGE_SIZE = 8
GRID = (4, 4)
NUM_CHANNELS = 6


class PatchBackbone(VisionBackbone):
    """Patches of 2 x 2 pixels through one linear layer and a sine."""

    def __init__(self) -> None:
        super().__init__()
        self.image_size, self.hidden_size, self.grid = IMAGE_SIZE, NUM_CHANNELS, GRID
        self.conv = nn.Conv2d(3, NUM_CHANNELS, 2, stride=2)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.conv(pixels).sin().permute(0, 2, 3, 1)


def tiny_encoder(seed: int = 0) -> VisionEncoder:
    torch.manual_seed(seed)
    return VisionEncoder(backbone=PatchBackbone(), name="tiny", mean=(0.5,) * 3, std=(0.3,) * 3).eval()


def tiny_tokens(projector: str = "mean_pool", *, seed: int = 0, **options: Any) -> VisualTokens:
    """2 x 2 tokens a view of 4 x 4 features, random enough for every weight and place to matter."""
    torch.manual_seed(seed)
    widths = {"hidden_size": NUM_CHANNELS, "output_size": HIDDEN_SIZE}
    options = {"marks_places": True, "newline": True, **options}
    tokens = VisualTokens(
        projector=build_visual_projector(projector, **widths),
        feature_mean=torch.randn(NUM_CHANNELS),
        feature_std=torch.rand(NUM_CHANNELS) + 0.5,
        **options,
    )
    for parameter in tokens.parameters():
        nn.init.normal_(parameter, std=SPREAD)
    return tokens.eval()


def seeing_model(*, encoder: VisionEncoder | None = None, alphabet: str = "abcd", **options: Any) -> OmniModel:
    return OmniModel(
        language_model=language_model(alphabet=alphabet),
        visual_projector=tiny_tokens(seed=1, **options),
        video_projector=tiny_tokens(seed=2, **options),
        vision_encoder=encoder,
        positions="sequential",
    ).eval()


def seen(
    frames: int,
    size: tuple[int, int] = (IMAGE_SIZE, IMAGE_SIZE),
    *,
    branch: Branch = "visual_projector",
    pixels: bool = False,
    seed: int = 3,
) -> Seen:
    """Frames of `size` pixels with at most two tiles, of random features or pixels."""
    cut: dict[str, Any] = {"image_size": IMAGE_SIZE, "max_tiles": 2}
    grid = (1, 2) if size[1] > size[0] else (2, 1) if size[0] > size[1] else (1, 1)
    views = frames * num_views(grid)
    rng = torch.Generator().manual_seed(seed)
    order = token_order(*size, view_grid=(2, 2), newline=True, **cut) if num_views(grid) > 1 else None
    return Seen(
        views=torch.randint(0, 256, (views, IMAGE_SIZE, IMAGE_SIZE, 3), generator=rng, dtype=torch.uint8)
        if pixels
        else torch.randn(views, *GRID, NUM_CHANNELS, generator=rng),
        branch=branch,
        seconds=tuple(np.arange(frames) * 1.5),
        grid=grid,
        order=order,
    )


def asked(question_ids: list[int], branch: Branch, answer: Sequence[int] = (), **options: Any) -> Example:
    return Example(content=[seen(branch=branch, **options), question_ids], answer=answer)
