"""From the frames of a sound to tokens of the language model: standardisation and projector.

Section 3.1 of the paper. Axes: `frames` (encoder frames), `features` (the encoder's width), `tokens`, `hidden_size`
(the language model's width).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lab.errors import LabError
from lab.parts.audio_projectors import AudioProjector


@dataclass(frozen=True)
class Sound:
    """One sound: what the encoder gave of it or, for a model with the encoder inside, its samples (16 kHz, mono)."""

    values: Float[Tensor, "frames features"] | Float[Tensor, " samples"]

    @property
    def is_waveform(self) -> bool:
        """Whether the encoder has yet to hear it."""
        return self.values.dim() == 1


class AudioTokens(nn.Module):
    """Projector and standardisation of sound; a stage trains all of it or nothing.

    Features are standardised per channel with `feature_mean` and `feature_std`. Differs from the paper: this is not
    described there.

    Raises:
        LabError: statistics that are not as wide as the projector's input.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(
        self,
        *,
        projector: AudioProjector,
        feature_mean: Float[Tensor, " features"] | None = None,
        feature_std: Float[Tensor, " features"] | None = None,
    ) -> None:
        super().__init__()
        self.projector = projector
        width = projector.hidden_size
        for name, value in (("feature_mean", feature_mean), ("feature_std", feature_std)):
            if value is not None and value.shape != (width,):
                raise LabError(f"{name} has {tuple(value.shape)} values; the projector takes {width} features")
        self.register_buffer("feature_mean", torch.zeros(width) if feature_mean is None else feature_mean.clone())
        self.register_buffer("feature_std", torch.ones(width) if feature_std is None else feature_std.clone())

    def forward(
        self, features: Float[Tensor, "batch frames features"], lengths: Int[Tensor, " batch"]
    ) -> list[Float[Tensor, "tokens hidden_size"]]:
        """Tokens of each sound of a right-padded batch, without padding."""
        tokens, counts = self.projector((features - self.feature_mean) / self.feature_std, lengths)
        return [own[:count] for own, count in zip(tokens, counts.tolist(), strict=True)]
