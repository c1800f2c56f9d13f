"""What one sample of a pack is and gives, and how far two such traces differ: the certificate's comparisons.

Section 3 of the paper (packing); see `lab.training.packing_certificate`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.parts.packed_sequences import PackedAnswers

# Of each parameter's gradient so many numbers are compared, evenly drawn: a 7B's would not fit several times.
_KEPT_GRADIENTS = 4096


@dataclass(frozen=True)
class Check:
    """The greatest difference found of one thing, and how much it may be (0: not a bit)."""

    name: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether it is small enough; a NaN is not."""
        return self.difference <= self.tolerance


@dataclass(frozen=True)
class SampleTrace:
    """What one sample of a pack is and gives; `reach`: the greatest gradient of its loss on another's embeddings."""

    positions: Int[Tensor, " length"]
    labels: Int[Tensor, " scored"]
    embeddings: Float[Tensor, "length hidden_size"]
    logits: Float[Tensor, "scored vocab_size"]
    loss: Float[Tensor, ""]
    gradients: tuple[Tensor, ...] = ()
    reach: float = 0.0


def sample_traces(answers: PackedAnswers, parameters: Sequence[Tensor]) -> list[SampleTrace]:
    """Take a pack apart, each sample's loss differentiated on its own."""
    packed, loss = answers.packed, answers.loss
    embeddings, counts = packed.embeddings[0], loss.num_tokens.tolist()
    found = []
    for index, parts in enumerate(
        zip(
            packed.position_ids[0].split(list(packed.lengths)),
            answers.labels.split(counts),
            embeddings.detach().split(list(packed.lengths)),
            answers.logits.detach().split(counts),
            loss.loss.detach(),
            strict=True,
        )
    ):
        gradients, reach = _gradients(loss.loss[index], packed.embeddings, packed.lengths, index, parameters)
        found.append(SampleTrace(*parts, gradients, reach))
    return found


def _gradients(
    loss: Float[Tensor, ""],
    embeddings: Float[Tensor, "1 tokens hidden_size"],
    lengths: Sequence[int],
    index: int,
    parameters: Sequence[Tensor],
) -> tuple[tuple[Tensor, ...], float]:
    if not loss.requires_grad:
        return (), 0.0
    wanted = [embeddings, *parameters] if embeddings.requires_grad else list(parameters)
    found = list(torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True, materialize_grads=True))
    reach = 0.0
    if embeddings.requires_grad:
        by_sample = list(found[0][0].split(list(lengths)))
        found[0] = by_sample.pop(index)
        reach = max((float(other.abs().max()) for other in by_sample), default=0.0)
    return tuple(_drawn(gradient) for gradient in found), reach


def _drawn(gradient: Tensor) -> Tensor:
    flat = gradient.detach().flatten()
    return flat[:: -(-len(flat) // _KEPT_GRADIENTS)].clone()


def compare_traces(
    where: str, found: Sequence[SampleTrace], expected: Sequence[SampleTrace], tolerance: float
) -> list[Check]:
    """One check a thing, over all samples; positions and labels are whole numbers and equal or not."""
    pairs = list(zip(found, expected, strict=True))
    checks = [
        Check(f"{where}: {thing}", max(difference(getattr(a, thing), getattr(b, thing)) for a, b in pairs), allowed)
        for thing, allowed in (
            ("positions", 0.0),
            ("labels", 0.0),
            ("embeddings", tolerance),
            ("logits", tolerance),
            ("loss", tolerance),
        )
    ]
    if all(a.gradients for a, _ in pairs):
        gradients = max(difference(torch.cat(a.gradients), torch.cat(b.gradients)) for a, b in pairs)
        checks.append(Check(f"{where}: gradients", gradients, tolerance))
        checks.append(Check(f"{where}: gradients on other samples", max(a.reach for a, _ in pairs), 0.0))
    return checks


def compare_mean(
    answers: PackedAnswers, alone: Sequence[SampleTrace], parameters: Sequence[Tensor], tolerance: float
) -> list[Check]:
    """The packed loss and its gradient against the mean of single ones, every scored token counting the same."""
    total = answers.loss.num_tokens.sum()
    packed = answers.loss.loss.sum() / total
    checks = [Check("mean: loss", difference(packed, sum(s.loss for s in alone) / total), tolerance)]  # type: ignore[arg-type]
    if packed.requires_grad and parameters:
        found = torch.autograd.grad(packed, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        # The gradients on the embeddings, which stand before those on the parameters, are each sample's own.
        singles = [sample.gradients[-len(parameters) :] for sample in alone]
        expected = [sum(gradients) / total for gradients in zip(*singles, strict=True)]
        both = torch.cat([_drawn(gradient) for gradient in found]), torch.cat(expected)  # type: ignore[arg-type]
        checks.append(Check("mean: gradients", difference(*both), tolerance))
    return checks


def difference(found: Tensor, expected: Tensor) -> float:
    """The greatest difference, relative to the greatest value; whole numbers as they are, infinite between shapes."""
    if found.shape != expected.shape:
        return math.inf
    if not found.numel():
        return 0.0
    if not found.is_floating_point():
        return float((found - expected).abs().max())
    found, expected = found.detach().float(), expected.detach().float()
    greatest = float((found - expected).abs().max())
    return greatest / max(float(expected.abs().max()), 1e-30) if greatest else 0.0
