"""A vision encoder opened by its name; weights of a package are fetched first, those of the project trained first."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import SiglipVisionModel

from lab.errors import LabError, choose
from lab.parts.known_configurations import known_configuration
from lab.parts.vision_encoders import (
    SIGLIP_TYPES,
    TIMM,
    SiglipBackbone,
    VisionBackbone,
    VisionEncoder,
    check_timm,
    load_timm,
    load_vision_encoder,
)


@dataclass(frozen=True, kw_only=True)
class NamedEncoder:
    """Vision encoders that come neither from the hub nor from timm; each call is given what stands behind a colon.

    `check` refuses what there is not, before anything is made; `load` takes the options of `open_vision_encoder` and
    `network`, for a shape without weights, its `image_size` and `stride`.
    """

    check: Callable[[str], None]
    load: Callable[..., VisionEncoder]
    network: Callable[..., VisionBackbone]


def efficientnet_lite0() -> NamedEncoder:
    """EfficientNet-Lite0 with the weights of a package; 128 px and stride 16 where none are asked for."""
    from standins.models.packaged_efficientnet import EFFICIENTNET_LITE0

    return EFFICIENTNET_LITE0


def own() -> NamedEncoder:
    """A tower that the project trains itself on named pictures, as in `own:siglip_tiny` or `own:timm:NAME`."""
    from standins.models.vision_pretraining import TRAINED

    return TRAINED


def untrained() -> NamedEncoder:
    """The same towers before that training, as in `untrained:siglip_tiny`."""
    from standins.models.vision_pretraining import UNTRAINED

    return UNTRAINED


VISION_ENCODERS: dict[str, Callable[[], NamedEncoder]] = {
    "efficientnet_lite0": efficientnet_lite0,
    "own": own,
    "untrained": untrained,
}


def check_vision_encoder(name: str) -> None:
    """Refuse a name that no encoder has, before anything is fetched or trained for it; a hub's or folder's is let pass.

    Raises:
        LabError: the name; the message lists the choices.
    """
    kind, _, tower = name.partition(":")
    if name.startswith(TIMM):
        check_timm(name.removeprefix(TIMM))
    elif kind in VISION_ENCODERS:
        VISION_ENCODERS[kind]().check(tower)
    elif "/" not in name and not Path(name).is_dir():
        forms = (f"{TIMM}NAME", "own:TOWER", "untrained:TOWER", "OWNER/NAME of a SigLIP on the hub", "a folder")
        choose({"efficientnet_lite0": None, **dict.fromkeys(forms)}, name, "vision encoder")


def open_vision_encoder(
    name: str,
    *,
    image_size: int = 0,
    stride: int = 0,
    pretrained: bool = True,
    progress: Callable[[int, int, float], None] | None = None,
) -> VisionEncoder:
    """Load a vision encoder by name, frozen: one of `VISION_ENCODERS`, else as `load_vision_encoder`.

    Raises:
        LabError: as `check_vision_encoder` and `load_vision_encoder`, and as `fetch` where a package cannot be had.
    """
    check_vision_encoder(name)
    options: dict[str, Any] = {"image_size": image_size, "stride": stride}
    kind, _, tower = name.partition(":")
    if kind in VISION_ENCODERS:
        return VISION_ENCODERS[kind]().load(tower, **options, progress=progress).freeze()
    return load_vision_encoder(name, **options, pretrained=pretrained).freeze()


def vision_backbone_without_weights(name: str, *, image_size: int = 0, stride: int = 0) -> VisionBackbone:
    """The network of `open_vision_encoder`, on the meta device: nothing is fetched, trained or given memory.

    A SigLIP is built from its published or local configuration (`known_configuration`).

    Raises:
        LabError: a name whose shape is not known, or options that its network does not take.
    """
    kind, _, tower = name.partition(":")
    with torch.device("meta"):
        if kind in VISION_ENCODERS:
            return VISION_ENCODERS[kind]().network(tower, image_size=image_size, stride=stride)
        if name.startswith(TIMM):
            return load_timm(name.removeprefix(TIMM), image_size=image_size, stride=stride, pretrained=False)
        config: Any = known_configuration(name)
        if config.model_type not in SIGLIP_TYPES:
            raise LabError(f"vision encoder {name!r} is a {config.model_type} model; expected SigLIP, or {TIMM}NAME")
        siglip = SiglipVisionModel(getattr(config, "vision_config", config))
        return SiglipBackbone(siglip=siglip, image_size=image_size)
