"""A model of four tiny parts, with batch norm and dropout in each, and stages for it."""

from collections.abc import Mapping

import torch
from torch import nn

from lab.parts.joined_sequences import AnswerLoss
from lab.training.stages import Stage, stages_by_name

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
    def parts(self) -> dict[str, nn.Module]:
        """By name."""
        return {name: getattr(self, name) for name in NAMES}

    def loss_of_step(self, step: int) -> AnswerLoss:
        """Eight rows; the data of a step depend on nothing but its number."""
        x = 3 + torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        error = (self.language_model(self.visual_projector(self.vision_encoder(x))) - x).square().sum(1)
        return AnswerLoss(error, torch.ones(8))


def stage(name: str = "one", **changes: object) -> Stage:
    values = {
        "name": name,
        "paper": "a test's",
        "trained": ("visual_projector",),
        "frozen": ("vision_encoder", "language_model"),
        "learning_rates": {"visual_projector": 1e-2},
        "data": {"captions": 1.0},
        "steps": 6,
        "schedule": "cosine",
    }
    return Stage(**{**values, **changes})  # type: ignore[arg-type]


def three_stages() -> Mapping[str, Stage]:
    """Each starts from the last; the first trains one part, the second two, the third all."""
    return stages_by_name(
        [
            stage("one"),
            stage(
                "two",
                trained=("visual_projector", "vision_encoder"),
                frozen=("language_model",),
                learning_rates={"visual_projector": 1e-2, "vision_encoder": 1e-3},
                starts_from=("one",),
            ),
            stage("three", trained=NAMES, frozen=(), learning_rates=dict.fromkeys(NAMES, 1e-3), starts_from=("two",)),
        ]
    )


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    """Weights and buffers as they are now."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    """To the bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
