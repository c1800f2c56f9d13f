"""What a rung of a study needs, before it is rented: parameters, tokens, memory and operations by row, part and stage.

Nothing is downloaded and nothing is given memory: `lab.study.largest_batch` builds the model and its largest batch on
the meta device, and `lab.training.memory` traces a step. `lab.study.scale_table` prints it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, get_args

import torch

from lab.data.video import VIDEO_FRAME
from lab.errors import LabError, choose
from lab.parts.any_resolution import token_order
from lab.parts.visual_projectors import Padding
from lab.study.ablation import Ablation
from lab.study.cells import cells
from lab.study.largest_batch import (
    ANSWER_TOKENS,
    QUESTION_TOKENS,
    SOURCES,
    SPEECH,
    TEXT,
    WINDOW_SECONDS,
    Asked,
    TracedStep,
    TrainedRoute,
    build_encoders,
    largest_seen,
    prompt_tokens,
    seen_as,
)
from lab.training.cell import IMAGE, IMAGE_BRANCH, VIDEO, cell_branch, cell_stages, cell_visual_projector
from lab.training.memory import PRECISIONS, Memory
from lab.training.parameters import (
    Parameters,
    PictureTuningParameters,
    SightedParameters,
    SpeechParameters,
    TextTuningParameters,
    TuningParameters,
    VisionParameters,
)
from lab.training.stages import PAPER_STAGES
from lab.training.tuning import scored_tokens

BRANCHES = {SPEECH: ("audio_projector",), IMAGE: ("visual_projector", "video_projector"), VIDEO: ("video_projector",)}
"""Kinds of data, and the projectors that they may pass through."""


@dataclass(frozen=True)
class Study:
    """A kind of study: what of `Asked` it takes, what its cells train on, and what a batch of it is in words."""

    name: str
    options: tuple[str, ...]
    legs: Callable[[Any], Iterable[TrainedRoute]]
    limit: str
    batch: Callable[[Any, Asked], str]


def _hears(parameters: SpeechParameters) -> list[TrainedRoute]:
    encoder = ("audio_encoder",) if parameters.train_encoder else ()
    return [TrainedRoute(SPEECH, "audio_projector", (*encoder, "audio_projector"))]


def _sees(parameters: VisionParameters) -> Iterable[TrainedRoute]:
    for stage in cell_stages(parameters):
        branch = "visual_projector" if stage.name == IMAGE_BRANCH else cell_branch(parameters)
        yield from (TrainedRoute(kind, branch, stage.trained) for kind in stage.data)


def _utterances(parameters: SpeechParameters, asked: Asked) -> str:
    return (
        f"{asked.or_else('batch_size', parameters.batch_size)} utterances of "
        f"{asked.or_else('seconds', WINDOW_SECONDS):g} s, each about {prompt_tokens(parameters)} tokens of prompt, the "
        f"projector's, 1 start, {asked.or_else('answer_tokens', ANSWER_TOKENS)} of answer and its end"
    )


def _pictures(parameters: Any, asked: Asked) -> str:
    tuned = isinstance(parameters, PictureTuningParameters)
    size = asked.or_else("batch_size", 0 if tuned else parameters.batch_size)
    tokens = parameters.budget_tokens if tuned else parameters.batch_tokens
    return (
        f"{size or f'about {tokens} tokens of'} samples as large as their source has them, each the projector's "
        f"tokens, {asked.or_else('question_tokens', QUESTION_TOKENS)} of question, 1 start, "
        f"{asked.or_else('answer_tokens', ANSWER_TOKENS)} of answer and its end"
    )


def _text(parameters: TextTuningParameters, asked: Asked) -> str:
    tokens = parameters.budget_tokens
    return f"one pack of {tokens:,} tokens, {asked.or_else('answer_tokens', tokens):,} of them answers'"


STUDIES: dict[type[Parameters], Study] = {
    SpeechParameters: Study(
        "a study of speech", ("seconds", "answer_tokens", "batch_size"), _hears, "max_tokens", _utterances
    ),
    PictureTuningParameters: Study(
        "a study of packed instructions",
        ("question_tokens", "answer_tokens"),
        lambda parameters: [TrainedRoute(IMAGE, "visual_projector", cell_stages(parameters)[1].trained)],
        "budget_tokens",
        _pictures,
    ),
    VisionParameters: Study(
        "a study of pictures or video",
        ("question_tokens", "answer_tokens", "batch_size"),
        _sees,
        "batch_tokens",
        _pictures,
    ),
    TextTuningParameters: Study(
        "a study of packed instructions",
        ("answer_tokens",),
        lambda parameters: [TrainedRoute(TEXT, "", ("language_model",))],
        "budget_tokens",
        _text,
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
        leg, parameters = self.longest.leg, self.longest.parameters
        if leg.kind == TEXT:
            return {"tokens a pack": f"{getattr(parameters, self.longest.limit):,}"}
        tokens = {"tokens a sample": f"{self.longest.memory.tokens:,}"}
        if leg.kind == SPEECH:
            return tokens
        encoder = build_encoders(parameters)["vision_encoder"]
        seen = largest_seen(parameters, leg.kind, encoder.image_size)
        frame = _frame_tokens(seen_as(parameters), encoder, seen.frame_size) if seen.frames else 0
        batch = f"{self.memory.batch_size} {self.dearest.leg.kind}"
        return {"tokens a frame": f"{frame:,}", "frames": f"{seen.frames}", **tokens, "dearest batch": batch}


@dataclass(frozen=True)
class Scale:
    """A rung counted: its rows, and by stage the row that needs most."""

    ablation: str
    rung: str
    study: Study
    cells: Mapping[str, Any]
    """By row."""
    asked: Asked
    precision: str

    @cached_property
    def _rows(self) -> tuple[dict[str, Need], dict[str, str]]:
        return self._counted({row: partial(self.study.legs, cell) for row, cell in self.cells.items()}, self.cells)

    @cached_property
    def _stages(self) -> tuple[dict[str, Need], dict[str, str]]:
        cell = self.cells[self.dearest]
        kinds = [SPEECH] if isinstance(cell, SpeechParameters) else []
        kinds += [kind for kind, source in SOURCES.items() if getattr(cell, source, "")]
        parts = [part.name for part in self.rows[self.dearest].memory.parts]
        legs: dict[str, Callable[[], Iterable[TrainedRoute]]] = {}
        for stage in PAPER_STAGES.values():
            trained = tuple(part for part in parts if part in stage.trained)
            if own := [TrainedRoute(k, b, trained) for k in kinds for b in BRANCHES[k] if b in stage.parts]:
                legs[stage.name] = partial(list, own)
        return self._counted(legs, dict.fromkeys(legs, cell))

    @property
    def rows(self) -> Mapping[str, Need]:
        """Those that can be built at this rung."""
        return self._rows[0]

    @property
    def refused(self) -> Mapping[str, str]:
        """Why a row cannot."""
        return self._rows[1]

    @property
    def stages(self) -> Mapping[str, Need]:
        """The stages of the paper in which the study's parts take part, with the dearest row's projector."""
        return self._stages[0]

    @property
    def refused_stages(self) -> Mapping[str, str]:
        """Why a stage cannot be counted with it."""
        return self._stages[1]

    @cached_property
    def dearest(self) -> str:
        """The row that needs most memory."""
        return max(self.rows, key=lambda row: self.rows[row].memory.total)

    @property
    def heading(self) -> tuple[str, str]:
        """What the models are made of, and what a step is."""

        def values(name: str) -> str:
            return " or ".join(dict.fromkeys(str(getattr(cell, name)) for cell in self.cells.values()))

        shared = next(iter(self.cells.values()))
        names = [name for name in ("audio_encoder", "vision_encoder", "language_model") if hasattr(shared, name)]
        scored = f", scored by {values('scorer')}" if isinstance(shared, TextTuningParameters) else ""
        return " and ".join(map(values, names)) + scored, self.study.batch(shared, self.asked)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of the dearest row besides, a line each."""
        cell = self.cells[self.dearest]
        scoring = self._scoring_note(cell) if isinstance(cell, TuningParameters) else ""
        frame = _frame_note(seen_as(cell)) if isinstance(cell, SightedParameters) else ""
        return tuple(note for note in (scoring, frame) if note)

    def _step(self, cell: Any, leg: TrainedRoute) -> TracedStep:
        limit = "pack_tokens" if getattr(cell, "pack_tokens", 0) else self.study.limit
        return TracedStep.of(cell, leg, limit, self.asked, self.precision)

    def _counted(
        self, legs: Mapping[str, Callable[[], Iterable[TrainedRoute]]], cells: Mapping[str, Any]
    ) -> tuple[dict[str, Need], dict[str, str]]:
        """What can be counted, and why the rest cannot."""
        found: dict[str, Need] = {}
        refused: dict[str, str] = {}
        for name, of_cell in legs.items():
            try:
                steps = [self._step(cells[name], leg) for leg in dict.fromkeys(of_cell())]
                dearest = max(steps, key=lambda step: step.memory.total)
                found[name] = Need(dearest, max(steps, key=lambda step: step.memory.tokens))
            except LabError as error:
                refused[name] = str(error)
        return found, refused

    def _scoring_note(self, cell: Any) -> str:
        """What scoring takes: the scorer's weights, and a pack that passes forward; or why that cannot be said."""
        scorer = "the same model"
        if isinstance(cell, TextTuningParameters):
            scorer, tokens = cell.scorer, scored_tokens(cell)
            cell = replace(cell, language_model=scorer, budget_tokens=tokens, max_tokens=tokens)
        try:
            memory = self._step(cell, replace(self.rows[self.dearest].dearest.leg, trained=())).memory
        except LabError as error:
            return f"Scoring before it cannot be counted: {error}"
        count = sum(part.parameters for part in memory.parts if part.weights)
        return (
            f"Scoring before it: {scorer} ({count / 1e6:,.1f} M parameters, {memory.kept / 1e9:,.2f} GB of weights), "
            f"forward only, at most {(memory.total - memory.kept) / 1e9:,.2f} GB besides, in packs of "
            f"{cell.budget_tokens:,} tokens."
        )


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
    for name, value in asked.items():
        if value is not None and name not in study.options:
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


