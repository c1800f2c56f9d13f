"""From sounds, pictures and video frames to tokens of the language model: standardisation, projector, places, order.

Sections 2 and 3 of the paper: an audio projector, a visual projector for images and one of its own for video. Axes:
`frames` (encoder frames of a sound), `views` (the whole of a picture, then its tiles where it has some; frame after
frame), `rows` and `columns` (the encoder's grid), `features` (the encoder's width), `tokens`, `hidden_size` (the
language model's width).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from lab.parts.any_resolution import NEWLINE, arrange_tokens, num_views
from lab.parts.audio_projectors import AudioProjector
from lab.parts.part import Built
from lab.parts.visual_projectors import VisualProjector

_PLACE_WAVES = 6
_TIME_WAVES = 8
LONGEST_SECONDS = 64.0
NUM_WAVES = 4 * _PLACE_WAVES + 2 * _TIME_WAVES + 1

Branch = Literal["visual_projector", "video_projector"]


@dataclass(frozen=True)
class Sound:
    """One sound: what the encoder gave of it or, for a model with the encoder inside, its samples (16 kHz, mono)."""

    values: Float[Tensor, "frames features"] | Float[Tensor, " samples"]

    @property
    def is_waveform(self) -> bool:
        """Whether the encoder has yet to hear it."""
        return self.values.dim() == 1


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One picture or video: a picture is one frame; of a video of which nothing is to be seen there is none.

    `branch` is the projector that it passes through. `views` holds what the encoder gave or, for a model with the
    encoder inside, the pixels: of each frame the whole, then the tiles of `grid`. `order` is
    `any_resolution.token_order` of every frame; None is the order in which one view's tokens stand.
    """

    views: Float[Tensor, "views rows columns features"] | UInt8[Tensor, "views height width 3"]
    seconds: Sequence[float]
    branch: Branch = "visual_projector"
    grid: tuple[int, int] = (1, 1)
    order: Int[np.ndarray, " sequence"] | None = None


class _Projected(Built, nn.Module):
    """A projector and what is around it; a stage trains all of it or nothing.

    Features are standardised per channel with `feature_mean` and `feature_std`. Differs from the paper: this is not
    described there.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(
        self,
        *,
        projector: Any,
        feature_mean: Float[Tensor, " features"] | None = None,
        feature_std: Float[Tensor, " features"] | None = None,
    ) -> None:
        super().__init__()
        self.projector = projector
        width = projector.hidden_size
        self.register_buffer("feature_mean", torch.zeros(width) if feature_mean is None else feature_mean.clone())
        self.register_buffer("feature_std", torch.ones(width) if feature_std is None else feature_std.clone())

    def standardised(self, features: Tensor) -> Tensor:
        """Features of any shape whose last axis is the encoder's width."""
        return (features - self.feature_mean) / self.feature_std


class AudioTokens(_Projected):
    """Projector and standardisation of sound."""

    projector: AudioProjector

    def forward(
        self, features: Float[Tensor, "batch frames features"], lengths: Int[Tensor, " batch"]
    ) -> list[Float[Tensor, "tokens hidden_size"]]:
        """Tokens of each sound of a right-padded batch, without padding."""
        tokens, counts = self.projector(self.standardised(features), lengths)
        return [own[:count] for own, count in zip(tokens, counts.tolist(), strict=True)]


