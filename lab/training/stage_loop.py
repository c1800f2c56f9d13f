"""Training of one stage: the one loop's steps with a learning rate of its own for every part (section 3 of the paper).

`lab.training.loop.train` knows one learning rate, and every change of it would make recorded results stale, so this
stands beside it, with the loop's own options, schedule, precision, checkpoints and record.
"""

import glob
import hashlib
import json
import math
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lab.errors import LabError, choose
from lab.parts.audio_language_model import AnswerLoss
from lab.training.ancestry import Ancestry, declaration
from lab.training.checkpoints import Progress, load_checkpoint, save_checkpoint, trained_parameters
from lab.training.loop import TrainingOptions, TrainingRecord, has_fast_bfloat16, peak_memory_bytes
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
    optimizer = torch.optim.AdamW(groups, betas=options.betas, weight_decay=options.weight_decay, fused=True)
    key = stage_key(stage, ancestry)
    losses, rates, seconds = Progress([], [], 0.0)
    if checkpoint is not None and checkpoint.exists():
        losses, rates, seconds = load_checkpoint(checkpoint, model=model, optimizer=optimizer, key=key)
        _load_buffers(checkpoint, len(losses), model_parts, stage)
    first = len(losses)
    device = parameters[0].device
    bfloat16 = options.precision == "bfloat16" or (options.precision == "auto" and has_fast_bfloat16(device))
    model.train()
    started = time.perf_counter() - seconds
    for step in range(first, options.steps):
        factor = schedule(options, step)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            answer = loss_of_step(step)
        loss = answer.loss.sum() / answer.num_tokens.sum()
        value = float(loss.detach())
        where = f"at step {step} of stage {stage.name!r}"
        if not math.isfinite(value):
            raise LabError(f"the loss is {value} {where}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = float(nn.utils.clip_grad_norm_(parameters, options.max_grad_norm))
        if not math.isfinite(norm):
            raise LabError(f"the gradient's norm is {norm} {where}")
        optimizer.step()
        losses.append(value)
        rates.append(max(peaks) * factor)
        if on_step:
            on_step(step, value)
        done = step + 1
        due = options.checkpoint_every and done % options.checkpoint_every == 0 and done < options.steps
        if checkpoint is not None and due:
            progress = Progress(losses, rates, time.perf_counter() - started)
            # Before the checkpoint, which names its steps: killed in between, the old pair is still whole.
            _save_buffers(checkpoint, done, model_parts, stage)
            save_checkpoint(checkpoint, model=model, optimizer=optimizer, progress=progress, key=key)
            _forget_buffers(checkpoint, but=done)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
        _forget_buffers(checkpoint)
    model.eval()
    return TrainingRecord(losses, rates, time.perf_counter() - started, peak_memory_bytes(device), first)


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


def _buffers_file(checkpoint: Path, steps: int) -> Path:
    return checkpoint.with_name(f"{checkpoint.name}.{steps}.buffers")


def _save_buffers(checkpoint: Path, steps: int, model_parts: Mapping[str, nn.Module], stage: Stage) -> None:
    buffers = {name: value.clone().contiguous() for name, value in _buffers(model_parts, stage).items()}
    if not buffers:
        return
    try:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        save_file(buffers, _buffers_file(checkpoint, steps))
    except (SafetensorError, OSError) as error:
        raise LabError(f"buffers beside checkpoint {checkpoint} cannot be written ({error})") from error


def _load_buffers(checkpoint: Path, steps: int, model_parts: Mapping[str, nn.Module], stage: Stage) -> None:
    buffers = _buffers(model_parts, stage)
    if not buffers:
        return
    try:
        saved = load_file(_buffers_file(checkpoint, steps))
    except (SafetensorError, OSError) as error:
        raise LabError(
            f"buffers beside checkpoint {checkpoint} cannot be read ({error}); delete it to start this stage again"
        ) from error
    for name, buffer in buffers.items():
        buffer.copy_(saved[name])


def _forget_buffers(checkpoint: Path, but: int | None = None) -> None:
    kept = None if but is None else _buffers_file(checkpoint, but)
    for path in checkpoint.parent.glob(f"{glob.escape(checkpoint.name)}.*.buffers"):
        if path != kept:
            path.unlink(missing_ok=True)
