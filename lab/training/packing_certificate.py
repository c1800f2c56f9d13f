"""The packing certificate: proof, on a run's own model and samples, that packed samples do not touch each other.

Section 3 of the paper packs its samples. A leak between them (attention, positions, labels, a strided convolution
across a boundary, a modality's tokens in the wrong sample) trains on, and only the results are worse. So sample A is
changed, in its text, its modality's features, its length, and everything of the others has to stay: positions, labels,
embeddings, logits, losses, gradients. Each sample has to be what it is alone, and the packed loss the mean of the
single ones with every scored token counting the same, which is the weighting of `lab.training.loop.train`.

Where the same shapes are computed by the same exact kernels (`per_sample` and `sdpa` on a CPU in float32) nothing may
differ by a bit; elsewhere by `TOLERANCES`, relative to the largest value compared. On every backend no gradient at all
may reach another sample's embeddings.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from lab.errors import LabError
from lab.parts.joined_sequences import AnswerLoss
from lab.parts.omni_model import Example
from lab.parts.packed_attention import choose_packed_attention
from lab.parts.packed_sequences import PackedAnswers
from lab.training.loop import choose_precision
from lab.training.packing_traces import Check, compare_mean, compare_traces, difference, sample_traces

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
_EXACT = ("per_sample", "sdpa")


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What is certified: examples, what each change makes of the one `changed`, and both paths to their losses.

    `packed` takes examples and a backend of `PACKED_ATTENTION`; `padded` gives the same losses in a padded batch.
    """

    examples: Sequence[Example]
    changed: int
    changes: Mapping[str, Example]
    packed: Callable[[Sequence[Example], str], PackedAnswers]
    padded: Callable[[Sequence[Example]], AnswerLoss]


@dataclass(frozen=True, kw_only=True)
class PackingCertificate:
    """What was checked, with which backend and precision; `idle` names changes that changed nothing to be seen."""

    attention: str
    precision: str
    num_samples: int
    checks: tuple[Check, ...]
    idle: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every check is."""
        return all(check.passed for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that found a leak."""
        return tuple(check for check in self.checks if not check.passed)

    def tags(self) -> dict[str, str]:
        """For a tracked run: the verdict, backend and precision."""
        verdict = "passed" if self.passed else "failed"
        return {"packing_certificate": verdict, "attention": self.attention, "packing_precision": self.precision}

    def artifact(self) -> dict[str, Any]:
        """All of it, for a JSON file beside a run; a difference that is not finite is a text."""
        checks = [{**asdict(check), "passed": check.passed} for check in self.checks]
        for check in checks:
            if not math.isfinite(check["difference"]):
                check["difference"] = str(check["difference"])
        return {**self.tags(), "num_samples": self.num_samples, "idle_changes": list(self.idle), "checks": checks}

    def require(self) -> "PackingCertificate":
        """Itself, where it passed.

        Raises:
            LabError: it did not; the first three leaks are named.
        """
        if self.failed:
            found = "; ".join(f"{c.name} by {c.difference:.3g}, at most {c.tolerance:.3g}" for c in self.failed[:3])
            raise LabError(
                f"packed samples are not kept apart with attention {self.attention!r} in {self.precision}: {found}; "
                "train with padded batches, or choose another attention backend"
            )
        return self


def certify(
    model: nn.Module, probe: Probe, *, attention: str = "auto", precision: str = "float32"
) -> PackingCertificate:
    """Run the checks, in evaluation mode; the model's mode, gradients and weights stay what they were.

    Where nothing requires a gradient (a model that only scores), none is checked. It takes a forward pass for each
    change and each sample, and for each pass a backward pass a sample.

    Args:
        model: whose parameters' gradients are compared.
        probe: at least two samples.
        attention: of `PACKED_ATTENTION`, or `auto`.
        precision: as the training will have it (see `TrainingOptions`).

    Raises:
        LabError: fewer than two samples, or what packing refuses (a backend, a model).
    """
    if len(probe.examples) < 2 or not 0 <= probe.changed < len(probe.examples):
        raise LabError(
            "a packing certificate needs at least two samples and one of them to change, not "
            f"{len(probe.examples)} and number {probe.changed}"
        )
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weight = next(model.parameters())
    device, cast = weight.device, choose_precision(precision, weight.device) == "bfloat16"
    dtype = torch.bfloat16 if cast else weight.dtype
    backend = choose_packed_attention(attention, device=device, dtype=dtype, gradients=torch.is_grad_enabled())
    loose = TOLERANCES[dtype]
    exact = 0.0 if backend in _EXACT and device.type == "cpu" and dtype == torch.float32 else loose
    checks: list[Check] = []
    idle: list[str] = []
    with _in_evaluation(model), torch.autocast(device.type, torch.bfloat16, enabled=cast):
        answers = probe.packed(probe.examples, backend)
        together = sample_traces(answers, parameters)
        alone = [sample_traces(probe.packed([sample], backend), parameters)[0] for sample in probe.examples]
        checks += compare_traces("alone", together, alone, loose)
        checks += compare_mean(answers, alone, parameters, loose)
        padded = probe.padded(probe.examples)
        checks.append(Check("padded: loss", difference(answers.loss.loss, padded.loss), loose))
        for name, replacement in probe.changes.items():
            samples = [*probe.examples[: probe.changed], replacement, *probe.examples[probe.changed + 1 :]]
            moved = sample_traces(probe.packed(samples, backend), parameters)
            others = [index for index in range(len(samples)) if index != probe.changed]
            before, after = together[probe.changed], moved[probe.changed]
            same_shape = before.logits.shape == after.logits.shape and len(before.positions) == len(after.positions)
            if same_shape and torch.equal(before.embeddings, after.embeddings):
                idle.append(name)
            tolerance = exact if same_shape else loose
            checks += compare_traces(
                f"{name} changed", [moved[i] for i in others], [together[i] for i in others], tolerance
            )
    return PackingCertificate(
        attention=backend,
        precision=str(dtype).removeprefix("torch."),
        num_samples=len(probe.examples),
        checks=tuple(checks),
        idle=tuple(idle),
    )


@contextmanager
def _in_evaluation(model: nn.Module) -> Iterator[None]:
    """Without dropout or batch statistics, which would differ by themselves."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
