"""The project's own character language model: which text it is pretrained on, and where it is kept.

One recipe: its key is the hash of the options, the text and the code's version; `lab pretrain` and the first study
that needs it make it, everybody else opens it.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from lab.data.splits import is_reserved, split_of
from lab.data.text import TrainingText, available_text_sources, sentences, to_alphabet, training_text
from lab.paths import cache_dir
from lab.training.pretraining import PretrainingOptions, pretrain_character_model

# Raise it when the same options and text would give another model.
RECIPE_VERSION = 1
DEFAULT_STEPS = 5500
MAX_HELD_OUT = 400


def _text() -> TrainingText:
    return training_text(punctuation=False)


def held_out_sentences() -> list[str]:
    """Development sentences of the same text sources, in the model's alphabet; never trained on."""
    sources = available_text_sources()
    found = [s for s in sentences(sources) if split_of(s) == "dev" and not is_reserved(s)]
    return [to_alphabet(sentence, punctuation=False) for sentence in found][:MAX_HELD_OUT]


def character_model_folder(steps: int = DEFAULT_STEPS) -> Path:
    """Where the model of that many steps lies, whether it is there yet or not."""
    options = PretrainingOptions(steps=steps, warmup_steps=min(50, steps))
    identity = json.dumps([RECIPE_VERSION, asdict(options), _text().manifest["sha256"]], sort_keys=True)
    return cache_dir() / "language_models" / f"character-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def pretrained_character_model(
    *, steps: int = DEFAULT_STEPS, progress: Callable[[int, int, float], None] | None = None
) -> Path:
    """Return the model's folder; the first call pretrains it.

    Raises:
        LabError: no text source can be fetched.
    """
    folder = character_model_folder(steps)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                text = _text()
                options = PretrainingOptions(steps=steps, warmup_steps=min(50, steps))
                pretrain_character_model(
                    text.sentences,
                    held_out_sentences(),
                    folder,
                    options,
                    text_manifest=text.manifest,
                    progress=progress,
                )
    return folder


def describe(folder: Path) -> dict[str, Any]:
    """What is recorded of a model: alphabet, options, text, held-out losses."""
    described: dict[str, Any] = json.loads((folder / "characters.json").read_text(encoding="utf-8"))
    return described


def description_sha256(folder: Path) -> str:
    """SHA-256 of the model's weights file."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
