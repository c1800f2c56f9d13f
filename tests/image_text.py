"""A cell of the study of filtered pictures small enough for a test."""

from pathlib import Path
from typing import Any

from lab.training.parameters import PictureTuningParameters
from tests.vision import tiny_parameters

NAME = "loss_filter_images"


def tiny_image_text(root: Path, **changes: Any) -> PictureTuningParameters:
    """A tiny cell."""
    names = PictureTuningParameters.names()
    tiny = {name: value for name, value in tiny_parameters(root).items() if name in names}
    sizes = {"num_pretraining": 16, "num_training": 24, "scorer_steps": 3, "budget_tokens": 400, "steps": 3}
    return PictureTuningParameters(**{**tiny, **sizes, **changes})
