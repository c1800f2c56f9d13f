"""Parts opened by name: the project's own, a package's, the hub's, or a folder's; and their networks without weights.

Weights of a package are fetched first, those of the project trained first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, SiglipVisionModel

from lab.data.fetch import fetch
from lab.errors import LabError, choose
from lab.parts.audio_encoders import AudioEncoder, Window, load_audio_encoder
from lab.parts.known_configurations import known_configuration
from lab.parts.language_models import (
    CHARACTER_FILE,
    LANGUAGE_MODELS,
    CharacterCodec,
    LanguageModel,
    load_language_model,
)
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
from lab.training.parameters import OmniParameters


@dataclass(frozen=True, kw_only=True)
class OwnLanguageModel:
    """A small language model that the project pretrains itself, for so many steps.

    `folder` is where the model of so many steps lies, whether it is there yet or not, and `pretrain` makes it there;
    `load` opens it and `network` is the untrained network. `write` gives a text, and `write_spoken` a transcript, as
    the model writes it; a transcript that it cannot write comes out empty.
    """

    default_steps: int
    folder: Callable[[int], Path]
    pretrain: Callable[..., Path]
    load: Callable[[Path], LanguageModel]
    network: Callable[[], PreTrainedModel]
    write: Callable[[str], str]
    write_spoken: Callable[[str], str]


def character() -> OwnLanguageModel:
    """A small one that the project pretrains itself, on characters: real sentences, read aloud as phonemes."""
    from standins.models.character_model import CHARACTER

    return CHARACTER


def words() -> OwnLanguageModel:
    """A small one that the project pretrains itself, on whole words: questions about scenes told in symbols."""
    from standins.models.world_pretraining import WORDS

    return WORDS


OWN_LANGUAGE_MODELS: dict[str, Callable[[], OwnLanguageModel]] = {"character": character, "words": words}


def open_language_model(name: str, *, pretraining_steps: int | None = None) -> LanguageModel:
    """Load a language model by name: packaged weights are fetched, one of the project's own is pretrained if need be.

    `pretraining_steps` are those of the project's own (None: as many as it has by default).
    """
    if name in OWN_LANGUAGE_MODELS:
        own = OWN_LANGUAGE_MODELS[name]()
        steps = own.default_steps if pretraining_steps is None else pretraining_steps
        return own.load(own.pretrain(steps=steps))
    known = LANGUAGE_MODELS.get(name)
    return load_language_model(name, folder=fetch(known.source) if known else None)


def language_model_without_weights(name: str) -> PreTrainedModel:
    """The network of `open_language_model`, on the meta device: nothing is fetched, pretrained or given memory."""
    with torch.device("meta"):
        if name in OWN_LANGUAGE_MODELS:
            return OWN_LANGUAGE_MODELS[name]().network()
        model: PreTrainedModel = AutoModelForCausalLM.from_config(known_configuration(name))
        return model


def writer_of(language_model: LanguageModel) -> Callable[[str], str]:
    """How a text is written for a language model, as its codec asks for."""
    own = _own("character" if isinstance(language_model.codec, CharacterCodec) else language_model.name)
    return own.write if own else str.strip


def transcript_writer(language_model: str) -> Callable[[str], str]:
    """How what was said is written for that language model; empty where it cannot write it."""
    own = _own(language_model)
    return own.write_spoken if own else str.strip


def _own(language_model: str) -> OwnLanguageModel | None:
    if language_model not in OWN_LANGUAGE_MODELS and (Path(language_model) / CHARACTER_FILE).is_file():
        language_model = "character"
    return OWN_LANGUAGE_MODELS[language_model]() if language_model in OWN_LANGUAGE_MODELS else None


def open_audio_encoder(name: str, *, window: Window = "cropped") -> AudioEncoder:
    """Load an audio encoder by name, frozen; the weights of a packaged one are fetched first."""
    return load_audio_encoder(name, window=window).freeze()


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


def own_towers() -> NamedEncoder:
    """A tower that the project trains itself on named pictures, as in `own:siglip_tiny` or `own:timm:NAME`."""
    from standins.models.vision_pretraining import TRAINED

    return TRAINED


def untrained_towers() -> NamedEncoder:
    """The same towers before that training, as in `untrained:siglip_tiny`."""
    from standins.models.vision_pretraining import UNTRAINED

    return UNTRAINED


VISION_ENCODERS: dict[str, Callable[[], NamedEncoder]] = {
    "efficientnet_lite0": efficientnet_lite0,
    "own": own_towers,
    "untrained": untrained_towers,
}


def check_vision_encoder(name: str) -> None:
    """Refuse a name that no encoder has, before anything is fetched or trained for it; a hub's or folder's may pass."""
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
    """Load a vision encoder by name, frozen: one of `VISION_ENCODERS`, else as `load_vision_encoder`."""
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


def open_encoders(
    parameters: OmniParameters, *, progress: Callable[[int, int, float], None] | None = None
) -> dict[str, Any]:
    """The encoders of a cell of the whole model, frozen, by part."""
    hears, sees = parameters.hearing, parameters.seeing
    size: dict[str, Any] = {"image_size": sees.image_size, "stride": sees.stride}
    return {
        "audio_encoder": open_audio_encoder(hears.audio_encoder, window=hears.encoder_window),
        "vision_encoder": open_vision_encoder(sees.vision_encoder, **size, progress=progress),
    }
