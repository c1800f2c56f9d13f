"""A stage of training on image-text in packs: the pretraining of a fine-tuning study's model, and each fine-tuning.

Sections 2 and 3 of the paper. What is pretrained is trained further as it is, so both stages train the same parts at
the same peak rates (the paper's are not found), and the ancestry of the second names the weights of the first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.parts.omni_model import OmniModel
from lab.training.ancestry import Ancestry
from lab.training.curricula import IMAGE
from lab.training.loop import TrainingRecord
from lab.training.packing_certificate import PackingCertificate
from lab.training.parameters import PictureTuningParameters
from lab.training.samples import SampleExamples
from lab.training.stage_batches import StageBatches
from lab.training.stage_loop import stage_options, train_stage
from lab.training.stages import Stage

PRETRAINING, FINE_TUNING = "image_text_pretraining", "image_text_fine_tuning"
_WARMUP_SHARE = 0.1


def pretraining_stage(parameters: PictureTuningParameters) -> Stage:
    """The stage that makes the pretrained model.

    Raises:
        LabError: as `Stage`.
    """
    return _stage(PRETRAINING, parameters, steps=parameters.scorer_steps)


def fine_tuning_stage(parameters: PictureTuningParameters) -> Stage:
    """The stage of a cell, from the pretrained model.

    Raises:
        LabError: as `Stage`.
    """
    return _stage(FINE_TUNING, parameters, steps=parameters.steps, starts_from=(PRETRAINING,))


def _stage(name: str, parameters: PictureTuningParameters, **facts: Any) -> Stage:
    rates = {"visual_projector": parameters.learning_rate}
    if parameters.train_language_model:
        rates["language_model"] = parameters.language_model_learning_rate
    parts = ("visual_projector", "video_projector", "language_model", "vision_encoder")
    return Stage(
        name=name,
        paper="section 3, image-language branch and supervised fine-tuning; steps and learning rates are this study's",
        trained=tuple(rates),
        frozen=tuple(part for part in parts if part not in rates),
        learning_rates=rates,
        data={IMAGE: 1.0},
        schedule="cosine",
        **facts,
    )


@dataclass(frozen=True, kw_only=True)
class ImageTextTraining:
    """What a stage gave; `costs` stand in the results file."""

    record: TrainingRecord
    certificate: PackingCertificate
    costs: Mapping[str, float]


def train_image_text(
    model: OmniModel,
    split: SampleExamples,
    stage: Stage,
    parameters: PictureTuningParameters,
    *,
    seed: int,
    ancestry: Ancestry = (),
    checkpoint: Path,
    on_step: Callable[[int, float], None] | None = None,
) -> ImageTextTraining:
    """Train a stage's parts of the model, in place, on all examples of a split, for the stage's steps.

    A step is one pack of about `budget_tokens`, so that every cell sees as many tokens; where fewer examples are kept
    they come more often.

    Args:
        model: with the weights that the stage starts from.
        split: what it is trained on.
        stage: of this module.
        parameters: of the cell.
        seed: of the order of packs.
        ancestry: of the model's weights.
        checkpoint: where an interrupted training is kept; it is deleted when the training is done.
        on_step: told each step and its loss.

    Raises:
        LabError: no example, one longer than a pack, or as `StageBatches.certificates` and `train_stage`.
    """
    if not len(split):
        raise LabError(f"stage {stage.name!r} has no example of {split.name!r} to train on; keep at least one")
    budget, precision = parameters.budget_tokens, parameters.precision
    batches = StageBatches({IMAGE: split}, model, stage, budget, seed, packed=True, precision=precision)
    steps = stage.steps or 1
    pretraining = stage.name == PRETRAINING
    warmup_steps = round(_WARMUP_SHARE * steps) if pretraining else min(parameters.warmup_steps, steps - 1)
    options = stage_options(
        stage,
        warmup_steps=warmup_steps,
        weight_decay=parameters.weight_decay,
        checkpoint_every=parameters.checkpoint_every,
        precision=precision,
    )
    certificate = batches.certificates()[IMAGE]
    record = train_stage(
        model,
        model.parts(),
        stage,
        batches.loss,
        options,
        ancestry=ancestry,
        checkpoint=checkpoint,
        on_step=on_step,
    )
    tokens, pictures = batches.costs()
    last = record.losses[-20:]
    costs = {
        "training_loss": sum(last) / len(last),
        "training_seconds": record.seconds,
        "lm_tokens": float(tokens),
        "epochs": pictures / len(split),
        "peak_memory_bytes": float(record.peak_memory_bytes),
    }
    return ImageTextTraining(record=record, certificate=certificate, costs=costs)
