"""One cell of a fine-tuning study: what a loss filter leaves, trained on in packs for a fixed number of steps.

Section 3 of the paper. The filter sees the losses alone; `oracle` sees the planted faults, and so is no filter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.data.filters.filtering import Filtered
from lab.data.filters.grouped_loss_filter import filter_losses_by_group
from lab.data.filters.loss_filters import LOSS_FILTERS, RANDOM, filter_losses
from lab.data.instructions.planted_faults import remove_planted
from lab.errors import LabError, choose
from lab.parts.language_models import LanguageModel
from lab.training.instruction_data import InstructionData
from lab.training.instruction_rows import TokenPair, token_pair
from lab.training.loop import TrainingOptions, TrainingRecord, train
from lab.training.packed_batches import PackedTexts
from lab.training.vision_words import text_writer

ORACLE = "oracle"
FITTED_BY = ("corpus", "source")


def check_filter(parameters: Mapping[str, Any]) -> None:
    """Refuse a filter that no cell has.

    Raises:
        LabError: its name, or what it is fitted to; the message lists the choices.
    """
    name, fitted_by = parameters["loss_filter"], parameters["fitted_by"]
    choose({**dict.fromkeys(LOSS_FILTERS), RANDOM: None, ORACLE: None}, name, "loss filter")
    choose(dict.fromkeys(FITTED_BY), fitted_by, "fitted_by")
    if fitted_by != "corpus" and name not in LOSS_FILTERS:
        raise LabError(f"loss filter {name!r} is fitted to nothing, so not by {fitted_by!r}; leave it at 'corpus'")


def filter_cell(parameters: Mapping[str, Any], data: InstructionData) -> Filtered:
    """What a cell trains on; `random` is as large as `gaussian` at the cell's k, and drawn anew by each seed.

    Raises:
        LabError: as `check_filter`, `filter_losses` and `filter_losses_by_group`.
    """
    name = parameters["loss_filter"]
    check_filter(parameters)
    if name == ORACLE:
        return remove_planted([one.id for one in data.train], data.faults)
    if parameters["fitted_by"] == "source":
        return filter_losses_by_group(data.losses, [one.source for one in data.train], name, k=parameters["k"])
    return filter_losses(data.losses, name, k=parameters["k"], seed=parameters["seed"])


@dataclass(frozen=True, kw_only=True)
class InstructionTraining:
    """What a cell's training gave; `costs` stand in the results file."""

    record: TrainingRecord
    batches: PackedTexts
    costs: Mapping[str, float]


def train_instruction_cell(
    language_model: LanguageModel,
    data: InstructionData,
    kept: Filtered,
    parameters: Mapping[str, Any],
    *,
    checkpoint: Path,
) -> InstructionTraining:
    """Fine-tune all of the language model, in place, on the instructions that were kept.

    A step is one pack of about `budget_tokens`, so that every cell sees as many tokens; where fewer samples are kept
    they come more often.

    Raises:
        LabError: nothing is kept, or as `PackedTexts` and `train`.
    """
    pairs: list[TokenPair] = []
    ids: list[str] = []
    write = text_writer(language_model.name)
    for instruction, stays in zip(data.train, kept.keep.tolist(), strict=True):
        if stays:
            pair = token_pair(instruction, language_model, write, budget_tokens=parameters["budget_tokens"])
            if isinstance(pair, str):
                raise LabError(f"training instruction {instruction.id!r} cannot be trained on: {pair}")
            pairs.append(pair)
            ids.append(instruction.id)
    if not pairs:
        raise LabError(f"loss filter {parameters['loss_filter']!r} keeps none of {len(data.train)} instructions")
    batches = PackedTexts(
        language_model=language_model,
        prompts=[pair.prompt for pair in pairs],
        answers=[pair.answer for pair in pairs],
        budget=parameters["budget_tokens"],
        seed=parameters["seed"],
        ids=ids,
        precision=parameters["precision"],
    )
    options = TrainingOptions(
        steps=parameters["steps"],
        learning_rate=parameters["learning_rate"],
        warmup_steps=min(parameters["warmup_steps"], parameters["steps"] - 1),
        weight_decay=parameters["weight_decay"],
        checkpoint_every=parameters["checkpoint_every"],
        precision=parameters["precision"],
    )
    record = train(
        language_model.model,
        batches.loss,
        options,
        checkpoint=checkpoint,
        key=checkpoint.stem,
        describe=f"fine-tuning behind {parameters['loss_filter']!r}",
    )
    last = record.losses[-20:]
    per_epoch = sum(pair.num_tokens for pair in pairs)
    tokens = parameters["steps"] * per_epoch / batches.statistics.num_packs
    costs = {
        "training_loss": sum(last) / len(last),
        "training_seconds": record.seconds,
        "lm_tokens": tokens,
        "epochs": tokens / per_epoch,
        "peak_memory_bytes": float(record.peak_memory_bytes),
    }
    return InstructionTraining(record=record, batches=batches, costs=costs)
