"""A speech study small enough for a test: spoken tones, a random Whisper, a character model of a few steps."""

import json
from collections.abc import Callable
from pathlib import Path

import soundfile
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

from lab.data.splits import split_of
from standins.models.character_model import PretrainingOptions, pretrain_character_model
from tests.data.fakes import tone

WORDS = ("anna", "bears", "carry", "dark", "eggs", "from", "green", "hills")
SENTENCES = [f"{a} {b}" for a in WORDS for b in WORDS]
TINY_LANGUAGE_MODEL = PretrainingOptions(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, steps=3, batch_tokens=60, warmup_steps=1
)


def write_corpus(root: Path, *, train: int = 12, held_out: int = 3, spelled: Callable[[str], str] = str.strip) -> str:
    """A data set folder of the hub's form, one tone a sentence as it is `spelled`; returns its corpus name."""
    free = [s for s in SENTENCES if split_of(s) != "test"]
    texts = {"train": free[:train], "validation": free[train : train + held_out]}
    texts["test"] = [s for s in SENTENCES if split_of(s) == "test"][:held_out]
    for split, sentences in texts.items():
        (root / split).mkdir(parents=True)
        lines = []
        for number, text in enumerate(sentences):
            samples = tone(0.5 + 0.05 * number, hertz=200 + 40 * number)
            soundfile.write(root / split / f"clip{number}.wav", samples, 16000)
            lines.append(json.dumps({"file_name": f"clip{number}.wav", "transcription": spelled(text)}))
        (root / split / "metadata.jsonl").write_text("\n".join(lines))
    return f"hub:{root}"


def write_whisper(folder: Path) -> str:
    """A random Whisper of two layers with its front end, as a local folder."""
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        vocab_size=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    WhisperModel(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    return str(folder)


def write_language_model(folder: Path) -> str:
    """A character model that has seen a few sentences."""
    seen = [s for s in SENTENCES if split_of(s) == "train"]
    held_out = [s for s in SENTENCES if split_of(s) == "dev"]
    pretrain_character_model(seen, held_out, folder, TINY_LANGUAGE_MODEL, text_manifest={})
    return str(folder)


def tiny_parameters(root: Path) -> dict[str, object]:
    """What a cell of the downsample-rate study changes to run in a second or two."""
    return {
        "corpus": write_corpus(root / "speech"),
        "out_of_domain_corpus": "",
        "audio_encoder": write_whisper(root / "whisper"),
        "language_model": write_language_model(root / "characters"),
        "steps": 4,
        "batch_size": 4,
        "warmup_steps": 1,
        "checkpoint_every": 0,
        "max_test_utterances": 0,
        "measure_dev": True,
        "num_beams": 2,
    }
