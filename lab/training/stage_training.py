"""The one way to train: stages one after the other, each from the weights of the last (section 3 of the paper).

A cell is a list of stages, each with its mixture of data, and `train_stages`. One checkpoint holds all of an
interrupted cell: weights, what the stages that are done gave, and how far the one that it was in has come. Where
weights come from stands in a chain of links: a link is a stage's declaration, the weights of every part after it, and
the links that it started from; its hash is over all of these, so that an ancestor cannot be exchanged unnoticed.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lab.errors import LabError
from lab.parts.omni_model import OmniModel
from lab.training.batches import BatchOptions, StageBatches
from lab.training.checkpoints import Checkpoint, TrainingRecord
from lab.training.loop import TrainingOptions, peak_memory_bytes, train
from lab.training.samples import SampleExamples
from lab.training.stages import Stage, apply_stage


@dataclass(frozen=True, kw_only=True)
class Ancestor:
    """One link: a stage that was trained, and what came out of it."""

    stage: str
    declaration: Mapping[str, Any]
    weights: Mapping[str, str]
    """SHA-256 of each part's weights and buffers after the stage, the frozen parts' too."""
    trained: tuple[str, ...]
    """Parts that this stage or an ancestor trained."""
    parents: tuple[str, ...]
    """The links that it started from, by their `sha256`."""

    @property
    def sha256(self) -> str:
        """Of all of the link, and so of all links behind it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


Ancestry = tuple[Ancestor, ...]
"""Oldest first."""


def as_json(ancestry: Ancestry) -> list[dict[str, Any]]:
    """The chain for a JSON file, each link with its hash."""
    return [{**asdict(link), "sha256": link.sha256} for link in ancestry]


def from_json(entries: Iterable[Mapping[str, Any]], where: str) -> Ancestry:
    """What `as_json` gave; a LabError that names its file, `where`, if its hashes do not fit."""
    chain: list[Ancestor] = []
    for entry in entries:
        given: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in entry.items()}
        told = given.pop("sha256")
        link = Ancestor(**given)
        if link.sha256 != told or not set(link.parents) <= {ancestor.sha256 for ancestor in chain}:
            raise LabError(
                f"the ancestry in {where} does not fit itself at stage {link.stage!r}; train that stage anew"
            )
        chain.append(link)
    return tuple(chain)


def declaration(stage: Stage) -> dict[str, Any]:
    """What of a stage decides its weights, as JSON has it."""
    facts = {"trained": stage.trained, **vars(stage)}
    del facts["name"], facts["paper"]
    if not stage.starts_as:
        # So that stages without it have the hashes that they had when there was no such thing.
        del facts["starts_as"]
    plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in facts.items()}
    described: dict[str, Any] = json.loads(json.dumps(plain))
    return described


def with_stage(ancestry: Ancestry, stage: Stage, model_parts: Mapping[str, nn.Module]) -> Ancestry:
    """The ancestry of what a stage made of the parts, the stage as its last link; `_check_order` passed it."""
    youngest = {link.stage: link for link in ancestry}
    parents = [youngest[name] for name in stage.parents()]
    trained = {part for parent in parents for part in parent.trained} | set(stage.changed)
    link = Ancestor(
        stage=stage.name,
        declaration=declaration(stage),
        weights={part: _sha256(module.state_dict()) for part, module in model_parts.items()},
        trained=tuple(part for part in model_parts if part in trained),
        parents=tuple(parent.sha256 for parent in parents),
    )
    return (*ancestry, link)