def _frame_tokens(cell: VisionParameters, encoder: Any, size: tuple[int, int]) -> int:
    with torch.device("meta"):
        view_grid = cell_visual_projector(cell, 1, 1).output_grid(*encoder.grid)
    options: dict[str, Any] = {name: getattr(cell, name) for name in ("max_tiles", "fit", "unpad", "newline")}
    return len(token_order(*size, image_size=encoder.image_size, view_grid=view_grid, **options))


def _frame_note(cell: VisionParameters) -> str:
    """What a frame of the paper's largest size takes, whole and in tiles, by what becomes of odd patches."""
    encoder = build_encoders(cell)["vision_encoder"]
    if encoder.image_size != VIDEO_FRAME[0]:
        return ""
    told = []
    for padding in get_args(Padding) if cell.projector != "mlp" else ("",):
        padded = replace(cell, padding=padding) if padding else cell
        whole, tiled = (_frame_tokens(replace(padded, max_tiles=tiles), encoder, VIDEO_FRAME) for tiles in (1, 2))
        told.append(f"{whole} or {tiled}" + (f" with padding {padding!r}" if padding else ""))
    return f"Tokens of a frame of {VIDEO_FRAME[0]} x {VIDEO_FRAME[1]}, whole or with its tiles: {', '.join(told)}."
