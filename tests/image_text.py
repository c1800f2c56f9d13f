"""A cell of the study of filtered pictures small enough for a test."""

from pathlib import Path
from typing import Any

from lab.training.curricula import IMAGE
from lab.training.image_text_data import ImageTextData, open_image_text_data
from lab.training.image_text_model import PretrainedImageText, image_text_splits, open_pretrained
from lab.training.language_models import open_language_model
from lab.training.parameters import PictureTuningParameters
from lab.training.vision import open_vision_encoder
from tests.vision import tiny_parameters

NAME = "loss_filter_images"


def tiny_image_text(root: Path, **changes: Any) -> PictureTuningParameters:
    """A tiny cell."""
    names = PictureTuningParameters.names()
    tiny = {name: value for name, value in tiny_parameters(root).items() if name in names}
    sizes = {"num_pretraining": 16, "num_training": 24, "scorer_steps": 3, "budget_tokens": 400, "steps": 3}
    return PictureTuningParameters(**{**tiny, **sizes, **changes})


def opened(cell: PictureTuningParameters) -> tuple[PretrainedImageText, ImageTextData]:
    """As the notebook opens a cell."""
    encoder = open_vision_encoder(cell.vision_encoder)
    images = image_text_splits(cell, encoder)[IMAGE]
    language_model = open_language_model(cell.language_model, pretraining_steps=cell.pretraining_steps)
    pretrained = open_pretrained(cell, images, encoder, language_model)
    return pretrained, open_image_text_data(cell, pretrained)


def all_losses(data: ImageTextData) -> list[float]:
    """Of every example, in their order."""
    return list(map(float, data.losses.losses))