def _sha256(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        # reshape: a buffer without dimensions has no view as bytes.
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


NO_DATA: Mapping[str, Mapping[str, SampleExamples]] = {}


@dataclass
class StagesRecord(TrainingRecord):
    """What the stages gave, one after the other."""

    ancestry: Ancestry = ()
    """Of the weights: what they started from, and the stages."""
    batches: list[StageBatches] = field(default_factory=list)
    """Of each stage."""
    certificates: list[dict[str, Any]] = field(default_factory=list)
    """Of packs, one a stage and kind of data."""
    measured: dict[str, dict[str, float]] = field(default_factory=dict)
    """By stage, what `after_stage` gave."""

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
    data: Mapping[str, SampleExamples],
    options: TrainingOptions,
    *,
    batches: BatchOptions,
    seed: int,
    own_data: Mapping[str, Mapping[str, SampleExamples]] = NO_DATA,
    ancestry: Ancestry = (),
    checkpoint: Path | None = None,
    on_step: Callable[[int, float], None] | None = None,
    after_stage: Callable[[], Mapping[str, float]] | None = None,
    kept: Path | None = None,
) -> StagesRecord:
    """Train each stage's parts in turn, each at its learning rate on the stage's schedule; the rest is frozen.

    Where `checkpoint` exists, training goes on after its step, with the same batches and to the same weights as if it
    had not been interrupted; it is deleted when all stages are done.

    Args:
        stages: in order; each starts from the one before it, the first from `ancestry`.
        data: examples by their kind.
        options: of the loop; a stage's warm-up is shorter where the stage is.
        seed: of the mixtures, the order of examples, and their random changes.
        own_data: by stage and kind, what a stage sees in place of `data`.
        ancestry: of the weights that the model holds, as a record of their training has it.
        on_step: told each step, counted over all stages, and its loss.
        after_stage: measures the model after each stage; what it gives is kept with the checkpoint.
        kept: a folder in which the weights after every stage but the last stay. Cells whose first stages, data, start
            and seed are the same train these once. What the folder's name must tell is the code, the packages, and what
            `options` and `after_stage` depend on.

    Raises:
        LabError: a stage that does not start from the one before it, a checkpoint of other stages, data or start, or
            what `StageBatches`, its `certify`, `apply_stage` and `train` refuse.
    """
    _check_order(stages, ancestry)
    parts, device = model.parts(), model.device
    reader = _without_weights(model) if options.num_workers(device) else model
    key_of = partial(_key, batches=batches, accumulate=options.accumulate, seed=seed, ancestry=ancestry)
    key = key_of(stages)
    interrupted = Checkpoint(path=checkpoint, key=key).stages_done() if checkpoint else None
    done = list(interrupted or ())
    # Of all stages first, so that data which a later one refuses is found before anything is trained.
    of_stages: list[StageBatches] = []
    for stage in stages:
        given = {**data, **own_data.get(stage.name, {})}
        before = of_stages[-1].seen if of_stages else {}
        of_stages.append(
            StageBatches(given, model, stage, batches, seed=seed, accumulate=options.accumulate, before=before)
        )
    prefixes = _prefixes(kept, model, stages, key_of, data, own_data) if kept else []
    there = [number for number, prefix in enumerate(prefixes) if prefix.path.exists()]
    if interrupted is None and there:
        done = prefixes[there[-1]].stages_done() or []
        prefixes[there[-1]].load(model, None)
    changed: dict[str, None] = {}
    for number, (stage, here) in enumerate(zip(stages, of_stages, strict=True)):
        changed |= dict.fromkeys(stage.changed)
        if number < len(done):
            ancestry = from_json([*as_json(ancestry), done[number]["link"]], f"checkpoint {checkpoint}")
            continue
        steps_before = sum(len(facts["losses"]) for facts in done)
        groups = apply_stage(parts, stage)
        point = Checkpoint(path=checkpoint, key=key, parts=tuple(changed), earlier=done) if checkpoint else None
        if interrupted is None or number != len(interrupted):
            for part, other in stage.starts_as.items():
                parts[part].load_state_dict(parts[other].state_dict())
            if point and number:
                point.save(model, None, TrainingRecord())
        certificates = here.certify(model, options.precision)
        own = train(
            model,
            partial(here.loss, model),
            options,
            steps=stage.length(),
            learning_rates=stage.rates(options.warmup_steps),
            batches=partial(here.read, model=reader),
            groups=groups,
            checkpoint=point,
            describe=f"stage {stage.name!r}",
            on_step=partial(_tell, on_step, steps_before) if on_step else None,
        )
        ancestry = with_stage(ancestry, stage, parts)
        facts = {"losses": own.losses, "learning_rates": own.learning_rates, "seconds": own.seconds}
        told = [{"stage": stage.name, "kind": kind, **one.artifact()} for kind, one in certificates.items()]
        measured = dict(after_stage()) if after_stage else {}
        done.append({**facts, "certificates": told, "link": as_json(ancestry)[-1], "measured": measured})
        if number < len(prefixes):
            replace(prefixes[number], earlier=done).save(model, None, TrainingRecord())
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return StagesRecord(
        losses=[loss for facts in done for loss in facts["losses"]],
        learning_rates=[rate for facts in done for rate in facts["learning_rates"]],
        seconds=sum(facts["seconds"] for facts in done),
        peak_memory_bytes=peak_memory_bytes(device),
        ancestry=ancestry,
        batches=of_stages,
        certificates=[one for facts in done for one in facts["certificates"]],
        measured={facts["link"]["stage"]: facts["measured"] for facts in done},
    )


