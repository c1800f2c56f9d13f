"""What a rung of a study needs, before it is rented: parameters, tokens, memory and operations by row, part and stage.

Nothing is downloaded and nothing is given memory: `lab.study.largest_batch` builds the model and its largest batch on
the meta device, and `lab.training.memory` traces a step. Sizes are printed in GB of 1e9 bytes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from typing import Any

import pandas as pd

from lab.errors import LabError, choose
from lab.study.ablation import Ablation, cells
from lab.study.largest_batch import Asked, TracedStep, TrainedRoute, routes, senses, sources
from lab.training.cell import AUDIO, ENCODERS, IMAGE, VIDEO
from lab.training.memory import PRECISIONS, Memory, PartMemory
from lab.training.parameters import (
    OmniParameters,
    Parameters,
    PictureTuningParameters,
    SpeechParameters,
    TextTuningParameters,
    TuningParameters,
    VisionParameters,
)
from lab.training.stages import PAPER_STAGES
from lab.training.tuning import scored_tokens

PROJECTORS = {AUDIO: ("audio_projector",), IMAGE: ("visual_projector", "video_projector"), VIDEO: ("video_projector",)}
"""Kinds of data, and the projectors that they may pass through."""


@dataclass(frozen=True)
class Study:
    """A kind of study: what of `Asked` it takes, and what a batch is of."""

    name: str
    options: tuple[str, ...]
    batch: str


_PICTURES = (
    "samples as large as their source has them, with {0.question_tokens} tokens of question and {0.answer} of answer"
)
STUDIES: dict[type[Parameters], Study] = {
    SpeechParameters: Study(
        "a study of speech",
        ("seconds", "answer_tokens", "batch_size"),
        "utterances of {0.seconds:g} s, with a prompt of some 4 letters a token and {0.answer} tokens of answer",
    ),
    PictureTuningParameters: Study(
        "a study of packed instructions", ("question_tokens", "answer_tokens"), f"a pack of {_PICTURES}"
    ),
    VisionParameters: Study(
        "a study of pictures or video", ("question_tokens", "answer_tokens", "batch_size"), _PICTURES
    ),
    TextTuningParameters: Study(
        "a study of packed instructions",
        ("answer_tokens",),
        "a pack of samples as long as they may be, of which {0.scored} tokens are of answers",
    ),
    OmniParameters: Study(
        "a study of the whole model",
        ("seconds", "question_tokens", "answer_tokens"),
        f"of one kind of data, {_PICTURES}, sounds of {{0.seconds:g}} s or as long as a batch holds",
    ),
}
"""Kinds of studies, by their parameters."""


@dataclass(frozen=True)
class Need:
    """What a row or stage needs: its dearest step, and the one with its longest samples."""

    dearest: TracedStep
    longest: TracedStep

    @property
    def memory(self) -> Memory:
        """Of the dearest step."""
        return self.dearest.memory

    @property
    def shown(self) -> dict[str, str]:
        """What a table says of its batches, by title."""
        step = self.longest
        tokens, batch = f"{step.memory.tokens:,}", f"{self.memory.batch_size} {self.dearest.leg.kind}"
        frames = {}
        if step.sees:
            frames = {"tokens a frame": f"{step.frame_tokens:,}", "frames": f"{step.largest.frames}"}
        return {**frames, "tokens a sample": tokens, "dearest batch": batch}


Counted = tuple[dict[str, Need], dict[str, str]]
"""What rows or stages need, and why the others cannot be counted."""


@dataclass(frozen=True)
class Scale:
    """A rung counted."""

    ablation: str
    rung: str
    study: Study
    cells: Mapping[str, Any]
    """By row."""
    asked: Asked
    precision: str

    @cached_property
    def _rows(self) -> Counted:
        def every(cell: Any) -> Iterable[TrainedRoute]:
            return chain.from_iterable(routes(cell).values())

        return self._counted({row: partial(every, cell) for row, cell in self.cells.items()}, self.cells)

    @cached_property
    def _stages(self) -> Counted:
        cell = self.cells[self.dearest]
        if self.whole:
            own = routes(cell)
        else:
            kinds = {kind: source for kind, source in sources(cell).items() if kind in PROJECTORS}
            parts = [part.name for part in self.rows[self.dearest].memory.parts]
            own = {}
            for stage in PAPER_STAGES.values():
                trained = [part for part in parts if part in stage.trained]
                route = partial(TrainedRoute.of, trained=trained, computed=bool({*ENCODERS} & {*trained}))
                own[stage.name] = [route(k, s) for k, s in kinds.items() if {*PROJECTORS[k]} & {*stage.parts}]
        legs: dict[str, Any] = {stage: partial(list, given) for stage, given in own.items() if given}
        return self._counted(legs, dict.fromkeys(legs, cell))

    rows = property(lambda self: self._rows[0], doc="Those that can be built at this rung.")
    refused = property(lambda self: self._rows[1], doc="Why a row cannot.")
    stages = property(lambda self: self._stages[0], doc="Those of the paper that have the parts of the dearest row.")
    refused_stages = property(lambda self: self._stages[1], doc="Why a stage cannot be counted with it.")

    @property
    def whole(self) -> bool:
        """It is of the whole model, whose cells have the paper's stages themselves."""
        return isinstance(next(iter(self.cells.values())), OmniParameters)

    @cached_property
    def dearest(self) -> str:
        """The row that needs most memory."""
        return max(self.rows, key=lambda row: self.rows[row].memory.total)

    @property
    def models(self) -> str:
        """The names of what the rows are made of."""
        names = ("audio_encoder", "vision_encoder", "language_model", "scorer")
        told = [one for cell in self.cells.values() for one in (*senses(cell), cell) if one]
        there = [[getattr(one, name) for one in told if hasattr(one, name)] for name in names]
        return " and ".join(" or ".join(dict.fromkeys(values)) for values in there if values)

    @cached_property
    def scoring(self) -> str:
        """What scoring before the training of the dearest row takes, or why that cannot be said; empty without any."""
        cell = self.cells[self.dearest]
        if not isinstance(cell, TuningParameters):
            return ""
        scorer = "the same model"
        if isinstance(cell, TextTuningParameters):
            scorer, tokens = cell.scorer, scored_tokens(cell)
            cell = replace(cell, language_model=scorer, budget_tokens=tokens, max_tokens=tokens)
        leg = replace(self.rows[self.dearest].dearest.leg, trained=())
        try:
            memory = TracedStep.of(cell, leg, self.asked, self.precision).memory
        except LabError as error:
            return f"Scoring before it cannot be counted: {error}"
        count = sum(part.parameters for part in memory.parts if part.weights)
        return (
            f"Scoring before it: {scorer} ({_millions(count)} M parameters, {_gigabytes(memory.kept)} GB of weights), "
            f"forward only, at most {_gigabytes(memory.total - memory.kept)} GB besides, in packs of "
            f"{cell.budget_tokens:,} tokens."
        )

    def _counted(self, legs: Mapping[str, Callable[[], Iterable[TrainedRoute]]], cells: Mapping[str, Any]) -> Counted:
        found: dict[str, Need] = {}
        refused: dict[str, str] = {}
        for name, of_cell in legs.items():
            try:
                legs_of = dict.fromkeys(of_cell())
                steps = [TracedStep.of(cells[name], leg, self.asked, self.precision) for leg in legs_of]
                dearest = max(steps, key=lambda step: step.memory.total)
                found[name] = Need(dearest, max(steps, key=lambda step: step.memory.tokens))
            except LabError as error:
                refused[name] = str(error)
        return found, refused


