"""Vision studies small enough for a test: a random SigLIP, a character model of a few steps, stand-in pictures."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

from lab.training.parameters import VisionParameters
from standins.scenes import questions as scene_questions
from standins.scenes.casts import cast_of
from tests.data.films import film
from tests.speech import write_language_model
from tests.standins.scene_pictures import stand_ins

IMAGE_SIZE, PATCH_SIZE = 32, 8
COLOURS = ("red", "green", "blue", "white")


def write_siglip(folder: Path, seed: int = 0) -> str:
    """A random SigLIP of one layer that sees 4 x 4 patches, as a local folder."""
    torch.manual_seed(seed)
    config = SiglipVisionConfig(
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
    )
    SiglipVisionModel(config).save_pretrained(folder)
    SiglipImageProcessor().save_pretrained(folder)
    return str(folder)


def draw_stand_ins(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Scenes and stills are played by drawn stand-ins, so that no package is fetched."""
    folder.mkdir()
    pictures = stand_ins(folder)
    patch.setattr(scene_questions, "standard_cast", lambda split: cast_of(pictures, split))


def write_rows(root: Path, splits: dict[str, list[dict[str, Any]]]) -> str:
    """A data set folder of the hub's form, of JSON rows; returns its name."""
    root.mkdir(parents=True)
    for split, rows in splits.items():
        (root / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return f"hub:{root}"


def coloured(folder: Path, colour: str, size: tuple[int, int] = (40, 30)) -> str:
    """The path of a picture of one colour, drawn into a folder; `size` is its width and height."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{colour}-{size[0]}.png"
    Image.new("RGB", size, colour).save(path)
    return str(path)


def write_image_set(root: Path, count: int = 8) -> str:
    """Questions with choices about pictures of one colour, form `image_choices`, with the splits train and test."""
    rows = [
        {
            "index": number,
            "image": coloured(root.with_name(f"{root.name}-pictures"), COLOURS[number % len(COLOURS)]),
            "question": "which colour",
            "answer": number % len(COLOURS),
            "choices": COLOURS,
        }
        for number in range(count)
    ]
    return write_rows(root, {"train": rows, "test": rows})


def write_video_set(root: Path, count: int = 4) -> str:
    """Questions with choices about short films, form `next_qa`, with the splits train and test."""
    folder = root.with_name(f"{root.name}-films")
    folder.mkdir(parents=True)
    choices = {f"a{k}": word for k, word in enumerate(("it grows", "it fades", "it turns", "it falls", "it stays"))}
    rows = [
        {"video": str(film(folder / f"{n}.mp4", 30 + 10 * n)), "question": "what happens", "answer": n % 5, **choices}
        for n in range(count)
    ]
    return write_rows(root, {"train": rows, "test": rows})


def tiny_parameters(root: Path) -> dict[str, Any]:
    """What a cell of a vision study changes to run in a second."""
    return {
        "num_images": 24,
        "num_videos": 18,
        "num_test": 9,
        "vision_encoder": write_siglip(root / "siglip"),
        "image_size": 0,
        "stride": 0,
        "frame_size": IMAGE_SIZE,
        "max_frames": 3,
        "language_model": write_language_model(root / "characters"),
        "steps": 5,
        "batch_tokens": 600,
        "warmup_steps": 1,
        "checkpoint_every": 1,
        "precision": "float32",
        "device": "cpu",
    }


def tiny_cell(root: Path, **changes: Any) -> VisionParameters:
    """A tiny cell of a study of pictures and video."""
    return VisionParameters(**{**tiny_parameters(root), **changes})
