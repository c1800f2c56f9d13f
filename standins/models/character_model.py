"""The project's own character language model: which text it is pretrained on, and where it is kept.

One recipe: its key is the hash of the options, the text and the code's version; `python -m standins pretrain` and
the first study that needs it make it, everybody else opens it.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from lab.data import fetch, splits
from lab.data.splits import is_reserved, split_of
from lab.errors import LabError
from lab.parts.language_models import CharacterCodec, LanguageModel, load_language_model
from lab.paths import cache_dir, write_whole
from lab.training.named_parts import OwnLanguageModel
from standins import texts
from standins.models.kept_model import kept_folder, made_model
from standins.models.pretraining import (
    ALPHABET,
    PretrainingOptions,
    build_character_model,
    pretrain_character_model,
)
from standins.speech import amazon_queen
from standins.texts import (
    TEXT_SOURCES,
    TrainingText,
    available_text_sources,
    sentences,
    to_alphabet,
    training_text,
)

# Raise it when the same options and text would give another model.
RECIPE_VERSION = 1
DEFAULT_STEPS = 5500
MAX_HELD_OUT = 400


def _text() -> TrainingText:
    """The training text; reading and splitting it takes seconds, so it is kept under a hash of all that makes it."""
    made_by = [Path(str(module.__file__)).read_text(encoding="utf-8") for module in (texts, splits, amazon_queen)]
    packages = {name: fetch.packages()[TEXT_SOURCES[name][0]].sha256 for name in available_text_sources()}
    identity = json.dumps([packages, made_by, sorted(splits.reserved_hashes())])
    kept = cache_dir() / "texts" / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.json"
    if kept.exists():
        return TrainingText(**json.loads(kept.read_text(encoding="utf-8")))
    made = training_text(punctuation=False)
    try:
        write_whole(kept, json.dumps(asdict(made)))
    except OSError as error:
        raise LabError(f"the training text cannot be kept at {kept} ({error})") from None
    return made


def held_out_sentences() -> list[str]:
    """Development sentences of the same text sources, in the model's alphabet; never trained on."""
    sources = available_text_sources()
    found = [s for s in sentences(sources) if split_of(s) == "dev" and not is_reserved(s)]
    return [to_alphabet(sentence, punctuation=False) for sentence in found][:MAX_HELD_OUT]


def character_model_folder(steps: int = DEFAULT_STEPS) -> Path:
    """Where the model of that many steps lies, whether it is there yet or not."""
    options = PretrainingOptions(steps=steps, warmup_steps=min(50, steps))
    return kept_folder("language_models", "character", RECIPE_VERSION, asdict(options), _text().manifest["sha256"])


def pretrained_character_model(
    *, steps: int = DEFAULT_STEPS, progress: Callable[[int, int, float], None] | None = None
) -> Path:
    """Return the model's folder; the first call pretrains it.

    Raises:
        LabError: no text source can be fetched, or a full disk.
    """

    def make(folder: Path, checkpoint: Path) -> None:
        training = _text()
        options = PretrainingOptions(steps=steps, warmup_steps=min(50, steps))
        pretrain_character_model(
            training.sentences,
            held_out_sentences(),
            folder,
            options,
            text_manifest=training.manifest,
            checkpoint=checkpoint,
            progress=progress,
        )

    return made_model(character_model_folder(steps), "the character model", make)


def describe(folder: Path) -> dict[str, Any]:
    """What is recorded of a model: alphabet, options, text, held-out losses."""
    described: dict[str, Any] = json.loads((folder / "characters.json").read_text(encoding="utf-8"))
    return described


def spoken_text(text: str) -> str:
    """A transcript in the model's alphabet: lower case, no punctuation; empty where it does not fit."""
    plain = plain_text(text)
    return plain if set(plain) <= set(ALPHABET) else ""


def plain_text(text: str) -> str:
    """A text without punctuation, in lower case."""
    return to_alphabet(text, punctuation=False)


def _network() -> PreTrainedModel:
    return build_character_model(PretrainingOptions(), CharacterCodec(alphabet=ALPHABET))


def _load(folder: Path) -> LanguageModel:
    return load_language_model("character", folder=folder)


CHARACTER = OwnLanguageModel(
    default_steps=DEFAULT_STEPS,
    folder=character_model_folder,
    pretrain=pretrained_character_model,
    load=_load,
    network=_network,
    write=plain_text,
    write_spoken=spoken_text,
)
