"""The one way to train: stages one after the other, each from the weights of the last (section 3 of the paper).

A cell is a list of stages, each with its mixture of data, and `train_stages`. One checkpoint holds all of an
interrupted cell: weights, what the stages that are done gave, and how far the one that it was in has come.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from lab.errors import LabError, choose
from lab.parts.omni_model import OmniModel
from lab.training.ancestry import Ancestry, as_json, declaration, from_json, with_stage
from lab.training.batches import Batch, BatchOptions, StageBatches
from lab.training.checkpoints import NOTHING_DONE, Checkpoint, trained_parameters
from lab.training.examples import Examples
from lab.training.loop import TrainingOptions, TrainingRecord, peak_memory_bytes, train
from lab.training.stages import Stage, apply_stage

NO_DATA: Mapping[str, Mapping[str, Examples]] = {}


@dataclass
class StagesRecord(TrainingRecord):
    """What the stages gave, one after the other."""

    ancestry: Ancestry = ()
    """Of the weights: what they started from, and the stages."""
    batches: list[StageBatches] = field(default_factory=list)
    """Of each stage."""
    certificates: list[dict[str, Any]] = field(default_factory=list)
    """Of packs, one a stage and kind of data."""

    def results(self) -> dict[str, float]:
        """What stands in every study's results file; no loss where nothing was trained."""
        last = self.losses[-20:]
        return {
            **({"training_loss": sum(last) / len(last)} if last else {}),
            "training_seconds": self.seconds,
            "peak_memory_bytes": float(self.peak_memory_bytes),
        }

    def costs(self) -> dict[str, float]:
        """Language-model tokens and frames that were seen, padding left out, and the share of padding in all."""
        counted = [own.costs() for own in self.batches]
        padding = sum(own.padding_share() * len(own) for own in self.batches)
        return {
            "lm_tokens": sum(tokens for tokens, _ in counted),
            "decoded_frames": sum(frames for _, frames in counted),
            "padding_share": padding / max(1, sum(map(len, self.batches))),
        }