class VisualTokens(_Projected):
    """Projector, standardisation and place marks of one kind of picture.

    Where `marks_places` says so, a linear layer adds to each token where it stands in the picture (row and column of
    its centre, 0 to 1) and when (seconds), as sines. Differs from the paper: this is not described there. A CNN's
    features hold no place, and a language model of three layers does not count 150 tokens by itself; SigLIP and a 7B
    are run without.
    """

    def __init__(
        self,
        *,
        projector: VisualProjector,
        marks_places: bool,
        newline: bool = False,
        feature_mean: Float[Tensor, " features"] | None = None,
        feature_std: Float[Tensor, " features"] | None = None,
    ) -> None:
        super().__init__(projector=projector, feature_mean=feature_mean, feature_std=feature_std)
        self.marks = nn.Linear(NUM_WAVES, projector.output_size, bias=False) if marks_places else None
        self.newline = nn.Parameter(0.02 * torch.randn(projector.output_size)) if newline else None

    def forward(self, samples: Sequence[Seen]) -> list[Float[Tensor, "tokens hidden_size"]]:
        """Tokens of every sample, its frames one after the other."""
        device = self.feature_mean.device
        empty = torch.zeros(0, self.projector.output_size, device=device)
        there = [sample for sample in samples if sample.seconds]
        if not there:
            return [empty for _ in samples]
        features = torch.cat([sample.views for sample in there]).to(device)
        projected = self.projector(self.standardised(features.float()))
        size = self.projector.output_grid(*features.shape[1:3])
        tokens = iter(projected.split([len(sample.views) for sample in there]))
        return [self._in_order(next(tokens), sample, size) if sample.seconds else empty for sample in samples]

    def _in_order(
        self, tokens: Float[Tensor, "views cells hidden_size"], sample: Seen, size: tuple[int, int]
    ) -> Float[Tensor, "tokens hidden_size"]:
        order = np.arange(size[0] * size[1]) if sample.order is None else sample.order
        frames = tokens.split(num_views(sample.grid))
        arranged = torch.stack([arrange_tokens(frame, order, newline=self.newline) for frame in frames])
        if self.marks is not None:
            places = torch.from_numpy(token_places(order, sample.grid, size)).to(arranged.device)
            seconds = torch.tensor(sample.seconds, dtype=torch.float32, device=arranged.device)
            arranged = arranged + self.marks(place_waves(places, seconds)).to(arranged.dtype)
        return arranged.flatten(0, 1)


def token_places(
    order: Int[np.ndarray, " sequence"], grid: tuple[int, int], size: tuple[int, int]
) -> Float[np.ndarray, "sequence 3"]:
    """Row and column (of its centre, 0 to 1 across the frame) of each token, and 1.0 where it is a tile's.

    With one tile of 1 x 2 tokens beside another, `order` 0 1 2 3 4 5: the whole view's tokens lie at columns 0.25 and
    0.75, the tiles' at 0.125, 0.375, 0.625 and 0.875. A newline token lies at the right edge, column 1.
    """
    rows, columns = size
    index = np.where(order == NEWLINE, 0, order)
    view, cell = np.divmod(index, rows * columns)
    row, column = (np.divmod(cell, columns)[at] + 0.5 for at in (0, 1))
    tile_row, tile_column = np.divmod(np.maximum(view - 1, 0), grid[1])
    tiled = view > 0
    across = np.where(tiled, grid[1] * columns, columns)
    down = np.where(tiled, grid[0] * rows, rows)
    places = np.stack([(tile_row * rows + row) / down, (tile_column * columns + column) / across, tiled], axis=1)
    newlines = np.flatnonzero(order == NEWLINE)
    # A newline ends the row of the token before it.
    places[newlines] = places[newlines - 1] * (1, 0, 1) + (0, 1, 0)
    return places.astype(np.float32)


def place_waves(
    places: Float[Tensor, "tokens 3"], seconds: Float[Tensor, " frames"]
) -> Float[Tensor, "frames tokens waves"]:
    """Row, column and second of each token as sines and cosines of rising frequency, and whether it is of a tile."""
    frequencies = math.pi * 2.0 ** torch.arange(_PLACE_WAVES, device=places.device)
    angles = (places[:, :2, None] * frequencies).flatten(1)
    where = torch.cat([angles.sin(), angles.cos(), places[:, 2:]], dim=1)
    turns = seconds[:, None] * (2 * math.pi / LONGEST_SECONDS * 2.0 ** torch.arange(_TIME_WAVES, device=places.device))
    when = torch.cat([turns.sin(), turns.cos()], dim=1)
    return torch.cat([where.expand(len(seconds), -1, -1), when[:, None].expand(-1, len(places), -1)], dim=2)
