"""What is drawn by number, endlessly: its random numbers, its name, and what is asked about it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lab.data.splits import SPLITS, Split
from lab.errors import LabError


@dataclass(frozen=True)
class Question:
    """A question of one kind with its choices, in the order in which they are offered; `answer` is one of them."""

    kind: str
    text: str
    choices: tuple[str, ...]
    answer: str

    def __post_init__(self) -> None:
        if self.answer not in self.choices or len(set(self.choices)) != len(self.choices):
            raise LabError(f"the answer {self.answer!r} is not one of the different choices {self.choices}")


def generator(seed: int, index: int, split: Split, *purpose: int, first: Sequence[int] = ()) -> np.random.Generator:
    """The random numbers of one picture, or with a `purpose` those of it; `first` tells kinds of pictures apart."""
    return np.random.default_rng([*first, seed, index, SPLITS.index(split), *purpose])


def offered(rng: np.random.Generator, answer: str, others: Sequence[str]) -> tuple[str, ...]:
    """The choices of a question: the answer at a random place among the others."""
    place = int(rng.integers(len(others) + 1))
    return (*others[:place], answer, *others[place:])
