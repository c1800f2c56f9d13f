"""Vision encoders by name: pictures of one size in, a grid of features out (the paper's section 3.1; SigLIP there).

Axes: `batch` (views of images, or frames of videos), `height` and `width` (pixels, both `image_size`), `rows` and
`columns` (the grid), `hidden_size`.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import AutoConfig, SiglipImageProcessor, SiglipVisionModel

from lab.errors import LabError
from lab.parts.vision_backbones import SiglipBackbone, TimmBackbone, VisionBackbone, load_timm
from lab.parts.weights import weights_sha256

FEATURES_VERSION = 1  # part of every key: raise it when the same weights and pixels would give other features
SIGLIP_TYPES = ("siglip", "siglip_vision_model")
TIMM = "timm:"


class VisionEncoder(nn.Module):
    """A backbone with its normalisation: pixels as bytes in, a grid of features out.

    A picture's features do not depend on what else is in its batch, in training neither: BatchNorm keeps the statistics
    of its pretraining whatever mode the encoder is in; its scale and shift are trained with the rest.

    Args:
        backbone: the network.
        name: part of `key`; names the network and not the place it was loaded from.
        mean: of each channel, for pixels from 0 to 1.
        std: standard deviation of each channel.
    """

    def __init__(
        self,
        *,
        backbone: VisionBackbone,
        name: str,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.name = name
        self.image_size = backbone.image_size
        self.hidden_size = backbone.hidden_size
        self.grid = backbone.grid
        self.normalisation = {"mean": list(map(float, mean)), "std": list(map(float, std))}
        self.weights_sha256 = weights_sha256(backbone)

    @property
    def key(self) -> str:
        """Names everything that the features of a picture depend on; features kept on disk stand under it."""
        facts = {
            **self.normalisation,
            "image_size": self.image_size,
            "grid": self.grid,
            "feature_index": getattr(self.backbone, "feature_index", None),
            "features_version": FEATURES_VERSION,
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return (
            f"{re.sub(r'[^A-Za-z0-9._-]+', '-', self.name)}-{self.weights_sha256[:16]}-{self.image_size}-{digest[:8]}"
        )

    def freeze(self) -> "VisionEncoder":
        """Stop training: no gradients, evaluation mode."""
        return self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "VisionEncoder":
        """Set the mode of every layer but BatchNorm, which stays in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def forward(self, pixels: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch rows columns hidden_size"]:
        """Encode pictures of `image_size`; differentiable in the weights.

        Raises:
            LabError: pixels are no bytes, or of another size.
        """
        expected = (self.image_size, self.image_size, 3)
        if pixels.dtype != torch.uint8 or tuple(pixels.shape[1:]) != expected:
            raise LabError(
                f"pixels have shape {tuple(pixels.shape)} and type {pixels.dtype}; expected batch x "
                f"{' x '.join(map(str, expected))}, torch.uint8 (cut by lab.parts.any_resolution)"
            )
        weight = next(self.backbone.parameters())
        mean, std = (
            torch.tensor(self.normalisation[key], device=weight.device)[:, None, None] for key in ("mean", "std")
        )
        normalised = (pixels.to(weight.device).permute(0, 3, 1, 2).float() / 255 - mean) / std
        return self.backbone(normalised.to(weight.dtype))

    @torch.no_grad()
    def encode(
        self, pixels: UInt8[np.ndarray, "batch height width 3"], *, batch_size: int = 16
    ) -> Float[np.ndarray, "batch rows columns hidden_size"]:
        """Features of many pictures, float32, `batch_size` at a time.

        On a CPU 32 at a time took 1.7 times as long as 16: every large buffer is asked of the system anew.

        Raises:
            LabError: pixels are no bytes, or of another size.
        """
        features = np.empty((len(pixels), *self.grid, self.hidden_size), dtype=np.float32)
        for start in range(0, len(pixels), batch_size):
            batch = torch.from_numpy(np.ascontiguousarray(pixels[start : start + batch_size]))
            features[start : start + batch_size] = self(batch).float().cpu().numpy()
        return features


def load_vision_encoder(
    name: str,
    *,
    image_size: int = 0,
    stride: int = 0,
    feature_index: int | None = None,
    pretrained: bool = True,
    weights: Path | None = None,
) -> VisionEncoder:
    """Load an encoder: `timm:NAME`, a SigLIP on the hub, or a folder with one.

    Args:
        name: which encoder.
        image_size: pixels on a side; 0 for the model's own.
        stride: pixels a step of a timm model's grid: its last features of that stride; 0 for the default.
        feature_index: instead of `stride`, which of a timm model's features.
        pretrained: whether a timm model's weights are fetched from the hub; else they are random.
        weights: of a timm model, a file with its state dict.

    Raises:
        LabError: an unknown name, weights that are missing or do not fit, or an option out of range; the message names
            the choices.
    """
    if image_size < 0 or stride < 0:
        raise LabError(f"image_size is {image_size} and stride {stride}; expected 0 (the default) or more")
    options: dict[str, Any] = {"image_size": image_size, "stride": stride, "feature_index": feature_index}
    if name.startswith(TIMM):
        backbone = load_timm(name.removeprefix(TIMM), pretrained=pretrained, weights=weights, **options)
        # Without the tag of the weights, which `key` knows by their own hash.
        return of_timm(backbone, TIMM + name.removeprefix(TIMM).partition(".")[0])
    if stride or feature_index is not None or weights is not None or not pretrained:
        raise LabError(f"vision encoder {name!r} has no stride, feature_index, pretrained or weights; timm models have")
    return _load_siglip(name, image_size)


def of_timm(backbone: TimmBackbone, name: str) -> VisionEncoder:
    """A timm model with the normalisation that timm knows for it."""
    published = backbone.model.pretrained_cfg
    return VisionEncoder(backbone=backbone, name=name, mean=published["mean"], std=published["std"]).eval()


def _load_siglip(name_or_path: str, image_size: int) -> VisionEncoder:
    try:
        model_type = AutoConfig.from_pretrained(name_or_path).model_type
        if model_type not in SIGLIP_TYPES:
            raise LabError(f"vision encoder {name_or_path!r} is a {model_type} model; expected SigLIP, or {TIMM}NAME")
        # Asked for its report, it gives a pair, which its annotation does not say.
        loaded: Any = SiglipVisionModel.from_pretrained(name_or_path, dtype=torch.float32, output_loading_info=True)
        siglip, report = loaded
    except (OSError, ValueError) as error:
        raise LabError(
            f"cannot load vision encoder {name_or_path!r}: {str(error).splitlines()[0]} expected "
            f"{TIMM}NAME, a local folder, or a SigLIP on the Hugging Face hub"
        ) from error
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("head."))
    if missing:
        raise LabError(f"vision encoder {name_or_path!r} lacks {len(missing)} of SigLIP's weights, first {missing[0]}")
    try:
        processor = SiglipImageProcessor.from_pretrained(name_or_path)
    except OSError:
        processor = SiglipImageProcessor()  # a checkpoint saved without it; SigLIP's own all normalise alike
    backbone = SiglipBackbone(siglip=siglip, image_size=image_size)
    return VisionEncoder(backbone=backbone, name="siglip", mean=processor.image_mean, std=processor.image_std).eval()
