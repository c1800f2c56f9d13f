"""Networks that see pixels and give a grid of features: SigLIP of transformers, and whatever timm has.

Axes as in `vision_encoders`. Pixels are normalised already; layers that the grid does not depend on (heads, pooling,
later stages) are taken out, so that each parameter left is one that training can move.
"""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import timm
import torch
from jaxtyping import Float
from timm.models import load_state_dict
from torch import Tensor, nn
from transformers import SiglipVisionModel

from lab.errors import LabError


class VisionBackbone(nn.Module, ABC):
    """Square pictures of `image_size` in, a grid of `grid` = (rows, columns) features of `hidden_size` out."""

    image_size: int
    hidden_size: int
    grid: tuple[int, int]

    @abstractmethod
    def forward(
        self, pixels: Float[Tensor, "batch 3 image_size image_size"]
    ) -> Float[Tensor, "batch rows columns hidden_size"]:
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

    def forward(
        self, pixels: Float[Tensor, "batch 3 image_size image_size"]
    ) -> Float[Tensor, "batch rows columns hidden_size"]:
        """Patches row by row, laid out as the grid they came from."""
        resampled = self.image_size != self.siglip.config.image_size
        hidden = self.siglip(pixel_values=pixels, interpolate_pos_encoding=resampled).last_hidden_state
        return hidden.unflatten(1, self.grid)


class TimmBackbone(VisionBackbone):
    """One of a timm model's intermediate features as a grid; class and register tokens of a ViT are left out.

    `feature_index` counts timm's features (blocks of a ViT, stages of a CNN; negative from the end); `stride` takes the
    last one of that many pixels a step. With neither it is the last of all. A ViT's features go through its last norm.

    Raises:
        LabError: no such feature, both options at once, or the model cannot take pictures of that size.
    """

    def __init__(self, *, model: Any, image_size: int, stride: int = 0, feature_index: int | None = None) -> None:
        super().__init__()
        name = model.pretrained_cfg.get("architecture", type(model).__name__)
        if not hasattr(model, "forward_intermediates"):
            raise LabError(f"timm model {name!r} gives no intermediate features; choose another")
        strides = [info["reduction"] for info in model.feature_info]
        self.feature_index = _feature_index(name, strides, stride, feature_index)
        self.image_size = image_size
        if hasattr(model, "prune_intermediate_layers"):
            model.prune_intermediate_layers([self.feature_index], prune_norm=False, prune_head=True)
        self.model = model.eval()
        try:
            with torch.no_grad():
                grid = self(torch.zeros(1, 3, image_size, image_size))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise LabError(
                f"timm model {name!r} cannot take pictures of {image_size} px: {_first_line(error)}"
            ) from error
        self.grid = (grid.shape[1], grid.shape[2])
        self.hidden_size = grid.shape[3]

    def forward(
        self, pixels: Float[Tensor, "batch 3 image_size image_size"]
    ) -> Float[Tensor, "batch rows columns hidden_size"]:
        """The chosen feature, channels last."""
        features = cast(Any, self.model).forward_intermediates(
            pixels, indices=[self.feature_index], norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return features[0].permute(0, 2, 3, 1)


def check_timm(name: str) -> None:
    """Refuse a name that timm does not have.

    Raises:
        LabError: the name.
    """
    if not name.startswith("hf-hub:") and not timm.is_model(name.partition(".")[0]):
        close = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise LabError(f"timm has no model {name!r}{hint}; timm.list_models() lists them all")


def load_timm(
    name: str,
    *,
    image_size: int = 0,
    stride: int = 0,
    feature_index: int | None = None,
    pretrained: bool = True,
    weights: Path | None = None,
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict,
) -> TimmBackbone:
    """Load a timm model by timm's name, with its published weights, those of a file, or random ones.

    Args:
        name: timm's, such as `vit_base_patch16_224.augreg_in21k`.
        image_size: 0 for the model's own; a ViT's position table is resampled by timm (not that of `weights`).
        stride: see `TimmBackbone`.
        feature_index: see `TimmBackbone`.
        pretrained: fetch timm's weights from the hub; else they are random.
        weights: a file with a state dict of the model (safetensors or torch), instead of the hub's; its classifier,
            if it has one, is ignored, anything else has to fit.
        rename: brings the file's names to timm's.

    Raises:
        LabError: an unknown name, weights that cannot be had or do not fit, or an option out of range.
    """
    check_timm(name)
    try:
        # A model that takes any size has no such option, and one that does not would refuse another size than its own.
        own = None if name.startswith("hf-hub:") else timm.get_pretrained_cfg(name)
        resized: dict[str, Any] = {"img_size": image_size} if image_size and own and own.fixed_input_size else {}
        model: Any = timm.create_model(name, pretrained=pretrained and weights is None, num_classes=0, **resized)
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        raise LabError(
            f"cannot load timm model {name!r}: {_first_line(error)}; without the hub, give weights (a file), "
            "or pretrained=False for random ones"
        ) from error
    if weights is not None:
        _fill(model, name, weights, rename)
    image_size = image_size or model.pretrained_cfg["input_size"][-1]
    return TimmBackbone(model=model, image_size=image_size, stride=stride, feature_index=feature_index)


def _fill(model: Any, name: str, weights: Path, rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]) -> None:
    try:
        state = rename(load_state_dict(str(weights)))
    except Exception as error:  # each file format has errors of its own
        raise LabError(f"cannot read the weights {weights} of timm model {name!r}: {error}") from error
    classifier = model.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    state = {key: value for key, value in state.items() if not key.startswith(tuple(f"{head}." for head in heads))}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise LabError(f"the weights {weights} do not fit timm model {name!r}: {reason[:300]}") from error


def _feature_index(name: str, strides: list[int], stride: int, feature_index: int | None) -> int:
    if stride and feature_index is not None:
        raise LabError(f"stride {stride} and feature_index {feature_index} both choose a feature; expected one of them")
    if stride:
        if stride not in strides:
            listed = ", ".join(map(str, sorted(set(strides))))
            raise LabError(f"timm model {name!r} has no features of stride {stride}; choose one of: {listed}")
        return max(index for index, of_index in enumerate(strides) if of_index == stride)
    index = -1 if feature_index is None else feature_index
    if not -len(strides) <= index < len(strides):
        raise LabError(f"timm model {name!r} has features 0 to {len(strides) - 1}; feature_index is {index}")
    return index % len(strides)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
