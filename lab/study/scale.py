"""What a rung of a study needs, before it is rented: parameters, tokens, memory and operations by row, part and stage.

Nothing is downloaded and nothing is given memory: `lab.study.largest_batch` builds the model and its largest batch on
the meta device, and `lab.training.memory` traces a step. `lab.study.scale_table` prints it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property, partial
from typing import Any, get_args

import torch

from lab.errors import LabError, choose
from lab.parts.any_resolution import num_tokens
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
    Leg,
    Parameters,
    Step,
    build_encoders,
    largest_seen,
    prompt_tokens,
    step_of,
)
from lab.training.curricula import IMAGE, VIDEO
from lab.training.image_text_model import IMAGES_ALONE
from lab.training.image_text_training import fine_tuning_stage
from lab.training.instruction_data import scored_tokens
from lab.training.memory import PRECISIONS, Memory
from lab.training.stages import PAPER_STAGES
from lab.training.vision_cell import IMAGE_BRANCH, cell_branch, cell_projector, cell_stages
from lab.training.vision_examples import VIDEO_FRAME

BRANCHES = {SPEECH: ("audio_projector",), IMAGE: ("visual_projector", "video_projector"), VIDEO: ("video_projector",)}
"""Kinds of data, and the projectors that they may pass through."""


@dataclass(frozen=True)
class Study:
    """A kind of study: what its cells train on, what of `Asked` it takes, and how it is told of."""

    name: str
    options: tuple[str, ...]
    legs: Callable[[Parameters], Iterable[Leg]]
    limit: str
    batch: Callable[[Parameters, Asked], str]
    complete: Mapping[str, Any] | None = None
    """Parameters that all of its cells would have."""


def _hears(parameters: Parameters) -> list[Leg]:
    encoder = ("audio_encoder",) if parameters["train_encoder"] else ()
    return [Leg(SPEECH, "audio_projector", (*encoder, "audio_projector"))]


def _sees(parameters: Parameters) -> Iterable[Leg]:
    for stage in cell_stages(parameters):
        branch = "visual_projector" if stage.name == IMAGE_BRANCH else cell_branch(parameters)
        yield from (Leg(kind, branch, stage.trained) for kind in stage.data)


def _answers_about_pictures(parameters: Parameters) -> list[Leg]:
    return [Leg(IMAGE, "visual_projector", fine_tuning_stage(parameters).trained)]


def _answers(parameters: Parameters) -> list[Leg]:
    return [Leg(TEXT, "", ("language_model",))]


def _utterances(parameters: Parameters, asked: Asked) -> str:
    return (
        f"{asked.or_else('batch_size', parameters['batch_size'])} utterances of "
        f"{asked.or_else('seconds', WINDOW_SECONDS):g} s, each about {prompt_tokens(parameters)} tokens of prompt, the "
        f"projector's, 1 start, {asked.or_else('answer_tokens', ANSWER_TOKENS)} of answer and its end"
    )


def _pictures(limit: str, parameters: Parameters, asked: Asked) -> str:
    batch = f"about {parameters[limit]} tokens of samples"
    if size := asked.or_else("batch_size", parameters.get("batch_size")):
        batch = f"{size} samples"
    return (
        f"{batch} as large as their source has them, each the projector's tokens, "
        f"{asked.or_else('question_tokens', QUESTION_TOKENS)} of question, 1 start, "
        f"{asked.or_else('answer_tokens', ANSWER_TOKENS)} of answer and its end"
    )


def _text(parameters: Parameters, asked: Asked) -> str:
    tokens = parameters["budget_tokens"]
    return f"one pack of {tokens:,} tokens, {asked.or_else('answer_tokens', tokens):,} of them answers'"


STUDIES: dict[str, Study] = {
    "audio_encoder": Study(
        "a study of speech", ("seconds", "answer_tokens", "batch_size"), _hears, "max_tokens", _utterances
    ),
    "scorer_steps": Study(
        "a study of packed instructions",
        ("question_tokens", "answer_tokens"),
        _answers_about_pictures,
        "budget_tokens",
        partial(_pictures, "budget_tokens"),
        IMAGES_ALONE,
    ),
    "vision_encoder": Study(
        "a study of pictures or video",
        ("question_tokens", "answer_tokens", "batch_size"),
        _sees,
        "batch_tokens",
        partial(_pictures, "batch_tokens"),
    ),
    "scorer": Study("a study of packed instructions", ("answer_tokens",), _answers, "budget_tokens", _text),
}
"""Kinds of studies, by the parameter that tells them; the first that a study has decides."""


@dataclass(frozen=True)
class Need:
    """What a row or stage needs: its dearest step, and the step with its longest samples."""

    dearest: Step
    longest: Step

    @property
    def memory(self) -> Memory:
        """Of the dearest step."""
        return self.dearest.memory

    @property
    def shown(self) -> dict[str, str]:
        """What a table says of its batches, by title."""
        leg, parameters = self.longest.leg, Parameters(self.longest.cell)
        if leg.kind == TEXT:
            return {"tokens a pack": f"{parameters[self.longest.limit]:,}"}
        tokens = {"tokens a sample": f"{self.longest.memory.tokens:,}"}
        if leg.kind == SPEECH:
            return tokens
        encoder = build_encoders(parameters)["vision_encoder"]
        seen = largest_seen(parameters, leg.kind, encoder.image_size)
        frame = _frame_tokens(parameters, encoder, seen.frame_size, parameters["max_tiles"]) if seen.frames else 0
        batch = f"{self.memory.batch_size} {self.dearest.leg.kind}"
        return {"tokens a frame": f"{frame:,}", "frames": f"{seen.frames}", **tokens, "dearest batch": batch}


@dataclass(frozen=True)
class Scale:
    """A rung counted: its rows, and by stage the row that needs most."""

    ablation: str
    rung: str
    study: Study
    cells: Mapping[str, Parameters]
    """By row."""
    asked: Asked
    precision: str
    step: Callable[[Parameters, Leg], Step]
    """Of a cell's leg."""
    rows: Mapping[str, Need]
    refused: Mapping[str, str]
    """Why a row cannot be built at this rung."""

    @property
    def dearest(self) -> str:
        """The row that needs most memory."""
        return max(self.rows, key=lambda row: self.rows[row].memory.total)

    @cached_property
    def _stages(self) -> tuple[dict[str, Need], dict[str, str]]:
        parameters = self.cells[self.dearest]
        kinds = [SPEECH] if "audio_encoder" in parameters else []
        kinds += [kind for kind, source in SOURCES.items() if parameters.get(source)]
        parts = [part.name for part in self.rows[self.dearest].memory.parts]
        wanted = {}
        for stage in PAPER_STAGES.values():
            trained = tuple(part for part in parts if part in stage.trained)
            if legs := [Leg(k, b, trained) for k in kinds for b in BRANCHES[k] if b in stage.parts]:
                wanted[stage.name] = partial(_need, self.step, parameters, legs)
        return _counted(wanted)

    @property
    def stages(self) -> Mapping[str, Need]:
        """The stages of the paper in which the study's parts take part, with the dearest row's projector."""
        return self._stages[0]

    @property
    def refused_stages(self) -> Mapping[str, str]:
        """Why a stage cannot be counted with it."""
        return self._stages[1]

    @property
    def heading(self) -> tuple[str, str]:
        """What the models are made of, and what a step is."""

        def values(name: str) -> str:
            return " or ".join(dict.fromkeys(str(parameters[name]) for parameters in self.cells.values()))

        shared = next(iter(self.cells.values()))
        names = [name for name in ("audio_encoder", "vision_encoder", "language_model") if name in shared]
        scored = f", scored by {values('scorer')}" if "scorer" in shared else ""
        return " and ".join(map(values, names)) + scored, self.study.batch(shared, self.asked)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of the dearest row besides, a line each."""
        parameters = self.cells[self.dearest]
        found: list[str] = []
        if "scorer" in parameters or "scorer_steps" in parameters:
            found.append(self._scoring(parameters))
        if "vision_encoder" in parameters and (note := _frame_note(parameters)):
            found.append(note)
        return tuple(found)

    def _scoring(self, parameters: Parameters) -> str:
        """What scoring takes: the scorer's weights, and a pack that passes forward; or why that cannot be said."""
        leg = Leg(*astuple(self.rows[self.dearest].dearest.leg)[:2], ())
        scorer, changes = "the same model", {}
        if "scorer" in parameters:
            scorer, tokens = parameters["scorer"], scored_tokens(parameters)
            changes = {"language_model": scorer, "budget_tokens": tokens, "max_tokens": tokens}
        cell = Parameters({**parameters, **changes})
        try:
            memory = self.step(cell, leg).memory
        except LabError as error:
            return f"Scoring before it cannot be counted: {error}"
        count = sum(part.parameters for part in memory.parts if part.weights)
        return (
            f"Scoring before it: {scorer} ({count / 1e6:,.1f} M parameters, {memory.kept / 1e9:,.2f} GB of weights), "
            f"forward only, at most {(memory.total - memory.kept) / 1e9:,.2f} GB besides, in packs of "
            f"{cell['budget_tokens']:,} tokens."
        )


