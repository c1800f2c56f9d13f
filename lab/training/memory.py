"""What a step of training or a pass of scoring takes, traced on tensors without memory: bytes by part, and operations.

The model itself runs, on fake tensors, so that a 7B model is traced in seconds. Every storage that comes and goes is
counted as a real one would be. The fake device is a CPU, whose attention keeps what a GPU's fused kernels keep (no
table of scores) and whose autocast casts what a GPU's does. Torch's own MemTracker, a private package, does not tell
what each part of a model leaves behind its forward pass.

A step is one in the middle of a training: gradients of the step before and moments are there when the forward pass
begins, as in `lab.training.loop`. Not counted: the device's own context, fragmentation, workspaces, and the features as
they are read.
"""

import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from lab.errors import choose
from lab.parts.omni_model import Example, OmniModel
from lab.training.loop import layers_computed_anew
from lab.training.stages import PARTS


class Precision(NamedTuple):
    """Types of kept weights and of matrix products; weights below float32 have a copy in float32 that is trained."""

    weights: torch.dtype
    products: torch.dtype


PRECISIONS: dict[str, Precision] = {
    # As the loop names them, which always keeps weights in float32.
    "float32": Precision(torch.float32, torch.float32),
    "bfloat16": Precision(torch.float32, torch.bfloat16),
    # What large models are usually trained with, and the loop has not: 16 bytes a trained parameter, 2 a frozen one.
    "bfloat16_weights": Precision(torch.bfloat16, torch.bfloat16),
}


@dataclass(frozen=True, kw_only=True)
class PartMemory:
    """One part: its numbers of parameters, and its bytes; those outside the step take none.

    `activations` are what is alive of its forward pass when that of the whole model is done.
    """

    name: str
    parameters: int
    trained_parameters: int = 0
    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a step takes."""

    parts: tuple[PartMemory, ...]
    batch_size: int
    tokens: int
    """Positions of the longest sample, its end included."""
    total: int
    """Bytes at the worst moment."""
    flops: int
    """Operations of the matrix products, two a multiply-add, in all passes."""

    @property
    def kept(self) -> int:
        """Bytes of weights, gradients and optimiser, whatever the batch."""
        return sum(part.weights + part.gradients + part.optimizer for part in self.parts)

    @property
    def passing(self) -> int:
        """Bytes at the worst moment beyond what is kept and the activations; below 0 where no such moment has all."""
        return self.total - self.kept - sum(part.activations for part in self.parts)


def trace(
    model: OmniModel,
    batch: Callable[[OmniModel], Sequence[Example]],
    *,
    trained: Collection[str],
    precision: Precision,
    packed: bool = False,
    checkpointing: bool = False,
    outside: Mapping[str, nn.Module] | None = None,
) -> Memory:
    """Trace one step on a batch; with nothing to train, a pass forward, as in scoring.

    Args:
        model: on the meta device, used up by this; a parameter of it that never trains requires no gradient.
        batch: makes the examples of the batch, with sounds and pictures that are tensors without memory.
        trained: names of the model's parts, or a LabError.
        packed: as one pack, not padded side by side.
        checkpointing: the layers of transformers' models keep their inputs alone and are computed again.
        outside: parts whose features are computed once, by name: they have parameters, and no place in the step.
    """
    tracer = _Tracer()
    for name in trained:
        choose(model.parts(), name, "part")
    # A norm without a fused kernel on this machine is nothing to warn of: nothing is computed.
    with warnings.catch_warnings(action="ignore"), FakeTensorMode(allow_non_fake_inputs=True):
        _on_fake_device(model, precision, trained)
        examples = batch(model)
        with tracer, layers_computed_anew(model, checkpointing):
            optimizers = [_keep(tracer, name, part, precision) for name, part in model.parts().items()]
            for name, part in model.parts().items():
                if name != "language_model":
                    part.register_forward_pre_hook(partial(tracer.enter, name))
                    part.register_forward_hook(partial(tracer.enter, "language_model"))
            tracer.enter("language_model")
            autocast = torch.autocast("cpu", precision.products, enabled=precision.products != torch.float32)
            with torch.set_grad_enabled(bool(trained)), autocast:
                answer = model.packed(examples).loss if packed else model(examples)
            loss = answer.loss.sum() / answer.num_tokens.sum()
            alive = tracer.alive.copy()
            if trained:
                model.zero_grad(set_to_none=True)
                loss.backward()
            del optimizers
        parts = {name: _part(name, part, alive) for name, part in model.parts().items()}
        tokens = max(map(model.num_tokens, examples))
    for name, part in (outside or {}).items():
        parts[name] = PartMemory(name=name, parameters=_count(part))
    return Memory(
        parts=tuple(parts[name] for name in PARTS if name in parts),
        batch_size=len(examples),
        tokens=tokens,
        total=tracer.most,
        flops=tracer.flops,
    )


class _Tracer(TorchDispatchMode):
    """Adds up what lives, by part and kind, and the operations.

    Whole numbers that are given as numbers (lengths, token ids) are computed for real, since the course of a pass
    depends on them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.owner = ("", "")
        self.alive: Counter[tuple[str, str]] = Counter()
        self.now = self.most = self.flops = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def enter(self, part: str, *_: object) -> None:
        """From here on what is made are activations of this part; also as a hook."""
        self.owner = (part, "activations")

    def note(self, tensor: Tensor) -> None:
        """Count a tensor's storage until it is freed."""
        storage = tensor.untyped_storage()
        if storage not in self._known:
            self._known.add(storage)
            self._add(self.owner, storage.nbytes())
            weakref.finalize(storage, self._add, self.owner, -storage.nbytes())

    def _add(self, owner: tuple[str, str], size: int) -> None:
        self.alive[owner] += size
        self.now += size
        self.most = max(self.most, self.now)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:
            return args[0].fake_device  # asked twice an operation, by autocast
        if FakeTensor not in types and any(isinstance(given, Tensor) for given in tree_leaves((args, kwargs))):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if func is torch.ops.aten.nonzero.default:
            # Asked of the windows of sounds alone, of which in the largest batch each has frames of its own.
            return torch.empty(args[0].numel(), args[0].dim(), dtype=torch.int64)
        made = func(*args, **kwargs)
        if count := flop_registry.get(func.overloadpacket):
            self.flops += count(*args, **kwargs, out_val=made)
        for tensor in tree_leaves(made):
            if isinstance(tensor, FakeTensor):
                self.note(tensor)
        return made