def train_stages(
    model: OmniModel,
    stages: Sequence[Stage],
    data: Mapping[str, Examples],
    options: TrainingOptions,
    *,
    batches: BatchOptions,
    seed: int,
    own_data: Mapping[str, Mapping[str, Examples]] = NO_DATA,
    fixed: Collection[str] = (),
    ancestry: Ancestry = (),
    checkpoint: Path | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> StagesRecord:
    """Train each stage's parts in turn, each at its learning rate on the stage's schedule; the rest is frozen.

    Where `checkpoint` exists, training goes on after its step, with the same batches and to the same weights as if it
    had not been interrupted; it is deleted when all stages are done.

    Args:
        model: what holds the parts, and nothing else that would train.
        stages: in order; each starts from the one before it, the first from `ancestry`.
        data: examples by their kind.
        options: of the loop; a stage's warm-up is shorter where the stage is.
        batches: what a batch holds.
        seed: of the mixtures, the order of examples, and their random changes.
        own_data: by stage and kind, what a stage sees in place of `data`.
        fixed: parameters that never train (see `apply_stage`).
        ancestry: of the weights that the model holds, as `load_stage` returned it.
        checkpoint: where an interrupted cell is kept.
        on_step: told each step, counted over all stages, and its loss.

    Raises:
        LabError: a stage that does not start from the one before it, something outside the parts that would train, a
            checkpoint of other stages, data or start, or what `StageBatches`, its `certify`, `apply_stage` and `train`
            refuse.
    """
    _check_order(stages, ancestry)
    parts, device = model.parts(), model.device
    reader = _without_weights(model) if options.num_workers(device) else model
    key = _key(stages, batches, options.accumulate, seed, ancestry)
    kept = Checkpoint(path=checkpoint, key=key).stages_done() if checkpoint else None
    done, first_step = list(kept or ()), 0
    of_stages: list[StageBatches] = []
    changed: dict[str, None] = {}
    for number, stage in enumerate(stages):
        given = {**data, **own_data.get(stage.name, {})}
        before = of_stages[-1].seen if of_stages else {}
        here = StageBatches(given, model, stage, batches, seed=seed, accumulate=options.accumulate, before=before)
        of_stages.append(here)
        changed |= dict.fromkeys(stage.changed)
        if number < len(done):
            ancestry = from_json([*as_json(ancestry), done[number]["link"]], f"checkpoint {checkpoint}")
            continue
        steps_before = sum(len(facts["losses"]) for facts in done)
        groups = apply_stage(parts, stage, fixed=fixed)
        _check_strays(model, stage)
        point = Checkpoint(path=checkpoint, key=key, parts=tuple(changed), earlier=done) if checkpoint else None
        goes_on = kept is not None and number == len(kept)
        if not goes_on:
            _start_as_others(parts, stage)
            if point and number:
                point.save(model, None, NOTHING_DONE)
        certificates = here.certify(model, options.precision)
        own = train(
            model,
            partial(here.loss, model),
            options,
            steps=stage.length(),
            learning_rates=stage.rates(options.warmup_steps),
            batches=_Read(here, reader),
            groups=groups,
            checkpoint=point,
            describe=f"stage {stage.name!r}",
            on_step=_told_after(steps_before, on_step),
        )
        if goes_on:
            first_step = steps_before + own.first_step
        ancestry = with_stage(ancestry, stage, parts)
        facts = {"losses": own.losses, "learning_rates": own.learning_rates, "seconds": own.seconds}
        told = [{"stage": stage.name, "kind": kind, **one.artifact()} for kind, one in certificates.items()]
        done.append({**facts, "certificates": told, "link": as_json(ancestry)[-1]})
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return StagesRecord(
        losses=[loss for facts in done for loss in facts["losses"]],
        learning_rates=[rate for facts in done for rate in facts["learning_rates"]],
        seconds=sum(facts["seconds"] for facts in done),
        peak_memory_bytes=peak_memory_bytes(device),
        first_step=first_step,
        ancestry=ancestry,
        batches=of_stages,
        certificates=[one for facts in done for one in facts["certificates"]],
    )


class _Read:
    """The batches of a stage as the loop asks for them."""

    def __init__(self, batches: StageBatches, model: OmniModel) -> None:
        self._batches, self._model = batches, model

    def __getitem__(self, number: int) -> Batch:
        return self._batches.read(number, self._model)


def _without_weights(model: OmniModel) -> OmniModel:
    """What a process that reads batches needs of the model: shapes, codec and buffers, on the CPU."""
    instead: dict[int, Any] = {
        id(own): nn.Parameter(own.detach().to("meta"), requires_grad=False) for own in model.parameters()
    }
    instead |= {id(own): own.detach().cpu() for own in model.buffers()}
    return copy.deepcopy(model, instead)


def _told_after(steps: int, on_step: Callable[[int, float], None] | None) -> Callable[[int, float], None] | None:
    """Told a stage's steps, it tells those of the cell."""
    return None if on_step is None else lambda step, loss: on_step(steps + step, loss)


def _check_order(stages: Sequence[Stage], ancestry: Ancestry) -> None:
    known = {link.stage for link in ancestry}
    for before, stage in zip((None, *stages), stages, strict=False):
        if stage.starts_from is None:
            raise LabError(
                f"what stage {stage.name!r} starts from is not found in the paper; give it with dataclasses.replace"
            )
        named = ", ".join(map(repr, stage.starts_from)) or "the pretrained parts alone"
        if stage.name in known:
            raise LabError(f"stage {stage.name!r} is trained already, or twice in one list; names tell stages apart")
        if not set(stage.starts_from) <= known or (before is not None and before.name not in stage.starts_from):
            have = ", ".join(map(repr, known)) or "nothing"
            last = f" and stands after {before.name!r}" if before else ""
            raise LabError(f"stage {stage.name!r} starts from {named}{last}; trained so far: {have}")
        known.add(stage.name)


def _check_strays(model: nn.Module, stage: Stage) -> None:
    for name, _ in trained_parameters(model):
        if name.partition(".")[0] not in stage.trained:
            raise LabError(
                f"{name} would train in stage {stage.name!r} and belongs to no part; freeze it or name its part"
            )


def _start_as_others(parts: Mapping[str, nn.Module], stage: Stage) -> None:
    for part, other in stage.starts_as.items():
        mine, theirs = (choose(parts, name, f"part of the model, in stage {stage.name!r}:") for name in (part, other))
        try:
            mine.load_state_dict(theirs.state_dict())
        except RuntimeError as error:
            said = " ".join(str(error).split())
            raise LabError(f"{part!r} cannot start as {other!r} in stage {stage.name!r}: {said}") from error


def _key(stages: Sequence[Stage], batches: BatchOptions, accumulate: int, seed: int, ancestry: Ancestry) -> str:
    """Names stages, data order and start, so that no checkpoint of others is gone on with."""
    declared = [[stage.name, declaration(stage)] for stage in stages]
    facts = [declared, asdict(batches), accumulate, seed, [link.sha256 for link in ancestry]]
    names = "+".join(stage.name for stage in stages)
    return f"{names}-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]}"
