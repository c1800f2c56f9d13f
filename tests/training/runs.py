"""A regression of a few weights with dropout, so that a run depends on its generator too, and how to interrupt one."""

import itertools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from lab.parts.joined_sequences import AnswerLoss


class Regression(nn.Module):
    """A trained layer, a frozen one, and noise."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trained = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.3), nn.Linear(5, 3))
        self.frozen = nn.Linear(3, 1).requires_grad_(False)

    def loss_of_step(self, step: int) -> AnswerLoss:
        """Four rows of as many tokens; the data of a step depend on nothing but its number."""
        return self.loss_of_rows(torch.randn(4, 3, generator=torch.Generator().manual_seed(step)))

    def loss_of_rows(self, x: torch.Tensor) -> AnswerLoss:
        """Each row is of two tokens."""
        error = (self.frozen(self.trained(x)) - x.sum(1, keepdim=True)).square().squeeze(1)
        return AnswerLoss(error * 2, torch.full((4,), 2))


def counted(loss_of_step: Callable[[int], AnswerLoss], steps: list[int]) -> Callable[[int], AnswerLoss]:
    """Note each step that is asked for."""

    def ask(step: int) -> AnswerLoss:
        steps.append(step)
        return loss_of_step(step)

    return ask


def interrupt(module: ModuleType, function: str, at_call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a function of a module raise KeyboardInterrupt at that call, from 1; checkpoints are kept every 2 steps."""
    real, calls = getattr(module, function), itertools.count(1)

    def call(*arguments: Any, **options: Any) -> Any:
        if next(calls) == at_call:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(module, function, call)
    monkeypatch.setattr(module, "CHECKPOINT_EVERY", 2)
