"""The packing certificate: proof, on a run's own model and samples, that packed samples do not touch each other.

Sections 2 and 3 of the paper pack samples. A leak between them (attention, positions, labels, a strided convolution
across a boundary, a modality's tokens in the wrong sample) trains on, and only the results are worse. So the middle one
of three samples is changed, and everything of its neighbours has to stay: positions, labels, embeddings, logits,
losses, gradients. The changes are `text` (every token of content and answer becomes another), `features` (of its sounds
and pictures; their number stays) and `length` (answer and text a token longer, a sound or video a frame shorter, which
moves every later sample and window). Each sample has to be what it is alone, and the packed loss the mean of the single
ones with every scored token counting the same, which is the weighting of `lab.training.loop.train`. Three short samples
do not show what depends on the length of a sample or of a pack (a window, chunks, positions that are scaled), so whole
packs are probed too: the loss of each of their samples has to be what the model makes of it alone, unpacked.

Where the same shapes are computed by the same exact kernels (`per_sample` on a CPU in float32) nothing may differ by a
bit; elsewhere by `TOLERANCES`, relative to the largest value compared. On every backend no gradient at all may reach
another sample's embeddings.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from lab.errors import LabError
from lab.parts.any_resolution import num_views
from lab.parts.joined_sequences import PackedAnswers
from lab.parts.media_tokens import Seen, Sound
from lab.parts.omni_model import Example, OmniModel, Segment, Tokens
from lab.parts.packed_attention import TOLERANCES, choose_packed_attention
from lab.parts.part import in_evaluation
from lab.training.loop import choose_precision

NUM_SAMPLES = 3
_CHANGED = 1
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


@dataclass(frozen=True, kw_only=True)
class PackingCertificate:
    """What was checked, with which backend and precision; `idle` names changes that changed nothing to be seen."""

    attention: str
    precision: str
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
        return {**self.tags(), "num_samples": NUM_SAMPLES, "idle_changes": list(self.idle), "checks": checks}

    def require(self) -> "PackingCertificate":
        """Itself, where it passed, else a LabError that names the first three leaks."""
        if self.failed:
            found = "; ".join(f"{c.name} by {c.difference:.3g}, at most {c.tolerance:.3g}" for c in self.failed[:3])
            raise LabError(
                f"packed samples are not kept apart with attention {self.attention!r} in {self.precision}: {found}; "
                "do not pack them, or choose another attention backend"
            )
        return self


def certify(
    model: OmniModel,
    examples: Sequence[Example],
    *,
    attention: str = "auto",
    precision: str = "float32",
    packs: Iterable[Sequence[Example]] = (),
    packed: Callable[..., PackedAnswers] | None = None,
) -> PackingCertificate:
    """Run the checks, in evaluation mode; the model's mode, gradients and weights stay what they were.

    Where nothing requires a gradient (a model that only scores), none is checked. It takes a forward pass for each
    change and each of the three examples, and for each pass a backward pass an example; of each of the whole `packs` it
    takes two forward passes and no backward pass. `attention` is of `PACKED_ATTENTION` or `auto`, `precision` as the
    training will have it, and `packed` stands in for the model's own.

    Raises:
        LabError: another number of examples, or what packing refuses (a backend, a model).
    """
    if len(examples) != NUM_SAMPLES:
        raise LabError(f"a packing certificate needs {NUM_SAMPLES} samples, not {len(examples)}")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    pack = packed or model.packed
    checks: list[Check] = []
    idle: list[str] = []
    with _computed(model, attention, precision) as (backend, dtype):
        loose = TOLERANCES[dtype]
        exact = 0.0 if backend == "per_sample" and model.device.type == "cpu" and dtype == torch.float32 else loose
        answers = pack(examples, attention=backend)
        together = _traces(answers, parameters)
        alone = [_traces(pack([sample], attention=backend), parameters)[0] for sample in examples]
        checks += _compare("alone", together, alone, loose)
        checks += _compare_mean(answers, alone, parameters, loose)
        checks.append(Check("padded: loss", _difference(answers.loss.loss, model(examples).loss), loose))
        for name, replacement in _changes(model, examples[_CHANGED]).items():
            samples = [*examples[:_CHANGED], replacement, *examples[_CHANGED + 1 :]]
            moved = _traces(pack(samples, attention=backend), parameters)
            before, after = together.pop(_CHANGED), moved.pop(_CHANGED)
            same_shape = before.logits.shape == after.logits.shape and len(before.positions) == len(after.positions)
            if same_shape and torch.equal(before.embeddings, after.embeddings):
                idle.append(name)
            checks += _compare(f"{name} changed", moved, together, exact if same_shape else loose)
            together.insert(_CHANGED, before)
        checks += [_compare_pack(model, pack, whole, backend, loose) for whole in packs]
    return PackingCertificate(
        attention=backend,
        precision=str(dtype).removeprefix("torch."),
        checks=tuple(checks),
        idle=tuple(idle),
    )


def certify_packs(model: OmniModel, packs: Iterable[Sequence[Example]], *, precision: str) -> PackingCertificate:
    """The certificate of a model that only scores: whole packs, each of whose samples is computed alone too."""
    with _computed(model, "auto", precision) as (backend, dtype):
        checks = tuple(_compare_pack(model, model.packed, whole, backend, TOLERANCES[dtype]) for whole in packs)
    return PackingCertificate(attention=backend, precision=str(dtype).removeprefix("torch."), checks=checks)


@contextmanager
def _computed(model: OmniModel, attention: str, precision: str) -> Iterator[tuple[str, torch.dtype]]:
    """In evaluation mode, in that precision; gives the backend and the dtype."""
    weight = next(model.parameters())
    cast = choose_precision(precision, weight.device) == "bfloat16"
    dtype = torch.bfloat16 if cast else weight.dtype
    backend = choose_packed_attention(attention, device=weight.device, dtype=dtype)
    with in_evaluation(model), torch.autocast(weight.device.type, torch.bfloat16, enabled=cast):
        yield backend, dtype


# What is changed of a sample.


def _changes(model: OmniModel, example: Example) -> Mapping[str, Example]:
    """The example with each change."""
    size = model.codec.vocab_size
    content, answer = example.content, example.answer
    changes = {
        "text": Example(content=[_of_other_text(s, size) for s in content], answer=[(i + 1) % size for i in answer]),
        "length": Example(content=[_of_other_length(s, model) for s in content], answer=[*answer, 0]),
    }
    if any(isinstance(segment, (Sound, Seen)) for segment in content):
        changes["features"] = replace(example, content=[_of_other_numbers(segment) for segment in content])
    return changes


def _of_other_text(segment: Segment, vocab_size: int) -> Segment:
    return segment if isinstance(segment, (Sound, Seen, Tokens)) else [(i + 1) % vocab_size for i in segment]


def _of_other_numbers(segment: Segment) -> Segment:
    if isinstance(segment, Sound):
        return Sound(_turned(segment.values))
    return replace(segment, views=_turned(segment.views)) if isinstance(segment, Seen) else segment


def _turned(values: Tensor) -> Tensor:
    """Of the same shape and about the same size: backwards and turned over, so that not one frame stays its own."""
    return 255 - values.flip(0) if values.dtype == torch.uint8 else 0.5 - values.flip(0)


def _of_other_length(segment: Segment, model: OmniModel) -> Segment:
    if isinstance(segment, Sound):
        return _of_other_frames(segment, model)
    if isinstance(segment, Seen) and len(segment.seconds) > 1:
        kept = len(segment.views) - num_views(segment.grid)
        return replace(segment, views=segment.views[:kept], seconds=segment.seconds[:-1])
    return segment if isinstance(segment, (Seen, Tokens)) else [*segment, 0]


def _of_other_frames(sound: Sound, model: OmniModel) -> Sound:
    """A frame less, but where that would leave no window: then one more."""
    step = model.audio_encoder.samples_per_frame if sound.is_waveform and model.audio_encoder is not None else 1
    values = sound.values
    if len(values) - step >= step * model.part("audio_projector", "sounds").projector.downsample_rate:
        return Sound(values[:-step])
    return Sound(torch.cat([values, F.pad(values[:0], (0, 0) * (values.dim() - 1) + (0, step), value=0.5)]))


# How far two samples differ.


@dataclass(frozen=True)
class _Trace:
    """What one sample of a pack is and gives; `reach`: the greatest gradient of its loss on another's embeddings."""

    positions: Int[Tensor, " length"]
    labels: Int[Tensor, " scored"]
    embeddings: Float[Tensor, "length hidden_size"]
    logits: Float[Tensor, "scored vocab_size"]
    loss: Float[Tensor, ""]
    gradients: tuple[Tensor, ...]
    reach: float


