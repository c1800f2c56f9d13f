"""A saved model asked about sounds, pictures and videos: what `lab ask` does."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lab.data.sample import Sample
from lab.data.video.moments import PAPER_SIGHT, Sight
from lab.evaluation.decoding import decode
from lab.parts.omni_model import OmniModel
from lab.parts.saved_model import load_model
from lab.training.language_models import open_language_model
from lab.training.loop import choose_device
from lab.training.samples import NO_TILES, SampleExamples, Tiling
from lab.training.speech import open_encoder
from lab.training.vision import open_vision_encoder

OPENERS: Mapping[str, Callable[..., Any]] = {
    "audio_encoder": open_encoder,
    "vision_encoder": open_vision_encoder,
    "language_model": open_language_model,
}


def open_saved(folder: Path, *, device: str = "auto") -> OmniModel:
    """A saved model on its device; parts that it keeps by name are opened as a study opens them.

    Raises:
        LabError: as `load_model` and `choose_device`.
    """
    where = choose_device(device)
    return load_model(folder, openers=OPENERS).to(where)


def answer(
    model: OmniModel,
    sample: Sample,
    *,
    sight: Sight = PAPER_SIGHT,
    tiling: Tiling = NO_TILES,
    num_beams: int = 1,
    max_new_tokens: int = 128,
) -> str:
    """What a model that has its encoders inside answers to a sample.

    Raises:
        LabError: as `SampleExamples.example` and `decode`.
    """
    example = SampleExamples(samples=[sample], sight=sight, tiling=tiling).example(0, model)
    (tokens,) = decode(model, [example], max_new_tokens=max_new_tokens, num_beams=num_beams)
    return model.codec.decode(tokens)