def scale(
    ablation: Ablation,
    rung: str,
    rows: str | Sequence[str] = "main",
    *,
    precision: str | None = None,
    **asked: Any,
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
    study = next((study for name, study in STUDIES.items() if name in ablation.base), None)
    if study is None:
        names = " or ".join(map(repr, STUDIES))
        raise LabError(f"{ablation.name!r} is of no kind that can be counted: it has no parameter {names}")
    for name, value in asked.items():
        if value is not None and name not in study.options:
            raise LabError(f"{name} is {value:g}, but {study.name} has none; leave it out")
    chosen = {
        cell.row: Parameters({**cell.parameters, **(study.complete or {})}) for cell in cells(ablation, rung, rows)
    }
    own = next(iter(chosen.values()))["precision"]
    precision = precision or ("bfloat16" if own == "auto" else own)
    choose(PRECISIONS, precision, "precision")
    sizes = Asked(**asked)

    def step(parameters: Parameters, leg: Leg) -> Step:
        limit = "pack_tokens" if parameters.get("pack_tokens") else study.limit
        return step_of(parameters, leg, limit, sizes, precision)

    wanted = {row: partial(_row, study, step, parameters) for row, parameters in chosen.items()}
    found, refused = _counted(wanted)
    if not found:
        row, reason = next(iter(refused.items()))
        raise LabError(f"row {row!r} of {ablation.name!r} does not fit rung {rung!r}: {reason}")
    return Scale(ablation.name, rung, study, chosen, sizes, precision, step, found, refused)


def _row(study: Study, step: Callable[[Parameters, Leg], Step], parameters: Parameters) -> Need:
    return _need(step, parameters, study.legs(parameters))


def _need(step: Callable[[Parameters, Leg], Step], parameters: Parameters, legs: Iterable[Leg]) -> Need:
    steps = [step(parameters, leg) for leg in dict.fromkeys(legs)]
    return Need(
        max(steps, key=lambda step: step.memory.total),
        max(steps, key=lambda step: step.memory.tokens),
    )


def _counted(wanted: Mapping[str, Callable[[], Need]]) -> tuple[dict[str, Need], dict[str, str]]:
    """What can be counted, and why the rest cannot."""
    found: dict[str, Need] = {}
    refused: dict[str, str] = {}
    for name, count in wanted.items():
        try:
            found[name] = count()
        except LabError as error:
            refused[name] = str(error)
    return found, refused


def _frame_tokens(parameters: Parameters, encoder: Any, size: tuple[int, int], max_tiles: int, **options: Any) -> int:
    with torch.device("meta"):
        projector = cell_projector({**parameters, **options}, 1, 1)
    return num_tokens(
        *size,
        image_size=encoder.image_size,
        max_tiles=max_tiles,
        view_grid=projector.output_grid(*encoder.grid),
        **{name: parameters[name] for name in ("fit", "unpad", "newline")},
    )


def _frame_note(parameters: Parameters) -> str:
    """What a frame of the paper's largest size takes, whole and in tiles, by what becomes of odd patches."""
    encoder = build_encoders(parameters)["vision_encoder"]
    if encoder.image_size != VIDEO_FRAME[0]:
        return ""
    told = []
    for padding in get_args(Padding) if parameters["projector"] != "mlp" else ("",):
        options = {"padding": padding} if padding else {}
        whole, tiled = (_frame_tokens(parameters, encoder, VIDEO_FRAME, tiles, **options) for tiles in (1, 2))
        told.append(f"{whole} or {tiled}" + (f" with padding {padding!r}" if padding else ""))
    return f"Tokens of a frame of {VIDEO_FRAME[0]} x {VIDEO_FRAME[1]}, whole or with its tiles: {', '.join(told)}."
