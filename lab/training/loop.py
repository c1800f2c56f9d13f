"""The one training loop: AdamW, clipping, checkpoints, and a stop at the first loss that is not finite.

Section 3 of the paper. It runs on Accelerate, and a DataLoader reads its batches, which follow from their numbers: who
reads them, and when, changes nothing.
"""

import math
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lab.errors import LabError, choose
from lab.parts.joined_sequences import AnswerLoss
from lab.training.checkpoints import Checkpoint, TrainingRecord, trained_parameters
from lab.training.parameters import TrainedParameters

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")
PRECISIONS = ("auto", "float32", "bfloat16")
# Processes that read for one GPU, where nobody says how many.
WORKERS_OF_A_GPU = 4


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a run trains, whatever trains in it and for how long.

    `warmup_steps` are those of each stage. `checkpoint_every` is in steps, 0 for none. `precision` is "float32",
    "bfloat16" or "auto": bfloat16 where the machine has it in hardware. `fused` is AdamW's: one pass over memory
    instead of many, which counts at 28M parameters; its rounding is another. `weight_decay` is of all that trains,
    norms, biases and embeddings too, as AdamW has it; common practice exempts these. Over a whole run it takes at most
    steps * learning rate * decay off a weight: 1.4% in any cell of the `cpu` rungs, 10% in any of `paper`. A step sees
    `accumulate` batches, one after the other, as if they were one large batch. `gradient_checkpointing` computes the
    layers of transformers' models anew in the backward pass instead of keeping what is inside them: less memory, a
    third more time. `workers` are processes that read batches ahead; where None, there are none on a CPU and
    `WORKERS_OF_A_GPU` on a GPU.
    """

    warmup_steps: int = 0
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    betas: tuple[float, float] = (0.9, 0.98)
    checkpoint_every: int = 0
    precision: str = "auto"
    fused: bool = True
    accumulate: int = 1
    gradient_checkpointing: bool = False
    workers: int | None = None

    @classmethod
    def of(cls, parameters: TrainedParameters) -> "TrainingOptions":
        """Those of a cell."""
        return cls(
            warmup_steps=parameters.warmup_steps,
            weight_decay=parameters.weight_decay,
            checkpoint_every=parameters.checkpoint_every,
            precision=parameters.precision,
        )

    def __post_init__(self) -> None:
        choose(dict.fromkeys(PRECISIONS), self.precision, "precision")
        ranges = {
            "warmup_steps": (self.warmup_steps >= 0, "at least 0"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "at least 0"),
            "max_grad_norm": (self.max_grad_norm > 0, "a positive number"),
            "betas": (all(0 <= beta < 1 for beta in self.betas), "two numbers from 0 to below 1"),
            "checkpoint_every": (self.checkpoint_every >= 0, "0 (never) or a number of steps"),
            "accumulate": (self.accumulate >= 1, "at least 1 batch a step"),
            "workers": (self.workers is None or self.workers >= 0, "0 (none), a number of processes, or None"),
        }
        for name, (fits, expected) in ranges.items():
            if not fits:
                raise LabError(f"{name} is {getattr(self, name)}; expected {expected}")

    def num_workers(self, device: torch.device) -> int:
        """The processes that read batches for a model on that device."""
        if self.workers is not None:
            return self.workers
        return WORKERS_OF_A_GPU if device.type == "cuda" else 0


def train(
    model: nn.Module,
    loss_of: Callable[[Any], AnswerLoss],
    options: TrainingOptions,
    *,
    steps: int,
    learning_rates: Callable[[int], Sequence[float]],
    batches: Callable[[int], Any] | None = None,
    groups: Sequence[dict[str, Any]] | None = None,
    clipped: Sequence[nn.Parameter] | None = None,
    checkpoint: Checkpoint | None = None,
    describe: str = "",
    on_step: Callable[[int, float], None] | None = None,
) -> TrainingRecord:
    """Train what requires a gradient in `model`; `loss_of(batch)` gives the losses of a batch.

    The loss is the mean over all answer tokens of a step's batches. Where `checkpoint` was saved, training goes on
    after its step, with the same batches that it would have seen. It is not deleted.

    Args:
        learning_rates: each group's at a step, of which the highest is recorded.
        batches: a batch by its number, the same in whatever order and process it is asked for; step `s` sees number
            `s * accumulate` and those after it. Where None, the numbers themselves.
        groups: of the optimiser, which hold all that trains; one where None.
        clipped: the parameters whose gradients are clipped by their common norm; all where None.
        checkpoint: where an interrupted run is kept.
        describe: names the run in messages.

    Raises:
        LabError: a loss or gradient that is not finite (its step, `describe` and the learning rate are named), nothing
            to train, a checkpoint that cannot be read or written, or more processes than one.
    """
    if steps < 1:
        raise LabError(f"steps is {steps}; expected at least 1")
    if groups is None:
        groups = [{"params": [parameter for _, parameter in trained_parameters(model)]}]
    parameters = [parameter for group in groups for parameter in group["params"]]
    if not parameters:
        raise LabError(f"nothing to train in {describe or 'the model'}: every part is frozen")
    device = parameters[0].device
    accelerator = open_accelerator(device, options.precision)
    optimizer = accelerator.prepare_optimizer(
        torch.optim.AdamW(groups, betas=options.betas, weight_decay=options.weight_decay, fused=options.fused)
    )
    kept = checkpoint.load(model, optimizer) if checkpoint else TrainingRecord()
    losses, rates, first = [*kept.losses], [*kept.learning_rates], len(kept.losses)
    numbers = range(first * options.accumulate, steps * options.accumulate)
    read = iter(numbers) if batches is None else _read(batches, numbers, options, device)
    model.train()
    started = time.perf_counter() - kept.seconds
    with layers_computed_anew(model, options.gradient_checkpointing):
        for step in range(first, steps):
            own = learning_rates(step)
            for group, own_rate in zip(optimizer.param_groups, own, strict=True):
                group["lr"] = own_rate
            rate = max(own)
            where = f"at step {step} of {describe or 'this run'}, learning rate {rate:.3g}"
            value = _backward(accelerator, optimizer, loss_of, islice(read, options.accumulate), options, where)
            norm = float(accelerator.clip_grad_norm_(parameters if clipped is None else clipped, options.max_grad_norm))
            # Clipping by such a norm would spoil every weight, and the next checkpoint with them.
            if not math.isfinite(norm):
                raise LabError(f"the gradient's norm is {norm} {where}")
            optimizer.step()
            losses.append(value)
            rates.append(rate)
            if on_step:
                on_step(step, value)
            done = step + 1
            if checkpoint and options.checkpoint_every and done % options.checkpoint_every == 0 and done < steps:
                checkpoint.save(model, optimizer, TrainingRecord(losses, rates, time.perf_counter() - started))
    model.eval()
    return TrainingRecord(losses, rates, time.perf_counter() - started, peak_memory_bytes(device))


def open_accelerator(device: torch.device, precision: str) -> "Accelerator":
    """What places, casts, differentiates and clips, on that device and in that precision; one process is expected."""
    # Not before something is trained: with what it looks for, it takes seconds to import.
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import GradientAccumulationPlugin

    # Accelerate takes device and precision for those of the whole process, which may train more than once.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if choose_precision(precision, device) == "bfloat16" else "no",
        # The loop weighs the batches of a step by their tokens; Accelerate would weigh them all alike.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
    )
    if accelerator.num_processes > 1:
        raise LabError(f"training was launched as {accelerator.num_processes} processes; expected one")
    return accelerator


def _backward(
    accelerator: "Accelerator",
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[Any], AnswerLoss],
    batches: Iterator[Any],
    options: TrainingOptions,
    where: str,
) -> float:
    """Put the gradient of the mean loss over all tokens of the batches into the parameters, and return that mean."""
    alone = options.accumulate == 1
    total, num_tokens = 0.0, 0.0
    for number, batch in enumerate(batches):
        with accelerator.autocast():
            answer = loss_of(batch)
        loss, tokens = answer.loss.sum(), answer.num_tokens.sum()
        # Of one batch it is the mean that is differentiated, as results were measured; of several the sum, because the
        # tokens of all are known only after the last.
        loss = loss / tokens if alone else loss
        total, num_tokens = total + float(loss.detach()), num_tokens + float(tokens)
        if not math.isfinite(total):
            raise LabError(f"the loss is {total} {where}")
        if not loss.requires_grad:
            raise LabError(
                f"nothing that trains takes part in the loss {where}; mix data that pass through what trains"
            )
        if number == 0:
            optimizer.zero_grad(set_to_none=True)
        accelerator.backward(loss)
    if alone:
        return total
    for parameter in (p for group in optimizer.param_groups for p in group["params"] if p.grad is not None):
        parameter.grad /= num_tokens
    return total / num_tokens


class _Reading:
    """What the DataLoader asks for a batch. An error of a worker is handed over, for it would come with a traceback."""

    def __init__(self, batches: Callable[[int], Any]) -> None:
        self.batches = batches

    def __getitem__(self, number: int) -> Any:
        try:
            return self.batches(number)
        except LabError as error:
            return error


def _read(
    batches: Callable[[int], Any], numbers: range, options: TrainingOptions, device: torch.device
) -> Iterator[Any]:
    """The batches of these numbers, on the device."""
    from accelerate.utils import send_to_device

    loader: DataLoader[Any] = DataLoader(
        _Reading(batches),  # type: ignore[arg-type]
        batch_size=None,
        sampler=numbers,
        collate_fn=_as_it_is,
        num_workers=options.num_workers(device),
        pin_memory=device.type == "cuda",
        # Its own: from the global one, whose next numbers are dropout's, the workers' seeds would be drawn.
        generator=torch.Generator(),
    )
    for batch in loader:
        if isinstance(batch, LabError):
            raise batch
        yield send_to_device(batch, device, non_blocking=True)


def _as_it_is(batch: T) -> T:
    return batch


@contextmanager
def layers_computed_anew(model: nn.Module, asked: bool) -> Iterator[None]:
    """Inside, what transformers' layers compute is not kept for the backward pass but computed again in it."""
    from transformers import PreTrainedModel
    from transformers.modeling_layers import GradientCheckpointingLayer

    models = [module for module in model.modules() if asked and isinstance(module, PreTrainedModel)]
    frozen = [
        layer
        for own in models
        for layer in own.modules()
        if isinstance(layer, GradientCheckpointingLayer) and not (layer.training or _drops(layer))
    ]
    for own in models:
        own.activation_checkpointing_enable({"use_reentrant": False})
    for layer in frozen:
        # In evaluation mode it would keep everything. What is in it stays in that mode.
        layer.training = True
    try:
        yield
    finally:
        for own in models:
            own.activation_checkpointing_disable()
        for layer in frozen:
            layer.training = False


