"""Vision encoders by name: pictures of one size in, a grid of features out (the paper's section 3.1; SigLIP there).

Axes: `batch` (views of images, or frames of videos), `height` and `width` (pixels, both `image_size`), `rows` and
`columns` (the grid), `hidden_size`.
"""

import difflib
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import timm
import torch
from jaxtyping import Float, UInt8
from timm.models import load_state_dict
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import AutoConfig, SiglipImageProcessor, SiglipVisionModel

from lab.errors import LabError
from lab.parts.part import Built, loading, weights_sha256

FEATURES_VERSION = 1  # part of every key: raise it when the same weights and pixels would give other features
SIGLIP_TYPES = ("siglip", "siglip_vision_model")
TIMM = "timm:"
Pixels = Float[Tensor, "batch 3 image_size image_size"]
Features = Float[Tensor, "batch rows columns hidden_size"]


class VisionBackbone(Built, nn.Module, ABC):
    """Square pictures of `image_size` in, a grid of `grid` = (rows, columns) features of `hidden_size` out.

    Pixels are normalised already; layers that the grid does not depend on (heads, pooling, later stages) are taken out,
    so that each parameter left is one that training can move.
    """

    image_size: int
    hidden_size: int
    grid: tuple[int, int]

    @abstractmethod
    def forward(self, pixels: Pixels) -> Features:
        """Features of normalised pixels."""


