"""Training of one stage: the one loop's steps with a learning rate of its own for every part (section 3 of the paper).

The steps, checkpoints and record are those of `lab.training.loop.train`; a stage says what trains, at which rates, from
which weights.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lab.errors import LabError, choose
from lab.parts.joined_sequences import AnswerLoss
from lab.training.ancestry import Ancestry, declaration
from lab.training.checkpoints import trained_parameters
from lab.training.loop import TrainingOptions, TrainingRecord, train
from lab.training.stages import SCHEDULES, Stage, apply_stage


def stage_options(stage: Stage, **options: Any) -> TrainingOptions:
    """The loop's options for a stage: its steps, and as `learning_rate` its highest; the rest is `options`.

    Raises:
        LabError: the number of steps is not given, as where the stage is as long as its tokens, or a rate is not found.
    """
    if stage.steps is None:
        raise LabError(f"stage {stage.name!r} has no number of steps; give one with dataclasses.replace")
    rates = [rate for rate in stage.learning_rates.values() if rate is not None]
    if len(rates) < len(stage.trained):
        raise LabError(f"a learning rate of stage {stage.name!r} is not found; give one with dataclasses.replace")
    return TrainingOptions(**{**options, "steps": stage.steps, "learning_rate": max(rates)})


def stage_key(stage: Stage, ancestry: Ancestry) -> str:
    """Names a stage and the weights it started from, so that no checkpoint of another start is gone on with."""
    facts = [stage.name, declaration(stage), [link.sha256 for link in ancestry]]
    return f"{stage.name}-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]}"


def train_stage(
    model: nn.Module,
    model_parts: Mapping[str, nn.Module],
    stage: Stage,
    loss_of_step: Callable[[int], AnswerLoss],
    options: TrainingOptions,
    *,
    fixed: Collection[str] = (),
    ancestry: Ancestry = (),
    checkpoint: Path | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> TrainingRecord:
    """Train the stage's parts, each at its learning rate on the stage's schedule; the rest is frozen (`apply_stage`).

    The loss is the mean over all answer tokens of the batch. Where `checkpoint` exists, training goes on behind its
    step; it is deleted when training has ended. The record's learning rates are those of the fastest part.

    Args:
        model: what holds the parts, and nothing else that would train.
        model_parts: the parts by name.
        stage: what trains.
        loss_of_step: losses of the batch of a step, the same for the same step.
        options: of `stage_options`.
        fixed: parameters that never train (see `apply_stage`).
        ancestry: of the weights that the parts hold, as `load_stage` returned it.
        checkpoint: where an interrupted stage is kept.
        on_step: told each step and its loss.

    Raises:
        LabError: what `apply_stage` refuses, a schedule that is not found, something outside the parts that would
            train, a loss or gradient that is not finite, or a checkpoint that is another stage's, or of other weights
            that it started from.
    """
    schedule = choose(_FACTORS, stage.schedule or "not found", f"schedule of stage {stage.name!r}:")
    groups = apply_stage(model_parts, stage, fixed=fixed)
    parameters = [parameter for group in groups for parameter in group["params"]]
    known = {id(parameter) for parameter in parameters}
    if stray := [name for name, parameter in trained_parameters(model) if id(parameter) not in known]:
        raise LabError(
            f"{stray[0]} would train in stage {stage.name!r} and belongs to no part; freeze it or name its part"
        )
    peaks = [group["lr"] for group in groups]
    return train(
        model,
        loss_of_step,
        options,
        groups=groups,
        learning_rates=lambda step: [peak * schedule(options, step) for peak in peaks],
        buffers=_buffers(model_parts, stage),
        checkpoint=checkpoint,
        key=stage_key(stage, ancestry),
        describe=f"stage {stage.name!r}",
        on_step=on_step,
    )


def _cosine(options: TrainingOptions, step: int) -> float:
    return options.learning_rate_at(step) / options.learning_rate


def _constant(options: TrainingOptions, step: int) -> float:
    return min(1.0, (step + 1) / options.warmup_steps) if options.warmup_steps else 1.0


_FACTORS = dict(zip(SCHEDULES, (_cosine, _constant), strict=True))


def _buffers(model_parts: Mapping[str, nn.Module], stage: Stage) -> dict[str, Tensor]:
    """What of the trained parts changes in training and is no parameter, such as batch norm's statistics."""
    found: dict[str, Tensor] = {}
    for part in stage.trained:
        kept = model_parts[part].state_dict().keys()
        found |= {f"{part}.{name}": value for name, value in model_parts[part].named_buffers() if name in kept}
    return found
