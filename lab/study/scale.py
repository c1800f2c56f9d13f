"""What a rung of a study needs, before it is rented: parameters, tokens and memory by row, by part and by stage.

Nothing is downloaded and nothing is given memory: parts are built on the meta device from configurations
(`lab.parts.known_configurations`), and `lab.training.memory` counts. What a cell trains, each kind of study says itself
(`COUNTED`); `lab.study.scale_table` prints it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lab.errors import LabError, choose
from lab.study.ablation import Ablation
from lab.study.cells import cells
from lab.study.scale_cells import Asked, Count, CountedCells
from lab.study.scale_image_text import ImageTextCells
from lab.study.scale_instructions import InstructionCells
from lab.study.scale_speech import SpeechCells
from lab.study.scale_vision import VisionCells
from lab.training.memory import Memory
from lab.training.saved_bytes import PRECISIONS

COUNTED: dict[str, type[SpeechCells | VisionCells | InstructionCells]] = {
    "audio_encoder": SpeechCells,
    "scorer_steps": ImageTextCells,
    "vision_encoder": VisionCells,
    "scorer": InstructionCells,
}
"""Kinds of studies, by the parameter that tells them; the first that a study has decides."""


@dataclass(frozen=True)
class Scale:
    """A rung counted: its rows, and by stage the row that needs most."""

    ablation: str
    rung: str
    cells: CountedCells
    precision: str
    rows: Mapping[str, Memory]
    stages: Mapping[str, Memory]
    """The stages of the paper in which all parts of the study take part, with the dearest row's projector."""
    refused: Mapping[str, str]
    """Why a row cannot be built at this rung."""
    refused_stages: Mapping[str, str]
    """Why a stage cannot."""
    notes: tuple[str, ...]
    """What is to be said of the dearest row besides."""

    @property
    def dearest(self) -> str:
        """The row that needs most memory."""
        return max(self.rows, key=lambda row: self.rows[row].total)


def scale(
    ablation: Ablation,
    rung: str,
    rows: str | Sequence[str] = "main",
    *,
    seconds: float | None = None,
    question_tokens: int | None = None,
    answer_tokens: int | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
) -> Scale:
    """Count what the largest batch of each row takes.

    Args:
        ablation: a study of a kind that is in `COUNTED`.
        rung: one of its rungs.
        rows: as in `cells`.
        seconds: of audio in each utterance of a study of speech, at most the encoder's window, which is the default.
        question_tokens: of each question of a study of pictures or video.
        answer_tokens: of each answer.
        batch_size: samples at once; the rung's own where None.
        precision: a name of `PRECISIONS`; the rung's own where None, `auto` as on a GPU (bfloat16).

    Raises:
        LabError: a study of another kind, an unknown row, rung, precision or model, a length out of range or that the
            study has not, or no row that fits the rung.
    """
    kind = next((counted for name, counted in COUNTED.items() if name in ablation.parameters), None)
    if kind is None:
        names = " or ".join(map(repr, COUNTED))
        raise LabError(f"{ablation.name!r} is of no kind that can be counted: it has no parameter {names}")
    if missing := [name for name in kind.needed if name not in ablation.parameters]:
        raise LabError(f"{ablation.name!r} is no study of {kind.kind}: it has no parameter {missing[0]!r}")
    chosen: dict[str, Any] = {cell.row: ablation.resolve(cell.row, rung) for cell in cells(ablation, rung, rows)}
    shared = next(iter(chosen.values()))
    own = "bfloat16" if shared.precision == "auto" else shared.precision
    name = own if precision is None else precision
    asked = Asked(
        seconds=seconds,
        question_tokens=question_tokens,
        answer_tokens=answer_tokens,
        batch_size=batch_size,
        precision=precision,
    )
    counted = kind(chosen, asked, choose(PRECISIONS, name, "precision"))
    of_rows, refused = _counted({row: counted.row(parameters) for row, parameters in chosen.items()})
    if not of_rows:
        row, reason = next(iter(refused.items()))
        raise LabError(f"row {row!r} of {ablation.name!r} does not fit rung {rung!r}: {reason}")
    found = Scale(ablation.name, rung, counted, name, of_rows, {}, refused, {}, ())
    dearest = chosen[found.dearest]
    of_stages, refused_stages = _counted(counted.stages(dearest))
    return replace(found, stages=of_stages, refused_stages=refused_stages, notes=tuple(counted.notes(dearest)))


def _counted(counts: Mapping[str, Count]) -> tuple[dict[str, Memory], dict[str, str]]:
    """What can be counted, and why the rest cannot."""
    found: dict[str, Memory] = {}
    refused: dict[str, str] = {}
    for name, count in counts.items():
        try:
            found[name] = count()
        except LabError as error:
            refused[name] = str(error)
    return found, refused
