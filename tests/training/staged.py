"""A model of three tiny parts, with batch norm and dropout in each, and stages and data for it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from lab.errors import LabError
from lab.parts.joined_sequences import AnswerLoss
from lab.training.batches import BatchOptions
from lab.training.loop import TrainingOptions
from lab.training.stage_training import StagesRecord, train_stages
from lab.training.stages import Stage

NAMES = ("vision_encoder", "visual_projector", "language_model")


def part(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.Dropout(0.3), nn.Linear(width, width))


class Staged(nn.Module):
    """Three parts, one after the other."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.vision_encoder, self.visual_projector, self.language_model = part(4), part(4), part(4)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.vision_encoder[0].weight.device

    def parts(self) -> dict[str, nn.Module]:
        """By name."""
        return {name: getattr(self, name) for name in NAMES}

    def forward(self, rows: Sequence[torch.Tensor]) -> AnswerLoss:
        """One answer of one token a row."""
        x = torch.stack(list(rows))
        error = (self.language_model(self.visual_projector(self.vision_encoder(x))) - x).square().sum(1)
        return AnswerLoss(error, torch.ones(len(rows)))


class Rows:
    """Rows of four numbers by their names, of which training changes one at random; `refused` cannot be read."""

    def __init__(self, count: int = 40, refused: int | None = None) -> None:
        self.count, self.refused = count, refused

    @property
    def ids(self) -> list[str]:
        """By number."""
        return [f"row {number}" for number in range(self.count)]

    def __len__(self) -> int:
        return self.count

    def num_tokens(self, index: int, model: Any) -> int:
        """All alike."""
        return 1

    def shown_frames(self, index: int) -> int:
        """None."""
        return 0

    def example(self, index: int, model: Any) -> Any:
        """The row of that number."""
        return 3 + torch.randn(4, generator=torch.Generator().manual_seed(index))

    def training_example(self, index: int, model: Any, rng: np.random.Generator) -> Any:
        """With noise in its first number."""
        if index == self.refused:
            raise LabError(f"row {index} cannot be read")
        row = self.example(index, model)
        row[0] += rng.normal()
        return row


class Ready(Rows):
    """Examples at hand."""

    def __init__(self, examples: Sequence[Any]) -> None:
        super().__init__(len(examples))
        self.examples = examples

    @property
    def ids(self) -> list[str]:
        """By number."""
        return [f"t{number}" for number in range(self.count)]

    def num_tokens(self, index: int, model: Any) -> int:
        """Positions of one."""
        return model.num_tokens(self.examples[index])

    def example(self, index: int, model: Any) -> Any:
        """The example of that number."""
        return self.examples[index]

    def training_example(self, index: int, model: Any, rng: np.random.Generator) -> Any:
        """The same."""
        return self.examples[index]


ROWS = {"captions": Rows()}


def run(model: Staged, *stages: Stage, data: Mapping[str, Any] = ROWS, **arguments: Any) -> StagesRecord:
    """Train the stages on eight rows a step."""
    loop = {name: arguments.pop(name) for name in ("warmup_steps", "accumulate", "workers") if name in arguments}
    options = TrainingOptions(precision="float32", checkpoint_every=2, **loop)
    given = {"batches": BatchOptions(size=8), "seed": 0, **arguments}
    return train_stages(model, stages, data, options, **given)  # type: ignore[arg-type]


def stage(name: str = "one", **changes: object) -> Stage:
    values = {
        "name": name,
        "paper": "a test's",
        "frozen": ("vision_encoder", "language_model"),
        "learning_rates": {"visual_projector": 1e-2},
        "data": {"captions": 1.0},
        "steps": 6,
        "schedule": "cosine",
    }
    return Stage(**{**values, **changes})  # type: ignore[arg-type]


def three_stages() -> Mapping[str, Stage]:
    """Each starts from the last; the first trains one part, the second two, the third all."""
    stages = (
        stage("one"),
        stage(
            "two",
            frozen=("language_model",),
            learning_rates={"visual_projector": 1e-2, "vision_encoder": 1e-3},
            starts_from=("one",),
        ),
        stage("three", frozen=(), learning_rates=dict.fromkeys(NAMES, 1e-3), starts_from=("two",)),
    )
    return {one.name: one for one in stages}


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    """Weights and buffers as they are now."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    """To the bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
