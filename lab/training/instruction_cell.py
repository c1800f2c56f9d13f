"""One cell of a fine-tuning study: what a loss filter leaves, trained on in packs for a fixed number of steps.

Section 3 of the paper; what is left, `lab.training.instruction_filter` decides.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.data.filters.filtering import Filtered
from lab.errors import LabError
from lab.parts.language_models import LanguageModel
from lab.parts.omni_model import OmniModel
from lab.training.batches import PackedBatches
from lab.training.instruction_data import InstructionData
from lab.training.language_models import text_writer
from lab.training.loop import TrainingOptions, TrainingRecord, train
from lab.training.parameters import TextTuningParameters
from lab.training.samples import SampleExamples


@dataclass(frozen=True, kw_only=True)
class InstructionTraining:
    """What a cell's training gave; `costs` stand in the results file."""

    record: TrainingRecord
    batches: PackedBatches
    costs: Mapping[str, float]


def train_instruction_cell(
    language_model: LanguageModel,
    data: InstructionData,
    kept: Filtered,
    parameters: TextTuningParameters,
    *,
    checkpoint: Path,
    on_step: Callable[[int, float], None] | None = None,
) -> InstructionTraining:
    """Fine-tune all of the language model, in place, on the instructions that were kept.

    A step is one pack of about `budget_tokens`, so that every cell sees as many tokens; where fewer samples are kept
    they come more often. `on_step` is told each step and its loss.

    Raises:
        LabError: nothing is kept, or as `PackedBatches` and `train`.
    """
    samples = [one for one, stays in zip(data.train, kept.keep.tolist(), strict=True) if stays]
    examples = SampleExamples(samples=samples, write=text_writer(language_model.name))
    model = OmniModel(language_model=language_model, positions="sequential")
    for index, sample in enumerate(samples):
        if reason := examples.why_not_readable(index, model, max_tokens=parameters.budget_tokens):
            raise LabError(f"training instruction {sample.id!r} cannot be trained on: {reason}")
    if not samples:
        raise LabError(f"loss filter {parameters.loss_filter!r} keeps none of {len(data.train)} instructions")
    batches = PackedBatches(
        examples,
        model,
        budget=parameters.budget_tokens,
        seed=parameters.seed,
        precision=parameters.precision,
    )
    options = TrainingOptions(
        steps=parameters.steps,
        learning_rate=parameters.learning_rate,
        warmup_steps=min(parameters.warmup_steps, parameters.steps - 1),
        weight_decay=parameters.weight_decay,
        checkpoint_every=parameters.checkpoint_every,
        precision=parameters.precision,
    )
    record = train(
        language_model.model,
        batches.loss,
        options,
        checkpoint=checkpoint,
        key=checkpoint.stem,
        describe=f"fine-tuning behind {parameters.loss_filter!r}",
        on_step=on_step,
    )
    last = record.losses[-20:]
    per_epoch = sum(length - 1 for length in batches.lengths)
    tokens = parameters.steps * per_epoch / batches.statistics.num_packs
    costs = {
        "training_loss": sum(last) / len(last),
        "training_seconds": record.seconds,
        "lm_tokens": tokens,
        "epochs": tokens / per_epoch,
        "peak_memory_bytes": float(record.peak_memory_bytes),
    }
    return InstructionTraining(record=record, batches=batches, costs=costs)
