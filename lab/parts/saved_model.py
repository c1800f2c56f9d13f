"""A model in a folder: `model.json` says what its parts are, a file a part holds its weights.

A large part that nobody trained need not be copied: it is kept by the name under which it was opened, and the hash of
its weights. An encoder that stayed outside in training is added in the same way, so that the saved model takes sounds
and pictures themselves.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model as load_weights
from safetensors.torch import save_model as save_weights
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    SiglipVisionConfig,
    SiglipVisionModel,
    WhisperConfig,
    WhisperFeatureExtractor,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from lab.errors import LabError, choose
from lab.parts.audio_encoders import AudioEncoder
from lab.parts.audio_projectors import AUDIO_PROJECTORS, build_audio_projector
from lab.parts.language_models import CharacterCodec, ChatCodec, LanguageModel, SubwordCodec, WordCodec
from lab.parts.media_tokens import AudioTokens, VisualTokens
from lab.parts.omni_model import OmniModel
from lab.parts.part import Built, loading, weights_sha256
from lab.parts.vision_encoders import SiglipBackbone, VisionEncoder, load_timm
from lab.parts.visual_projectors import VISUAL_PROJECTORS
from lab.paths import write_whole

# Raise it when a folder of before could not be read any more.
FORMAT_VERSION = 2
DESCRIPTION, WEIGHTS, TOKENIZER = "model.json", ".safetensors", "tokenizer"

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

    `by_name` has, of each part that is not copied, or that the model lacks, what `load_model`'s opener of it is called
    with, as in `{"name": "whisper_tiny_en", "window": "cropped"}`, and the part as it was opened. `cell` has all
    parameters of the cell that trained it, so that it can be asked as the cell asked it.

    Raises:
        LabError: a part whose make is not known, so that it could not be built again.
    """
    named = by_name or {}
    parts: dict[str, Described] = {
        name: {"opened_with": asked, "sha256": _opened_sha256(part)} for name, (asked, part) in named.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in model.parts().items():
        if name not in named:
            parts[name] = _described(model.language if name == "language_model" else part, folder)
            save_weights(part, str(folder / f"{name}{WEIGHTS}"))
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
    parts = {name: load_part(folder, name, (openers or {}).get(name)) for name in read_description(folder)["parts"]}
    return OmniModel(**parts, positions=read_description(folder)["positions"]).eval()


def load_part(folder: Path, name: str, opener: Opener | None = None) -> Any:
    """One part of a saved model, a `LanguageModel` of a language model; `opener` opens it where it is kept by name.

    Raises:
        LabError: as `load_model`, or the model has no such part.
    """
    facts = choose(read_description(folder)["parts"], name, f"part of the saved model {folder}:")
    if "opened_with" in facts:
        return _opened(folder, name, facts, opener)
    with torch.random.fork_rng(devices=[]):
        part = _built(facts, folder)
    network = part.model if isinstance(part, LanguageModel) else part
    with loading(f"the weights of the {name} in the saved model {folder}", "those saved with it; save it anew"):
        lacking, unknown = load_weights(network, folder / f"{name}{WEIGHTS}", strict=False)
    if wrong := sorted([*lacking, *unknown]):
        raise LabError(f"the weights of the {name} in the saved model {folder} do not fit it, first {wrong[0]}")
    if isinstance(part, LanguageModel):
        return replace(part, sha256=weights_sha256(network))
    if isinstance(part, AudioEncoder | VisionEncoder):  # theirs is of the weights that they were built with
        part.weights_sha256 = weights_sha256(part.whisper if isinstance(part, AudioEncoder) else part.backbone)
    return part


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
    with loading(f"the {DESCRIPTION} of {folder}", "a folder that `save_model` wrote"):
        described: Described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        found = described["format_version"]
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


def _described(value: Any, folder: Path) -> Any:
    """How something is built again: numbers, texts and configurations as they are, ours by class and options.

    Tensors are left out: they stand among the weights.
    """
    if value is None or isinstance(value, (str, int, float, tuple, list)):
        return value
    name, options = type(value).__name__, {}
    if isinstance(value, PreTrainedModel):
        options = {"config": json.loads(value.config.to_json_string(use_diff=False))}
        if value.get_output_embeddings() is not None:
            name, options = _LANGUAGE_MODEL, {**options, "dtype": str(value.dtype).removeprefix("torch.")}
    elif isinstance(value, WhisperFeatureExtractor):
        options = json.loads(value.to_json_string())
    elif isinstance(value, PreTrainedTokenizerBase):
        name = TOKENIZER
        value.save_pretrained(folder / TOKENIZER)
    elif isinstance(value, LanguageModel):
        told = ("name", "model", "codec", "frames_per_token")
        options = {option: _described(getattr(value, option), folder) for option in told}
    elif isinstance(value, Built):
        options = {
            option: _described(given, folder)
            for option, given in value.built_with.items()
            if not isinstance(given, Tensor)
        }
    else:
        raise LabError(f"a {name} cannot be saved; keep the part that holds it by name")
    return {"class": name, "options": options}


def _built(described: Any, folder: Path) -> Any:
    """What `_described` told of, with weights of its own making."""
    if not isinstance(described, dict) or set(described) != {"class", "options"}:
        return described
    if described["class"] == TOKENIZER:
        return AutoTokenizer.from_pretrained(folder / TOKENIZER)
    make = choose(_CLASSES, described["class"], f"class of a part in the saved model {folder}:")
    return make(**{name: _built(option, folder) for name, option in described["options"].items()})


def _language_model(config: Described, dtype: str) -> PreTrainedModel:
    options = dict(config)
    built = AutoConfig.for_model(options.pop("model_type"), **options)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(built, dtype=getattr(torch, dtype))
    return model


_LANGUAGE_MODEL = "causal language model"
_CLASSES: Mapping[str, Callable[..., Any]] = {
    **{
        one.__name__: one
        for one in (
            *(AudioEncoder, AudioTokens, VisionEncoder, VisualTokens, SiglipBackbone, WhisperFeatureExtractor),
            *(CharacterCodec, ChatCodec, SubwordCodec, WordCodec),
            *VISUAL_PROJECTORS.values(),
        )
    },
    **{one.__name__: partial(build_audio_projector, name) for name, one in AUDIO_PROJECTORS.items()},
    "TimmBackbone": lambda **options: load_timm(**options, pretrained=False),
    "WhisperEncoder": lambda config: WhisperEncoder(WhisperConfig(**config)),
    "SiglipVisionModel": lambda config: SiglipVisionModel(SiglipVisionConfig(**config)),
    "LanguageModel": lambda **options: LanguageModel(**options, sha256=""),
    _LANGUAGE_MODEL: _language_model,
}
