"""The project's own image towers: which pictures they are trained on, and where they are kept.

The stand-in, where no hub can be reached, for the paper's vision encoder (section 3), as no package holds weights of
CLIP or SigLIP. Trained on the training side of stamps and emoji by `standins.models.contrastive`; a tower's key is the
hash of its options, the packages and the recipe's version.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import timm
import transformers

from lab.data.fetch import packages
from lab.data.splits import Split
from lab.errors import choose
from lab.parts.vision_encoders import (
    TIMM,
    SiglipBackbone,
    VisionBackbone,
    VisionEncoder,
    check_timm,
    load_timm,
    load_vision_encoder,
)
from lab.training.named_parts import NamedEncoder
from standins.models.contrastive import (
    DEFAULT_STEPS,
    TIMM_FILE,
    VISION_TOWERS,
    WEIGHTS_FILE,
    Pair,
    VisionPretrainingOptions,
    train_pair,
)
from standins.models.kept_model import kept_folder, made_model, write_description
from standins.pictures.pictures import EMOJI_NAMES, EMOJI_PICTURES, STAMPS, Picture, emoji, picture_split, stamps, thing

# Raise it when the same options and pictures would give another tower.
RECIPE_VERSION = 1
TOWER_IMAGE_SIZE = 128  # where none is asked for
DESCRIPTION_FILE = "tower.json"
SOURCES = (STAMPS, EMOJI_PICTURES, EMOJI_NAMES)


def tower_pictures(split: Split) -> list[Picture]:
    """Return the stamps and emoji of one side of the split."""
    return [picture for picture in (*stamps(), *emoji()) if picture_split(picture) == split]


def _options(steps: int, seed: int, image_size: int) -> VisionPretrainingOptions:
    return VisionPretrainingOptions(steps=steps, warmup_steps=min(50, steps), seed=seed, image_size=image_size)


def vision_tower_folder(
    name: str = "siglip_tiny", *, steps: int = DEFAULT_STEPS, seed: int = 0, image_size: int = TOWER_IMAGE_SIZE
) -> Path:
    """Where a tower lies, whether it is there yet or not."""
    stem = name.replace(":", "-").replace("/", "-")
    library = timm.__version__ if name.startswith("timm:") else transformers.__version__
    options = asdict(_options(steps, seed, image_size))
    return kept_folder("vision_towers", stem, RECIPE_VERSION, name, options, _sources(), library)


def _sources() -> dict[str, str]:
    return {source: packages()[source].sha256 for source in SOURCES}


def pretrained_vision_tower(
    name: str = "siglip_tiny",
    *,
    steps: int = DEFAULT_STEPS,
    seed: int = 0,
    image_size: int = TOWER_IMAGE_SIZE,
    progress: Callable[[int, int, float], None] | None = None,
) -> Path:
    """Return the folder of an image tower, one of `VISION_TOWERS` or `timm:NAME`; the first call trains it.

    A SigLIP lies there as transformers saves it, a timm model as `model.safetensors` with `timm.json`; both with
    `tower.json`, what it was trained on. No step at all is the untrained tower. `progress` is called with steps done,
    steps in all and the recent loss.
    """

    def make(folder: Path, checkpoint: Path) -> None:
        options = _options(steps, seed, image_size)
        pictures = tower_pictures("train")
        pair, loss = train_pair(name, pictures, options, checkpoint=checkpoint, progress=progress)
        pair.image_tower.save(folder)
        write_description(folder / DESCRIPTION_FILE, _description(name, pictures, options, pair, loss))

    return made_model(vision_tower_folder(name, steps=steps, seed=seed, image_size=image_size), "the image tower", make)


def _description(
    name: str, pictures: Sequence[Picture], options: VisionPretrainingOptions, pair: Pair, loss: float
) -> dict[str, Any]:
    counts = {source: sum(p.source == source for p in pictures) for source in sorted({p.source for p in pictures})}
    return {
        "name": name,
        "options": asdict(options),
        "parameters": sum(parameter.numel() for parameter in pair.image_tower.parameters()),
        "training_pictures": counts,
        "training_things": len({thing(picture.caption) for picture in pictures}),
        "sources": _sources(),
        "training_loss": None if math.isnan(loss) else loss,
    }


def _check(tower: str) -> None:
    if tower.startswith(TIMM):
        check_timm(tower.removeprefix(TIMM))
    else:
        choose({**VISION_TOWERS, f"{TIMM}NAME": None}, tower, "image tower")


def _network(tower: str, *, image_size: int = 0, stride: int = 0) -> VisionBackbone:
    image_size = image_size or TOWER_IMAGE_SIZE
    if tower.startswith(TIMM):
        return load_timm(tower.removeprefix(TIMM), image_size=image_size, stride=stride, pretrained=False)
    built: Any = choose(VISION_TOWERS, tower, "image tower")(image_size)
    return SiglipBackbone(siglip=built.model)


def _load(
    tower: str,
    *,
    trained: bool,
    image_size: int,
    stride: int,
    progress: Callable[[int, int, float], None] | None,
) -> VisionEncoder:
    steps = DEFAULT_STEPS if trained else 0
    folder = pretrained_vision_tower(tower, steps=steps, image_size=image_size or TOWER_IMAGE_SIZE, progress=progress)
    if not (folder / TIMM_FILE).is_file():
        return load_vision_encoder(str(folder))
    described = json.loads((folder / TIMM_FILE).read_text(encoding="utf-8"))
    return load_vision_encoder(
        f"{TIMM}{described['architecture']}",
        image_size=described["image_size"],
        stride=stride,
        pretrained=False,
        weights=folder / WEIGHTS_FILE,
    )


TRAINED = NamedEncoder(check=_check, load=partial(_load, trained=True), network=_network)
UNTRAINED = NamedEncoder(check=_check, load=partial(_load, trained=False), network=_network)
