"""The scale of the fine-tuning studies on pictures: the same model is pretrained, scores, and is fine-tuned in packs.

Section 3 of the paper (packed fine-tuning). What a cell trains its own stage says; a pack is counted as a batch of as
many positions, since attention within each sample alone keeps nothing that a batch of equal samples would not.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from lab.study.scale_cells import Asked, Count
from lab.study.scale_vision import VisionCells
from lab.training.curricula import IMAGE
from lab.training.image_text_model import vision_parameters
from lab.training.image_text_training import fine_tuning_stage
from lab.training.parameters import PictureTuningParameters
from lab.training.saved_bytes import Precision
from lab.training.vision_memory import VISION_PARTS


class ImageTextCells(VisionCells):
    """The cells of a rung; a filter changes which samples come, and nothing of what a pack takes.

    Args:
        rows: parameters of each, by row.
        asked: of texts and batch.
        precision: of weights and products.

    Raises:
        LabError: an option that such a study has not.
    """

    kind = "instructions on pictures"
    needed = ("images", "scorer_steps", "projector", "language_model", "budget_tokens", "precision")

    def __init__(self, rows: Mapping[str, PictureTuningParameters], asked: Asked, precision: Precision) -> None:
        asked.refuse("batch_size", "a study of packed instructions")
        super().__init__({row: vision_parameters(parameters) for row, parameters in rows.items()}, asked, precision)

    def notes(self, parameters: Any) -> tuple[str, ...]:
        """What scoring takes besides, and what `VisionCells` says."""
        return (
            "Scoring before it: the same model, forward only, its answers alone scored: less than a step of training.",
            *super().notes(vision_parameters(parameters)),
        )

    def row(self, parameters: Any) -> Count:
        """Counts a pack of the fine-tuning."""
        trained = tuple(part for part in VISION_PARTS if part in fine_tuning_stage(parameters).trained)
        return partial(self._dearest, vision_parameters(parameters), [(IMAGE, "visual_projector", trained)])

    def stages(self, parameters: Any) -> dict[str, Count]:
        """Count the paper's stages of images, as `VisionCells`."""
        return super().stages(vision_parameters(parameters))