def _drops(layer: nn.Module) -> bool:
    """Whether the layer's own function, not something in it, drops at random in training."""
    return any(isinstance(share, float) and share > 0 for share in vars(layer).values())


def mean_loss(loss: Float[Tensor, ""]) -> AnswerLoss:
    """A batch whose loss is a mean already, as one answer of one token."""
    return AnswerLoss(loss.unsqueeze(0), torch.ones(1, dtype=torch.long, device=loss.device))


def drawn_in_order(batches: Iterator[T]) -> Callable[[int], T]:
    """Batches that one generator draws one after another, by their step, each asked for once.

    A run that goes on after an interruption draws the batches before its step again, which takes no training.
    """
    numbered = enumerate(batches)
    return lambda step: next(batch for number, batch in numbered if number == step)


def tell_recent_loss(
    progress: Callable[[int, int, float], None] | None, steps: int, *, last: int, every: int
) -> Callable[[int, float], None]:
    """What `train` is to call at each step: it tells steps done, steps in all and the mean of the last losses."""
    recent: deque[float] = deque(maxlen=last)

    def tell(step: int, loss: float) -> None:
        recent.append(loss)
        if progress and ((step + 1) % every == 0 or step + 1 == steps):
            progress(step + 1, steps, sum(recent) / len(recent))

    return tell


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory so far: of the GPU where the model is on one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 run in hardware; where they do not, they are slower than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return bool(torch.backends.mkldnn.is_available() and getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())
    return False


def choose_precision(name: str, device: torch.device) -> str:
    """What `name` comes to on that device: `auto` is bfloat16 where that is fast, else float32."""
    if name != "auto":
        return name
    return "bfloat16" if has_fast_bfloat16(device) else "float32"


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` is a GPU where there is one. A LabError where there is no such device."""
    choose(dict.fromkeys(("auto", "cpu", "cuda")), name, "device")
    if name == "cuda" and not torch.cuda.is_available():
        raise LabError("device is 'cuda', but torch finds no GPU; choose one of: auto, cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