class SiglipBackbone(VisionBackbone):
    """SigLIP's last hidden states, after its last LayerNorm; 384 px in patches of 14 are 27 x 27 (6 px are left out).

    At another `image_size` than its own (0: its own) its position table is resampled, by transformers.

    Raises:
        LabError: `image_size` is smaller than a patch.
    """

    def __init__(self, *, siglip: SiglipVisionModel, image_size: int = 0) -> None:
        super().__init__()
        # transformers allows a side for each axis; SigLIP's are square.
        patch_size = cast(int, siglip.config.patch_size)
        self.image_size = image_size or cast(int, siglip.config.image_size)
        if self.image_size < patch_size:
            raise LabError(f"image_size is {self.image_size}; expected at least one patch of {patch_size}")
        self.hidden_size = siglip.config.hidden_size
        self.grid = (self.image_size // patch_size,) * 2
        self.siglip = siglip
        if siglip.use_head:
            siglip.use_head = False
            del siglip.head

    def forward(self, pixels: Pixels) -> Features:
        """Patches row by row, laid out as the grid they came from."""
        resampled = self.image_size != self.siglip.config.image_size
        hidden = self.siglip(pixel_values=pixels, interpolate_pos_encoding=resampled).last_hidden_state
        return hidden.unflatten(1, self.grid)


class TimmBackbone(VisionBackbone):
    """One of a timm model's intermediate features as a grid; class and register tokens of a ViT are left out.

    `stride` takes timm's last feature of that many pixels a step (0: the last of all). A ViT's features go through its
    last norm.

    Raises:
        LabError: no such feature, or the model cannot take pictures of that size.
    """

    def __init__(self, *, model: Any, image_size: int, stride: int = 0) -> None:
        super().__init__()
        name = model.pretrained_cfg.get("architecture", type(model).__name__)
        if not hasattr(model, "forward_intermediates"):
            raise LabError(f"timm model {name!r} gives no intermediate features; choose another")
        strides = [info["reduction"] for info in model.feature_info]
        fitting = [index for index, of_index in enumerate(strides) if not stride or of_index == stride]
        if not fitting:
            listed = ", ".join(map(str, sorted(set(strides))))
            raise LabError(f"timm model {name!r} has no features of stride {stride}; choose one of: {listed}")
        self.feature_index = fitting[-1]
        self.image_size = image_size
        if hasattr(model, "prune_intermediate_layers"):
            model.prune_intermediate_layers([self.feature_index], prune_norm=False, prune_head=True)
        self.model = model.eval()
        with loading(f"timm model {name!r} for pictures of {image_size} px", "a size that it takes"), torch.no_grad():
            grid = self(torch.zeros(1, 3, image_size, image_size))
        self.grid = (grid.shape[1], grid.shape[2])
        self.hidden_size = grid.shape[3]

    def forward(self, pixels: Pixels) -> Features:
        """The chosen feature, channels last."""
        features = cast(Any, self.model).forward_intermediates(
            pixels, indices=[self.feature_index], norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return features[0].permute(0, 2, 3, 1)


class VisionEncoder(Built, nn.Module):
    """A backbone with its normalisation: pixels as bytes in, a grid of features out.

    A picture's features do not depend on what else is in its batch, in training neither: BatchNorm keeps the statistics
    of its pretraining whatever mode the encoder is in; its scale and shift are trained with the rest. `name`, a part of
    `key`, names the network and not the place it was loaded from; `mean` and `std` are of each channel, from 0 to 1.
    """

    def __init__(self, *, backbone: VisionBackbone, name: str, mean: Sequence[float], std: Sequence[float]) -> None:
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

    def forward(self, pixels: UInt8[Tensor, "batch height width 3"]) -> Features:
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
        """
        features = np.empty((len(pixels), *self.grid, self.hidden_size), dtype=np.float32)
        for start in range(0, len(pixels), batch_size):
            batch = torch.from_numpy(np.ascontiguousarray(pixels[start : start + batch_size]))
            features[start : start + batch_size] = self(batch).float().cpu().numpy()
        return features


def check_timm(name: str) -> None:
    """Refuse a name that timm does not have."""
    if not name.startswith("hf-hub:") and not timm.is_model(name.partition(".")[0]):
        close = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise LabError(f"timm has no model {name!r}{hint}; timm.list_models() lists them all")


def load_timm(
    name: str,
    *,
    image_size: int = 0,
    stride: int = 0,
    pretrained: bool = True,
    weights: Path | None = None,
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict,
) -> TimmBackbone:
    """Load a timm model by timm's name, such as `vit_base_patch16_224.augreg_in21k`.

    Its weights are those that timm publishes, those of a file of `weights` (safetensors or torch; `rename` brings its
    names to timm's, and its classifier is ignored), or random ones where neither is wanted. An `image_size` of 0 is the
    model's own; a ViT's position table is resampled by timm (not that of `weights`).

    Raises:
        LabError: an unknown name, weights that cannot be had or do not fit, or an option out of range.
    """
    check_timm(name)
    # A model that takes any size has no such option, and one that does not would refuse another size than its own.
    own = None if name.startswith("hf-hub:") else timm.get_pretrained_cfg(name)
    resized: dict[str, Any] = {"img_size": image_size} if image_size and own and own.fixed_input_size else {}
    with loading(f"timm model {name!r}", "the hub, weights (a file), or pretrained=False for random ones"):
        model: Any = timm.create_model(name, pretrained=pretrained and weights is None, num_classes=0, **resized)
    if weights is not None:
        classifier = model.pretrained_cfg.get("classifier") or ()
        heads = [f"{head}." for head in ([classifier] if isinstance(classifier, str) else classifier)]
        with loading(f"the weights {weights} of timm model {name!r}", "a state dict of that model"):
            state = rename(load_state_dict(str(weights)))
            model.load_state_dict({k: tensor for k, tensor in state.items() if not k.startswith(tuple(heads))})
    image_size = image_size or model.pretrained_cfg["input_size"][-1]
    backbone = TimmBackbone(model=model, image_size=image_size, stride=stride)
    backbone.built_with = {"name": model.pretrained_cfg["architecture"], "image_size": image_size, "stride": stride}
    return backbone


def load_vision_encoder(
    name: str,
    *,
    image_size: int = 0,
    stride: int = 0,
    pretrained: bool = True,
    weights: Path | None = None,
) -> VisionEncoder:
    """Load an encoder: `timm:NAME`, a SigLIP on the hub, or a folder with one.

    An `image_size` (pixels on a side) of 0 is the model's own. The other options are those of `load_timm` and
    `TimmBackbone`.
    """
    if image_size < 0 or stride < 0:
        raise LabError(f"image_size is {image_size} and stride {stride}; expected 0 (the default) or more")
    if name.startswith(TIMM):
        own = name.removeprefix(TIMM)
        backbone = load_timm(own, image_size=image_size, stride=stride, pretrained=pretrained, weights=weights)
        # Without the tag of the weights, which `key` knows by their own hash.
        return of_timm(backbone, TIMM + own.partition(".")[0])
    if stride or weights is not None or not pretrained:
        raise LabError(f"vision encoder {name!r} has no stride, pretrained or weights; timm models have")
    return _load_siglip(name, image_size)


def of_timm(backbone: TimmBackbone, name: str) -> VisionEncoder:
    """A timm model with the normalisation that timm knows for it."""
    published = backbone.model.pretrained_cfg
    return VisionEncoder(backbone=backbone, name=name, mean=published["mean"], std=published["std"]).eval()


def _load_siglip(name_or_path: str, image_size: int) -> VisionEncoder:
    expected = f"{TIMM}NAME, a local folder, or a SigLIP on the Hugging Face hub"
    with loading(f"vision encoder {name_or_path!r}", expected):
        model_type = AutoConfig.from_pretrained(name_or_path).model_type
        if model_type not in SIGLIP_TYPES:
            raise LabError(f"vision encoder {name_or_path!r} is a {model_type} model; expected SigLIP, or {TIMM}NAME")
        # Asked for its report, it gives a pair, which its annotation does not say.
        loaded: Any = SiglipVisionModel.from_pretrained(name_or_path, dtype=torch.float32, output_loading_info=True)
    siglip, report = loaded
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("head."))
    if missing:
        raise LabError(f"vision encoder {name_or_path!r} lacks {len(missing)} of SigLIP's weights, first {missing[0]}")
    try:
        processor = SiglipImageProcessor.from_pretrained(name_or_path)
    except OSError:
        processor = SiglipImageProcessor()  # a checkpoint saved without it; SigLIP's own all normalise alike
    backbone = SiglipBackbone(siglip=siglip, image_size=image_size)
    return VisionEncoder(backbone=backbone, name="siglip", mean=processor.image_mean, std=processor.image_std).eval()