def scale(
    ablation: Ablation, rung: str, rows: str | Sequence[str] = "main", *, precision: str | None = None, **asked: Any
) -> Scale:
    """Trace a step on the largest batch of each row.

    Args:
        ablation: a study of a kind that is in `STUDIES`.
        rung: one of its rungs.
        rows: as in `cells`.
        precision: a name of `PRECISIONS`; the rung's own where None, `auto` as on a GPU (bfloat16).
        asked: of `Asked`, as far as the kind of study takes them.

    Raises:
        LabError: a study of another kind, an unknown row, rung, precision or model, a length out of range or that the
            study has not, or no row that fits the rung.
    """
    study = next((study for kind, study in STUDIES.items() if isinstance(ablation.base, kind)), None)
    if study is None:
        kinds = ", ".join(kind.__name__ for kind in STUDIES)
        own = type(ablation.base).__name__
        raise LabError(f"{ablation.name!r} is of no kind that can be counted: it has {own}, none of: {kinds}")
    asked = {name: value for name, value in asked.items() if value is not None}
    for name, value in asked.items():
        if name not in study.options:
            raise LabError(f"{name} is {value:g}, but {study.name} has none; leave it out")
    chosen: dict[str, Any] = {cell.row: ablation.resolve(cell.row, rung) for cell in cells(ablation, rung, rows)}
    own = next(iter(chosen.values())).precision
    precision = precision or ("bfloat16" if own == "auto" else own)
    choose(PRECISIONS, precision, "precision")
    found = Scale(ablation.name, rung, study, chosen, Asked(**asked), precision)
    if not found.rows:
        row, reason = next(iter(found.refused.items()))
        raise LabError(f"row {row!r} of {ablation.name!r} does not fit rung {rung!r}: {reason}")
    return found