def _traces(answers: PackedAnswers, parameters: Sequence[Tensor]) -> list[_Trace]:
    """Take a pack apart, each sample's loss differentiated on its own."""
    (embeddings, position_ids, boundaries), loss = answers.packed, answers.loss
    lengths, counts = list(boundaries.lengths), loss.num_tokens.tolist()
    pieces = zip(
        position_ids[0].split(lengths),
        answers.labels.split(counts),
        embeddings[0].detach().split(lengths),
        answers.logits.detach().split(counts),
        loss.loss.detach(),
        strict=True,
    )
    wanted = [embeddings, *parameters] if embeddings.requires_grad else list(parameters)
    found = []
    for index, piece in enumerate(pieces):
        gradients = _gradients(loss.loss[index], wanted) if loss.loss.requires_grad else []
        reach = 0.0
        if gradients and embeddings.requires_grad:
            by_sample = list(gradients[0][0].split(lengths))
            gradients[0] = by_sample.pop(index)
            reach = max((float(other.abs().max()) for other in by_sample), default=0.0)
        found.append(_Trace(*piece, tuple(_drawn(gradient) for gradient in gradients), reach))
    return found


def _gradients(loss: Tensor, wanted: Sequence[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True, materialize_grads=True))


def _drawn(gradient: Tensor) -> Tensor:
    flat = gradient.detach().flatten()
    return flat[:: -(-len(flat) // _KEPT_GRADIENTS)].clone()


def _compare(where: str, found: Sequence[_Trace], expected: Sequence[_Trace], tolerance: float) -> list[Check]:
    """One check a thing, over all samples; positions and labels are whole numbers and equal or not."""
    pairs = list(zip(found, expected, strict=True))
    allowed = {"positions": 0.0, "labels": 0.0, **dict.fromkeys(("embeddings", "logits", "loss"), tolerance)}
    checks = [
        Check(f"{where}: {thing}", max(_difference(getattr(a, thing), getattr(b, thing)) for a, b in pairs), most)
        for thing, most in allowed.items()
    ]
    if all(a.gradients for a, _ in pairs):
        gradients = max(_difference(torch.cat(a.gradients), torch.cat(b.gradients)) for a, b in pairs)
        checks.append(Check(f"{where}: gradients", gradients, tolerance))
        checks.append(Check(f"{where}: gradients on other samples", max(a.reach for a, _ in pairs), 0.0))
    return checks


def _compare_mean(
    answers: PackedAnswers, alone: Sequence[_Trace], parameters: Sequence[Tensor], tolerance: float
) -> list[Check]:
    """The packed loss and its gradient against the mean of single ones, every scored token counting the same."""
    total = answers.loss.num_tokens.sum()
    mean = answers.loss.loss.sum() / total
    checks = [Check("mean: loss", _difference(mean, torch.stack([s.loss for s in alone]).sum() / total), tolerance)]
    if mean.requires_grad and parameters:
        found = torch.cat([_drawn(gradient) for gradient in _gradients(mean, parameters)])
        # The gradients on the embeddings, which stand before those on the parameters, are each sample's own.
        singles = [torch.cat(sample.gradients[-len(parameters) :]) for sample in alone]
        checks.append(Check("mean: gradients", _difference(found, torch.stack(singles).sum(0) / total), tolerance))
    return checks


@torch.no_grad()
def _compare_pack(
    model: OmniModel, pack: Callable[..., PackedAnswers], examples: Sequence[Example], backend: str, tolerance: float
) -> Check:
    """A whole pack against each of its samples alone in the model's own attention, without a pack.

    A sample whose loss is not finite alone is left to who reads the losses.
    """
    answers = pack(examples, attention=backend)
    together, lengths = answers.loss.loss, answers.packed.boundaries.lengths
    del answers  # so that a pack is not held beside what is computed alone
    alone = torch.cat([model([example]).loss for example in examples])
    where = f"pack of {sum(lengths)} tokens, {max(lengths)} the longest sample's"
    known = alone.isfinite()
    return Check(f"{where}: loss", _difference(together[known], alone[known]), tolerance)


def _difference(found: Tensor, expected: Tensor) -> float:
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
