"""What a model is trained and measured on: examples by their number, whatever they are of."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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

    def __len__(self) -> int:
        return len(self.ids)


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