_WORDS = {
    "float32": "float32",
    "bfloat16": "products in bfloat16, weights in float32 (autocast, as the training loop)",
    "bfloat16_weights": "weights in bfloat16, master copies and moments in float32 (not in the training loop)",
}


_AT_WORST = {"passing": "more at the worst moment", "total": "total"}


def table(found: Scale) -> str:
    """By row, by part of the dearest row, and by stage of the paper, for a terminal."""
    dearest = found.rows[found.dearest]
    stages: list[str] = []
    if found.stages or found.refused_stages:  # no stage of the paper has the parts of a study of text
        stages = [
            "",
            f"By stage, {found.dearest}"
            if found.whole
            else f"By stage of the paper, with {found.dearest}'s projector; parts of other branches not counted",
            *_aligned({name: _line(need) for name, need in found.stages.items()}),
            *(f"{stage} cannot be counted with it: {reason}" for stage, reason in found.refused_stages.items()),
        ]
    lines = [
        f"{found.ablation}, rung {found.rung}: {found.models}, {_WORDS[found.precision]}",
        f"a step: {found.study.batch.format(found.asked)}",
        "",
        "By row, with the trained parameters of each part in millions",
        *_aligned({row: _line(need) for row, need in found.rows.items()}),
        *(f"{row} does not fit this rung: {reason}" for row, reason in found.refused.items()),
        "",
        f"By part, {found.dearest}, GB",
        *_aligned(_by_part(dearest.memory, dearest.dearest.checkpointed)),
        *stages,
        "",
        *filter(None, [found.scoring]),
        "Not counted: the GPU's own context, fragmentation, workspaces, features as they are read. Checkpointed: what",
        "recomputing every layer of encoder and language model leaves (`gradient_checkpointing` of the training loop).",
    ]
    return "\n".join(lines)


def _line(need: Need) -> dict[str, str]:
    memory = need.memory
    return {
        **need.shown,
        **{f"{part.name} (M)": _millions(part.trained_parameters) for part in memory.parts},
        "kept (GB)": _gigabytes(memory.kept),
        "total (GB)": _gigabytes(memory.total),
        "TFLOPs a step": f"{memory.flops / 1e12:,.1f}",
    }


def _by_part(memory: Memory, checkpointed: Memory) -> dict[str, dict[str, str]]:
    def line(part: PartMemory, again: PartMemory) -> dict[str, str]:
        counts = {"parameters (M)": part.parameters, "trained (M)": part.trained_parameters}
        sizes = {"weights": part.weights, "gradients": part.gradients, "optimiser": part.optimizer}
        sizes |= {"activations": part.activations, "checkpointed": again.activations}
        return {name: _millions(count) for name, count in counts.items()} | {
            name: _gigabytes(size) for name, size in sizes.items()
        }

    lines = {part.name: line(part, again) for part, again in zip(memory.parts, checkpointed.parts, strict=True)}
    for name in ("passing", "total"):
        sizes = {"activations": getattr(memory, name), "checkpointed": getattr(checkpointed, name)}
        lines[_AT_WORST[name]] = {kind: _gigabytes(size) for kind, size in sizes.items()}
    return lines


def _aligned(lines: Mapping[str, Mapping[str, str]]) -> list[str]:
    return pd.DataFrame.from_dict(lines, orient="index").fillna("").to_string().splitlines() if lines else []


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f}"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.2f}"
