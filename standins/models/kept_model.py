"""Where the models that the project pretrains itself are kept: a folder each, known by all that it was made of."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from lab.errors import LabError
from lab.paths import cache_dir, make_folder


def kept_folder(room: str, stem: str, *made_of: Any) -> Path:
    """Where a model lies, whether it is there yet or not; `made_of` is all that would give another one, as JSON."""
    identity = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
    return cache_dir() / room / f"{stem}-{identity[:16]}"


def made_model(kept: Path, what: str, make: Callable[[Path, Path], None]) -> Path:
    """The folder of a model; the first call has `make` fill it, with a checkpoint from which a killed one goes on."""
    try:
        return make_folder(kept, lambda folder: make(folder, kept.with_suffix(".checkpoint")))
    except (OSError, SafetensorError) as error:
        raise LabError(f"{what} cannot be written to {kept} ({error})") from error


def write_description(path: Path, description: dict[str, Any]) -> None:
    """Write what a model is and what it was made of."""
    path.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
