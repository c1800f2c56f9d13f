"""The stages of training as data: what trains, on which data, how fast, and from which weights it starts.

Section 3 of the paper, whose stages are `PAPER_STAGES`. `None` says that the paper's number is not found; a stage is
run only once every such value that it needs was given, by `dataclasses.replace`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import nn

from lab.errors import LabError, choose

PARTS = {
    "vision_encoder": "SigLIP-so400m",
    "visual_projector": "pooling and a two-layer MLP, for images",
    "video_projector": "the same for frames of a video",
    "audio_encoder": "Whisper-large-v3's encoder",
    "audio_projector": "Conv-GMLP",
    "language_model": "an unnamed 7B",
}


def cosine(step: int, peak: float, *, steps: int, warmup_steps: int) -> float:
    """Warm-up, then half a cosine down to a hundredth of the peak."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def constant(step: int, peak: float, *, steps: int, warmup_steps: int) -> float:
    """Warm-up, then the peak."""
    return peak * (step + 1) / warmup_steps if step < warmup_steps else peak


SCHEDULES: dict[str, Callable[..., float]] = {"cosine": cosine, "constant": constant}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of training; parts are named as in `PARTS`.

    Raises:
        LabError: an unknown part or schedule (the choices are listed), a part both trained and frozen, nothing trained,
            a number that is not positive, both steps and tokens, or a stage that starts from itself.
    """

    name: str
    paper: str
    """The paper's section, and what of the stage is not the paper's own table."""
    learning_rates: Mapping[str, float | None]
    """The peak of each part that trains."""
    frozen: tuple[str, ...] = ()
    """Parts that take part and do not change."""
    data: Mapping[str, float | None]
    """Mixing weights of the kinds of data, relative to each other."""
    steps: int | None = None
    tokens: int | None = None
    """In place of `steps`."""
    schedule: str | None = None
    starts_from: tuple[str, ...] | None = ()
    """Stages by name; empty: the parts as they were pretrained."""
    starts_as: Mapping[str, str] = field(default_factory=dict)
    """Parts that begin with the weights of another part, as a video projector with those of the image projector."""

    def __post_init__(self) -> None:
        for name in ("learning_rates", "data", "starts_as"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        where = f"stage {self.name!r}"
        for part in (*self.parts, *self.starts_as, *self.starts_as.values()):
            choose(PARTS, part, f"part in {where}:")
        if not self.trained:
            raise LabError(f"{where} trains nothing; choose at least one of: {', '.join(PARTS)}")
        if both := sorted(set(self.trained) & set(self.frozen)):
            raise LabError(f"{where} both trains and freezes {', '.join(both)}")
        numbers = {
            **{f"learning rate of {part}": rate for part, rate in self.learning_rates.items()},
            **{f"mixing weight of {data}": weight for data, weight in self.data.items()},
            "number of steps": self.steps,
            "number of tokens": self.tokens,
        }
        for name, value in numbers.items():
            if value is not None and not 0 < value < math.inf:
                raise LabError(f"{name} in {where} is {value}; expected a positive number, or None: not found")
        if self.steps is not None and self.tokens is not None:
            raise LabError(f"{where} is as long as its steps or as its tokens; give one of them")
        if self.schedule is not None:
            choose(SCHEDULES, self.schedule, f"schedule in {where}:")
        if self.name in (self.starts_from or ()):
            raise LabError(f"{where} starts from itself; name an earlier stage")

    @property
    def trained(self) -> tuple[str, ...]:
        """The parts that train."""
        return tuple(self.learning_rates)

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that take part."""
        return (*self.trained, *self.frozen)

    @property
    def changed(self) -> tuple[str, ...]:
        """The parts that are other ones after the stage."""
        return (*self.trained, *(part for part in self.starts_as if part not in self.trained))

    def length(self) -> int:
        """Its steps; an error where they are not given, as where it is as long as its tokens."""
        if self.steps is None:
            raise LabError(f"stage {self.name!r} has no number of steps; give one with dataclasses.replace")
        return self.steps

    def parents(self) -> tuple[str, ...]:
        """The stages that it starts from; an error where the paper does not say."""
        if self.starts_from is None:
            raise _not_found(self, "the start")
        return self.starts_from

    def peak(self, part: str) -> float:
        """The highest learning rate of a part; an error where the paper does not say."""
        rate = self.learning_rates[part]
        if rate is None:
            raise _not_found(self, f"learning rate of {part}")
        return rate

    def rates(self, warmup_steps: int) -> Callable[[int], list[float]]:
        """The learning rate of each trained part at a step; at least one step comes after the warm-up."""
        schedule = choose(SCHEDULES, self.schedule or "not found", f"schedule of stage {self.name!r}:")
        peaks = [self.peak(part) for part in self.trained]
        length = {"steps": self.length(), "warmup_steps": min(warmup_steps, self.length() - 1)}
        return lambda step: [schedule(step, peak, **length) for peak in peaks]

    @property
    def mixing_shares(self) -> dict[str, float]:
        """The share of each kind of data, which sum to one; an error where one of several is not found."""
        if len(self.data) == 1:
            return dict.fromkeys(self.data, 1.0)
        found = {name: weight for name, weight in self.data.items() if weight is not None}
        if unknown := sorted(set(self.data) - set(found)):
            raise _not_found(self, f"mixing weight of {', '.join(unknown)}")
        return {name: weight / sum(found.values()) for name, weight in found.items()}