def _on_fake_device(model: OmniModel, precision: Precision, trained: Collection[str]) -> None:
    model.to_empty(device="cpu")
    model.language_model.tie_weights()  # which to_empty unties
    for name, part in model.parts().items():
        for parameter in part.parameters():
            parameter.data = parameter.data.to(precision.weights)
            parameter.requires_grad_(parameter.requires_grad and name in trained)
    model.train()


def _keep(tracer: _Tracer, name: str, part: nn.Module, precision: Precision) -> torch.optim.Optimizer | None:
    """Make what of a part is there between steps; returned is what has to be held."""
    tracer.owner = (name, "weights")
    for tensor in (*part.parameters(), *part.buffers()):
        tracer.note(tensor)
    learning = [parameter for parameter in part.parameters() if parameter.requires_grad]
    if not learning:
        return None
    tracer.owner = (name, "optimizer")
    stepped = learning
    if precision.weights != torch.float32:
        stepped = [nn.Parameter(torch.empty_like(parameter, dtype=torch.float32)) for parameter in learning]
    for parameter in stepped:
        parameter.grad = parameter.new_empty(1).expand_as(parameter)
    optimizer = torch.optim.AdamW(stepped, fused=True)
    optimizer.step()
    tracer.owner = (name, "gradients")
    for parameter in learning:
        parameter.grad = torch.empty_like(parameter)
    return optimizer


def _part(name: str, part: nn.Module, alive: Mapping[tuple[str, str], int]) -> PartMemory:
    sizes = {kind: alive[name, kind] for kind in ("weights", "gradients", "optimizer", "activations")}
    trained = sum(parameter.numel() for parameter in part.parameters() if parameter.requires_grad)
    return PartMemory(name=name, parameters=_count(part), trained_parameters=trained, **sizes)


def _count(part: nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())
