"""What a kind of study tells of its cells, so that any rung can be counted and printed by one writer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lab.errors import LabError
from lab.training.memory import Memory, PartMemory

ANSWER_TOKENS = 128  # ours: of speech some four tokens a second, of pictures a short description


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How large a sample and a batch to count; None is what the rung says, or the kind of study."""

    seconds: float | None = None
    """Of audio in an utterance."""
    question_tokens: int | None = None
    """Of a question about what is seen."""
    answer_tokens: int | None = None
    batch_size: int | None = None
    precision: str | None = None

    def refuse(self, name: str, study: str) -> None:
        """Refuse what a kind of study has not.

        Raises:
            LabError: it was asked for.
        """
        if getattr(self, name) is not None:
            raise LabError(f"{name} is {getattr(self, name):g}, but {study} has none; leave it out")


Column = Callable[[Any], str]
Count = Callable[[], Memory]


class CountedCells(Protocol):
    """The cells of one rung as a kind of study counts them."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of a model's parts, in the order of `Memory.parts`."""
        ...

    @property
    def studied_as(self) -> str:
        """What the part that `studied` gives is, in a word or two."""
        ...

    @property
    def heading(self) -> tuple[str, str]:
        """What the models are made of, and what a step is."""
        ...

    @property
    def columns(self) -> Mapping[str, Column]:
        """Of a row's memory, what the table shows beside its bytes, by title."""
        ...

    @property
    def stage_columns(self) -> Mapping[str, Column]:
        """The same of a stage's."""
        ...

    def notes(self, parameters: Any) -> Sequence[str]:
        """What is to be said of the dearest row besides, a line each."""
        ...

    def studied(self, memory: Memory) -> PartMemory:
        """The part that the rows vary."""
        ...

    def row(self, parameters: Any) -> Count:
        """Counts a row by its parameters."""
        ...

    def stages(self, parameters: Any) -> Mapping[str, Count]:
        """Count the stages of the paper in which all parts of the study take part, with a row's parameters."""
        ...