def apply_stage(model_parts: Mapping[str, nn.Module], stage: Stage) -> list[dict[str, Any]]:
    """Freeze all parts but the stage's, and return one optimiser group for each that trains: `params`, `lr`, `name`.

    A frozen part has no gradient and stays in evaluation mode whatever `train()` is called, on the model, the part or
    anything in it, so that batch norm's statistics do not change either; a later stage that trains it sets it free.
    Modules that a part names as `never_trained`, such as Whisper's positions, stay as they are when it trains.

    Raises:
        LabError: a trained part that the model lacks, a learning rate that is not found, a parameter of two parts, or a
            part without anything to train. Nothing has changed.
    """
    rates = {part: stage.peak(part) for part in stage.trained}
    for part in stage.trained:
        choose(model_parts, part, f"part of the model, trained in stage {stage.name!r}:")
    learning: dict[str, list[nn.Parameter]] = {}
    owner: dict[int, str] = {}
    for part, module in model_parts.items():
        held = {
            id(parameter)
            for name in getattr(module, "never_trained", ())
            for parameter in module.get_submodule(name).parameters()
        }
        learning[part] = [p for p in module.parameters() if part in rates and id(p) not in held]
        if part in rates and not learning[part]:
            raise LabError(f"part {part!r} has nothing to train in stage {stage.name!r}")
        for parameter in module.parameters():
            other = owner.setdefault(id(parameter), part)
            if other != part:
                raise LabError(f"parts {other!r} and {part!r} share a parameter; make them one part, or untie it")
    for part, module in model_parts.items():
        for inner in module.modules():
            inner.__dict__.pop("train", None)
            if part not in rates:
                # On each module of its own: a model's train() calls that of its children, whatever they are.
                inner.__dict__["train"] = partial(_stay_in_evaluation_mode, inner)
        module.train(part in rates)
        for parameter in module.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
        for parameter in learning[part]:
            parameter.requires_grad_(True)
    return [{"name": part, "params": learning[part], "lr": rate} for part, rate in rates.items()]


def _stay_in_evaluation_mode(module: nn.Module, mode: bool = True) -> nn.Module:
    return type(module).train(module, False)


def _not_found(stage: Stage, what: str) -> LabError:
    return LabError(f"{what} in stage {stage.name!r} is not found in the paper; give one with dataclasses.replace")


_VQA_DATA = ("vqa", "synthetic_ocr_and_chart_qa", "interleaved", "captions")
_NOT_FOUND = "steps, schedule and mixing weights not found"

PAPER_STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            name="image_1",
            paper=f"section 3, image-language branch, stage 1; {_NOT_FOUND}",
            frozen=("vision_encoder", "language_model"),
            learning_rates={"visual_projector": 1e-3},
            data={"captions": None},
        ),
        Stage(
            name="image_2",
            paper=f"section 3, image-language branch, stage 2 (130k of its samples synthetic); {_NOT_FOUND}",
            frozen=("language_model",),
            learning_rates=dict.fromkeys(("visual_projector", "vision_encoder"), 1e-5),
            data=dict.fromkeys(_VQA_DATA),
            starts_from=("image_1",),
        ),
        Stage(
            name="image_3",
            paper=f"section 3, image-language branch, stage 3 ('all' are its own parts); {_NOT_FOUND}",
            learning_rates=dict.fromkeys(("visual_projector", "vision_encoder", "language_model"), 1e-5),
            data=dict.fromkeys((*_VQA_DATA, "pure_text")),
            starts_from=("image_2",),
        ),
        Stage(
            name="video",
            paper=f"section 3, video-language branch, image-text first, then both; {_NOT_FOUND}, nor its start",
            frozen=("vision_encoder", "language_model"),
            learning_rates={"video_projector": 4e-6},
            data={"image_text": None, "video_text": None},
            starts_from=None,
        ),
        Stage(
            name="audio",
            paper="section 3, audio-language branch; learning rate, steps and start not found",
            frozen=("language_model",),
            learning_rates=dict.fromkeys(("audio_encoder", "audio_projector")),
            data={"asr_audio_text": None},
            schedule="cosine",
            starts_from=None,
        ),
        Stage(
            name="omni_alignment",
            paper=f"section 3 and figure 4, of the three branches; learning rate, {_NOT_FOUND}",
            learning_rates=dict.fromkeys(PARTS),
            data={"image_text": None, "video_text": None, "audio_text": None},
            starts_from=("image_3", "video", "audio"),
        ),
        Stage(
            name="sft",
            paper=f"section 3, about 600K pairs, packed; what trains is secondary; learning rate, {_NOT_FOUND}",
            learning_rates=dict.fromkeys(PARTS),
            data={"instruction_pairs": None},
            starts_from=("omni_alignment",),
        ),
    )
}
