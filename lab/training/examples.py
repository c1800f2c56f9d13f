"""What a model is trained and measured on: examples by their number, whatever they are of."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lab.data.sample import Sample
from lab.parts.audio_tokens import Sound
from lab.parts.omni_model import Example, OmniModel


class Examples(ABC):
    """A source of examples in a fixed order. The model writes texts as token ids, so each example is made for one."""

    @property
    @abstractmethod
    def ids(self) -> Sequence[str]:
        """Their names, for messages."""

    @abstractmethod
    def example(self, index: int, model: OmniModel) -> Example:
        """One example, its media read."""

    def training_example(self, index: int, model: OmniModel, rng: np.random.Generator) -> Example:
        """As `example`, changed at random where training does so."""
        return self.example(index, model)

    def num_tokens(self, index: int, model: OmniModel) -> int:
        """Positions of one example's sequence, the end included."""
        return model.num_tokens(self.example(index, model))

    def shown_frames(self, index: int) -> int:
        """Pictures and frames of video that one example shows."""
        return 0

    def heard_frames(self, index: int, model: OmniModel) -> int:
        """Encoder frames of the sounds in one example."""
        segments = self.example(index, model).content
        return sum(model.sound_frames(segment) for segment in segments if isinstance(segment, Sound))

    def __len__(self) -> int:
        return len(self.ids)


class Asked(Protocol):
    """Examples of samples, whose answers and choices a model is asked for."""

    @property
    def name(self) -> str:
        """Of their source, for messages and tables."""
        ...

    @property
    def samples(self) -> Sequence[Sample]:
        """What is asked, in the examples' order; media may be left out where the examples hold their features."""
        ...

    def __len__(self) -> int:
        """How many."""
        ...

    def example(self, index: int, model: OmniModel) -> Example:
        """As of `Examples`."""
        ...

    def num_tokens(self, index: int, model: OmniModel) -> int:
        """As of `Examples`."""
        ...

    def heard_frames(self, index: int, model: OmniModel) -> int:
        """As of `Examples`."""
        ...

    def answer_ids(self, text: str, model: OmniModel) -> list[int]:
        """An answer or choice as token ids, without start and end."""
        ...


@dataclass(frozen=True)
class ReadyExamples(Examples):
    """Examples at hand, as texts are, with their names."""

    examples: Sequence[Example]
    names: Sequence[str]

    @property
    def ids(self) -> Sequence[str]:
        """Their names, for messages."""
        return self.names

    def example(self, index: int, model: OmniModel) -> Example:
        """The example of that number."""
        return self.examples[index]
