"""What a part saves for the backward pass, in bytes, by letting tensors without memory run through it.

So a new projector needs no formula. Under autocast (`bfloat16`) a copy of every weight that a product takes is saved
too, once, however large the batch.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from lab.parts.audio_projectors import AudioProjector
from lab.training.saved_bytes import Precision, Saved, SpeechSample


def projector_saved(
    build: Callable[[], AudioProjector], sample: SpeechSample, precision: Precision, *, gradient_flows_on: bool
) -> Saved:
    """Of an audio projector; `gradient_flows_on`: to an encoder that is trained."""
    windows, rate = 0, 0

    def run() -> tuple[object, Iterable[Tensor]]:
        nonlocal windows, rate
        projector = build()
        windows, rate = sample.batch_size * projector.output_length(sample.frames), projector.downsample_rate
        frames = torch.empty(windows, rate, projector.hidden_size, dtype=precision.dtype)
        frames.requires_grad_(gradient_flows_on)
        return projector.project(frames, torch.full((windows,), rate)), projector.parameters()

    saved = _traced(run, precision.dtype, cast=precision.autocast)
    is_padding = windows * rate
    return Saved(rest=saved + is_padding)


def batch_saved(
    part: nn.Module,
    inputs: Callable[[], tuple[Any, ...]],
    batch_size: int,
    precision: Precision,
    *,
    trained: bool = True,
) -> Saved:
    """Of any part that treats the samples of a batch alike, from what one and two of them save.

    Args:
        part: on the meta device.
        inputs: makes those of one sample, in a tuple that `part` takes as a list of one, or of more, for more samples.
        batch_size: samples.
        precision: of weights and products.
        trained: whether its parameters are.
    """
    one, two = (_part_saves(part, inputs, count, precision, trained) for count in (1, 2))
    # One sample's share grows with the batch; copies of weights stay.
    return Saved(rest=(two - one) * batch_size, rest_copies=2 * one - two)


def _part_saves(
    part: nn.Module, inputs: Callable[[], tuple[Any, ...]], count: int, precision: Precision, trained: bool
) -> int:
    def run() -> tuple[object, Iterable[Tensor]]:
        learning = {name for name, parameter in part.named_parameters() if trained and parameter.requires_grad}
        own = {
            name: torch.empty(tensor.shape, dtype=tensor.dtype, requires_grad=name in learning)
            for name, tensor in (*part.named_parameters(), *part.named_buffers())
        }
        samples = [inputs() for _ in range(count)]
        return functional_call(part, own, tuple(map(_joined, zip(*samples, strict=True)))), own.values()

    # Weights in bfloat16 are multiplied with what the features' standardisation leaves in float32.
    return _traced(run, torch.float32, cast=precision.compute < 4)


def _joined(given: tuple[Any, ...]) -> Any:
    """Tensors along their first axis, anything else as a list."""
    return torch.cat(given) if isinstance(given[0], Tensor) else list(given)


def _traced(run: Callable[[], tuple[object, Iterable[Tensor]]], dtype: torch.dtype, *, cast: bool) -> int:
    """Bytes of what `run` saves; it returns its result and the tensors that are there anyway."""
    seen: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        # Held, so that no later storage takes the place of this one in the count.
        seen.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with (
        # Tensors made from arrays of numpy have memory, as the order of tokens has.
        FakeTensorMode(allow_non_fake_inputs=True),
        _default_dtype(dtype),
        # A norm without a fused kernel on this machine is nothing to warn of: nothing is computed.
        warnings.catch_warnings(action="ignore"),
        torch.autocast("cpu", torch.bfloat16) if cast else nullcontext(),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        # The result is held until all is counted: the graph behind it must not be freed before.
        result, owned = run()
        own = {tensor.untyped_storage()._cdata for tensor in owned}
        saved = sum(tensor.untyped_storage().nbytes() for place, tensor in seen.items() if place not in own)
        del result
    return saved


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Modules built within have it; tensors without memory cannot change theirs afterwards."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
