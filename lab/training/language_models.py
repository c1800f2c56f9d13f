"""Language models opened by name, and how each writes: the project's own, a packaged one, the hub's, or a folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from lab.data.fetch import fetch
from lab.parts.known_configurations import known_configuration
from lab.parts.language_models import CHARACTER_FILE, LANGUAGE_MODELS, LanguageModel, load_language_model
from lab.parts.omni_model import OmniModel


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

    Raises:
        LabError: as `load_language_model`, or weights or text that cannot be fetched.
    """
    if name in OWN_LANGUAGE_MODELS:
        own = OWN_LANGUAGE_MODELS[name]()
        steps = own.default_steps if pretraining_steps is None else pretraining_steps
        return own.load(own.pretrain(steps=steps))
    known = LANGUAGE_MODELS.get(name)
    return load_language_model(name, folder=fetch(known.source) if known else None)


def language_model_without_weights(name: str) -> PreTrainedModel:
    """The network of `open_language_model`, on the meta device: nothing is fetched, pretrained or given memory.

    Raises:
        LabError: a name whose configuration is not known.
    """
    with torch.device("meta"):
        if name in OWN_LANGUAGE_MODELS:
            return OWN_LANGUAGE_MODELS[name]().network()
        model: PreTrainedModel = AutoModelForCausalLM.from_config(known_configuration(name))
        return model


def text_model(language_model: LanguageModel) -> OmniModel:
    """The language model alone, reading text token after token."""
    return OmniModel(language_model=language_model, positions="sequential").eval()


def text_writer(language_model: str) -> Callable[[str], str]:
    """How a text is written for that language model: a name, or the folder of one."""
    own = _own(language_model)
    return own.write if own else str.strip


def transcript_writer(language_model: str) -> Callable[[str], str]:
    """How what was said is written for that language model; empty where it cannot write it."""
    own = _own(language_model)
    return own.write_spoken if own else str.strip


def _own(language_model: str) -> OwnLanguageModel | None:
    if language_model not in OWN_LANGUAGE_MODELS and (Path(language_model) / CHARACTER_FILE).is_file():
        language_model = "character"
    return OWN_LANGUAGE_MODELS[language_model]() if language_model in OWN_LANGUAGE_MODELS else None
