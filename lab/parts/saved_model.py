"""A model in a folder: `model.json` says what its parts are, `weights.safetensors` holds what was trained.

A large part that nobody trained need not be copied: it is kept by the name under which it was opened, and the hash of
its weights. An encoder that stayed outside in training is added in the same way, so that the saved model takes sounds
and pictures themselves.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    SiglipVisionConfig,
    SiglipVisionModel,
    WhisperConfig,
    WhisperFeatureExtractor,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from lab.errors import LabError, choose
from lab.parts.audio_encoders import AudioEncoder
from lab.parts.audio_projectors import build_audio_projector
from lab.parts.audio_tokens import AudioTokens
from lab.parts.chat_codec import ChatCodec
from lab.parts.language_models import CharacterCodec, LanguageModel, SubwordCodec, TextCodec, WordCodec
from lab.parts.omni_model import BRANCHES, OmniModel
from lab.parts.vision_backbones import SiglipBackbone, TimmBackbone, load_timm
from lab.parts.vision_encoders import VisionEncoder
from lab.parts.visual_projectors import build_visual_projector
from lab.parts.visual_tokens import VisualTokens
from lab.parts.weights import weights_sha256
from lab.paths import write_whole

# Raise it when a folder of before could not be read any more.
FORMAT_VERSION = 1
DESCRIPTION, WEIGHTS, TOKENIZER = "model.json", "weights.safetensors", "tokenizer"

Described = dict[str, Any]
NamedPart = AudioEncoder | VisionEncoder | LanguageModel
Opener = Callable[..., Any]


def save_model(
    model: OmniModel,
    folder: Path,
    *,
    by_name: Mapping[str, tuple[Described, NamedPart]] | None = None,
    cell: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model into a folder, which is made.

    Args:
        model: of any parts.
        folder: where to.
        by_name: of each part that is not copied, or that the model lacks: what `load_model`'s opener of it is called
            with, as in `{"name": "whisper_tiny_en", "window": "cropped"}`, and the part as it was opened.
        cell: all parameters of the cell that trained it, so that it can be asked as the cell asked it.

    Raises:
        LabError: a part whose make is not known, so that it could not be built again.
    """
    named = by_name or {}
    parts: dict[str, Described] = {
        name: {"opened_with": asked, "sha256": _opened_sha256(part)} for name, (asked, part) in named.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name, part in model.parts().items():
        if name not in named:
            parts[name] = _DESCRIBE[name](model if name == "language_model" else part, folder)
            tensors |= {f"{name}.{key}": value.contiguous() for key, value in _own_tensors(part).items()}
    save_file(tensors, folder / WEIGHTS)
    described = {
        "format_version": FORMAT_VERSION,
        "versions": {package: version(package) for package in ("torch", "transformers", "timm")},
        "positions": model.positions,
        "parts": parts,
        "cell": dict(cell or {}),
    }
    return write_whole(folder / DESCRIPTION, json.dumps(described, indent=1) + "\n")


def load_model(folder: Path, *, openers: Mapping[str, Opener] | None = None) -> OmniModel:
    """Load a model that `save_model` wrote, in evaluation mode.

    `openers` open the parts that were kept by name: each is called with what was kept, and gives the part (of a
    language model a `LanguageModel`).

    Raises:
        LabError: a folder that holds none, one of another format version, weights that are missing, damaged or do not
            fit, or a part by name that cannot be opened or has other weights now.
    """
    described = read_description(folder)
    parts = {name: load_part(folder, name, (openers or {}).get(name)) for name in described["parts"]}
    return OmniModel(**parts, positions=described["positions"]).eval()


def load_part(folder: Path, name: str, opener: Opener | None = None) -> Any:
    """One part of a saved model, a `LanguageModel` of a language model; `opener` opens it where it is kept by name.

    Raises:
        LabError: as `load_model`, or the model has no such part.
    """
    facts = choose(read_description(folder)["parts"], name, f"part of the saved model {folder}:")
    if "opened_with" in facts:
        return _opened(folder, name, facts, opener)
    try:
        with safe_open(folder / WEIGHTS, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys() if key.startswith(f"{name}.")}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise LabError(f"the weights of the saved model {folder} cannot be read ({error}); save it anew") from error
    with torch.random.fork_rng(devices=[]):
        part = _BUILD[name](facts, folder)
    network = part.model if name == "language_model" else part
    _fill(network, tensors, name, folder)
    return replace(part, sha256=weights_sha256(network)) if name == "language_model" else part


def _opened_sha256(part: NamedPart) -> str:
    """The hash of the weights with which a part was opened."""
    return part.sha256 if isinstance(part, LanguageModel) else part.weights_sha256


def read_description(folder: Path) -> Described:
    """What stands in `model.json`.

    Raises:
        LabError: there is no saved model, or one of another format version.
    """
    if not folder.is_dir():
        raise LabError(f"there is no folder {folder}; expected a saved model, as artifacts/model of a cell's run")
    try:
        described: Described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        found = described["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LabError(
            f"{folder} is no saved model: its {DESCRIPTION} cannot be read ({error!r}); expected a folder that "
            "`save_model` wrote"
        ) from error
    if found != FORMAT_VERSION:
        raise LabError(
            f"the saved model {folder} has format version {found}, and this version of the lab reads {FORMAT_VERSION}; "
            "save it anew"
        )
    return described


def _opened(folder: Path, name: str, facts: Described, opener: Opener | None) -> Any:
    if opener is None:
        raise LabError(f"the saved model {folder} keeps its {name} by name ({facts['opened_with']}); give its opener")
    part = opener(**facts["opened_with"])
    if (now := _opened_sha256(part)) != facts["sha256"]:
        raise LabError(
            f"the {name} of the saved model {folder} was opened with {facts['opened_with']} and had the weights "
            f"{facts['sha256'][:16]}; it has {now[:16]} now, so the model would not be the one that was saved"
        )
    return part


def _own_tensors(part: nn.Module) -> dict[str, Tensor]:
    """What is kept of a part; of tied weights one."""
    kept: dict[str, Tensor] = {}
    seen: set[tuple[int, torch.Size]] = set()
    for name, tensor in part.state_dict().items():
        place = (tensor.data_ptr(), tensor.shape)
        if not tensor.numel() or place not in seen:
            kept[name] = tensor
        seen.add(place)
    return kept


def _fill(part: nn.Module, tensors: Mapping[str, Tensor], name: str, folder: Path) -> None:
    own = {key.removeprefix(f"{name}."): value for key, value in tensors.items()}
    expected = _own_tensors(part)
    if missing := sorted(set(expected) - set(own)):
        raise LabError(f"the saved model {folder} lacks weights of its {name}, first {missing[0]}; save it anew")
    wrong = sorted(k for k, v in own.items() if k not in expected or v.shape != expected[k].shape)
    if wrong:
        raise LabError(f"weights of the {name} in the saved model {folder} do not fit it, first {wrong[0]}")
    part.load_state_dict(own, strict=False)


def _projector(projector: Any) -> Described:
    if projector.built_as is None:
        raise LabError(
            f"a {type(projector).__name__} cannot be saved: it was not built by name; build it with "
            "build_audio_projector or build_visual_projector"
        )
    name, options = projector.built_as
    return {"name": name, "options": options}


def _describe_sound_tokens(part: AudioTokens, folder: Path) -> Described:
    return {"projector": _projector(part.projector)}


def _build_sound_tokens(facts: Described, folder: Path) -> AudioTokens:
    asked = facts["projector"]
    return AudioTokens(projector=build_audio_projector(asked["name"], **asked["options"]))


def _describe_visual_tokens(part: VisualTokens, folder: Path) -> Described:
    return {
        "projector": _projector(part.projector),
        "marks_places": part.marks is not None,
        "newline": part.newline is not None,
    }


def _build_visual_tokens(facts: Described, folder: Path) -> VisualTokens:
    asked = facts["projector"]
    projector = build_visual_projector(asked["name"], **asked["options"])
    return VisualTokens(projector=projector, marks_places=facts["marks_places"], newline=facts["newline"])


def _config(config: Any) -> Described:
    read: Described = json.loads(config.to_json_string(use_diff=False))
    return read


def _describe_audio_encoder(part: AudioEncoder, folder: Path) -> Described:
    return {
        "config": _config(part.whisper.config),
        "feature_extractor": json.loads(part.feature_extractor.to_json_string()),
        "window": part.window,
        "margin_frames": part.margin_frames,
    }


def _build_audio_encoder(facts: Described, folder: Path) -> AudioEncoder:
    return AudioEncoder(
        whisper=WhisperEncoder(WhisperConfig(**facts["config"])),
        feature_extractor=WhisperFeatureExtractor(**facts["feature_extractor"]),
        window=facts["window"],
        margin_frames=facts["margin_frames"],
    )


def _describe_vision_encoder(part: VisionEncoder, folder: Path) -> Described:
    shared = {"name": part.name, "image_size": part.image_size, **part.normalisation}
    if isinstance(part.backbone, SiglipBackbone):
        return {"siglip": _config(part.backbone.siglip.config), **shared}
    if isinstance(part.backbone, TimmBackbone):
        architecture = part.backbone.model.pretrained_cfg["architecture"]
        return {"timm": architecture, "feature_index": part.backbone.feature_index, **shared}
    raise LabError(f"a vision encoder of {type(part.backbone).__name__} cannot be saved; expected SigLIP or timm's")


def _build_vision_encoder(facts: Described, folder: Path) -> VisionEncoder:
    size = facts["image_size"]
    backbone: SiglipBackbone | TimmBackbone
    if "siglip" in facts:
        siglip = SiglipVisionModel(SiglipVisionConfig(**facts["siglip"]))
        backbone = SiglipBackbone(siglip=siglip, image_size=size)
    else:
        backbone = load_timm(facts["timm"], image_size=size, feature_index=facts["feature_index"], pretrained=False)
    return VisionEncoder(backbone=backbone, name=facts["name"], mean=facts["mean"], std=facts["std"])


def _describe_language_model(model: OmniModel, folder: Path) -> Described:
    language = model.language
    return {
        "name": language.name,
        "config": _config(language.model.config),
        "dtype": str(language.model.dtype).removeprefix("torch."),
        "codec": _describe_codec(language.codec, folder),
        "frames_per_token": language.frames_per_token,
    }


def _build_language_model(facts: Described, folder: Path) -> LanguageModel:
    config = dict(facts["config"])
    built = AutoConfig.for_model(config.pop("model_type"), **config)
    network = AutoModelForCausalLM.from_config(built, dtype=getattr(torch, facts["dtype"]))
    return LanguageModel(facts["name"], network, _build_codec(facts["codec"], folder), "", facts["frames_per_token"])


def _describe_codec(codec: TextCodec, folder: Path) -> Described:
    if isinstance(codec, CharacterCodec):
        return {"characters": codec.alphabet}
    if isinstance(codec, WordCodec):
        return {"words": list(codec.words)}
    if isinstance(codec, SubwordCodec):
        codec.tokenizer.save_pretrained(folder / TOKENIZER)
        return {"tokenizer": "chat" if isinstance(codec, ChatCodec) else "text"}
    raise LabError(
        f"a language model with a {type(codec).__name__} cannot be saved; expected one of characters, words or a "
        "tokenizer's, or keep it by name"
    )


def _build_codec(facts: Described, folder: Path) -> TextCodec:
    if "characters" in facts:
        return CharacterCodec(alphabet=facts["characters"])
    if "words" in facts:
        return WordCodec(words=facts["words"])
    tokenizer = AutoTokenizer.from_pretrained(folder / TOKENIZER)
    return ChatCodec(tokenizer=tokenizer) if facts["tokenizer"] == "chat" else SubwordCodec(tokenizer=tokenizer)


_DESCRIBE: Mapping[str, Callable[[Any, Path], Described]] = {
    "audio_encoder": _describe_audio_encoder,
    "audio_projector": _describe_sound_tokens,
    "vision_encoder": _describe_vision_encoder,
    **dict.fromkeys(BRANCHES, _describe_visual_tokens),
    "language_model": _describe_language_model,
}
_BUILD: Mapping[str, Callable[[Described, Path], Any]] = {
    "audio_encoder": _build_audio_encoder,
    "audio_projector": _build_sound_tokens,
    "vision_encoder": _build_vision_encoder,
    **dict.fromkeys(BRANCHES, _build_visual_tokens),
    "language_model": _build_language_model,
}