def _prefixes(
    folder: Path,
    model: OmniModel,
    stages: Sequence[Stage],
    key_of: Callable[[Sequence[Stage]], str],
    data: Mapping[str, SampleExamples],
    own_data: Mapping[str, Mapping[str, SampleExamples]],
) -> list[Checkpoint]:
    """Where what the first stages made is kept, of one, of two and so on, of all but the last."""
    start = [_sha256(part.state_dict()) for part in model.parts().values()]
    seen: list[list[str]] = []
    changed: dict[str, None] = {}
    found = []
    for number, stage in enumerate(stages[:-1], 1):
        given = {**data, **own_data.get(stage.name, {})}
        seen.append([given[kind].sha256 for kind in stage.data])
        changed |= dict.fromkeys(stage.changed)
        name = hashlib.sha256(json.dumps([key_of(stages[:number]), start, seen]).encode()).hexdigest()[:16]
        found.append(Checkpoint(path=folder / f"{name}.safetensors", key=name, parts=tuple(changed)))
    return found


def _without_weights(model: OmniModel) -> OmniModel:
    """What a process that reads batches needs of the model: shapes, codec and buffers, on the CPU."""
    instead: dict[int, Any] = {
        id(own): nn.Parameter(own.detach().to("meta"), requires_grad=False) for own in model.parameters()
    }
    instead |= {id(own): own.detach().cpu() for own in model.buffers()}
    return copy.deepcopy(model, instead)


def _tell(on_step: Callable[[int, float], None], before: int, step: int, loss: float) -> None:
    """Of a stage's steps, those of the cell."""
    on_step(before + step, loss)


def _check_order(stages: Sequence[Stage], ancestry: Ancestry) -> None:
    known = {link.stage for link in ancestry}
    for before, stage in zip((None, *stages), stages, strict=False):
        named = ", ".join(map(repr, stage.parents())) or "the pretrained parts alone"
        if stage.name in known:
            raise LabError(f"stage {stage.name!r} is trained already, or twice in one list; names tell stages apart")
        if not set(stage.parents()) <= known or (before is not None and before.name not in stage.parents()):
            have = ", ".join(map(repr, known)) or "nothing"
            last = f" and stands after {before.name!r}" if before else ""
            raise LabError(f"stage {stage.name!r} starts from {named}{last}; trained so far: {have}")
        known.add(stage.name)


def _key(stages: Sequence[Stage], batches: BatchOptions, accumulate: int, seed: int, ancestry: Ancestry) -> str:
    """Names stages, data order and start, so that no checkpoint of others is gone on with."""
    declared = [[stage.name, declaration(stage)] for stage in stages]
    facts = [declared, asdict(batches), accumulate, seed, [link.sha256 for link in ancestry]]
    names = "+".join(stage.name for stage in stages)
    return f"{names}-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]}"
