"""Checkpoints of a run: trained weights, optimiser state and the curve so far as safetensors; whole or not at all."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from jaxtyping import Float64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lab.errors import LabError

NO_BUFFERS: Mapping[str, Tensor] = MappingProxyType({})


class Progress(NamedTuple):
    """What a run has gone through in all its sittings: loss and learning rate of each step done, and seconds."""

    losses: list[float]
    learning_rates: list[float]
    seconds: float


def save_checkpoint(
    path: Path,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    key: str,
    buffers: Mapping[str, Tensor] = NO_BUFFERS,
) -> None:
    """Write what is trained, the optimiser's state, the generators' and `progress` to `path`, replacing it in one move.

    `key` names the run; a checkpoint of another run is refused when it is loaded. `buffers`: what else training
    changes, such as batch norm's statistics.

    Raises:
        LabError: it cannot be written, as on a full disk; the previous checkpoint stays.
    """
    tensors: dict[str, Tensor] = {
        f"model.{name}": parameter.detach().contiguous() for name, parameter in trained_parameters(model)
    }
    tensors |= {f"buffer.{name}": buffer.clone().contiguous() for name, buffer in buffers.items()}
    scalars: dict[str, float] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value.contiguous()
            else:
                scalars[f"optimizer.{index}.{name}"] = value
    tensors["generator.torch"] = torch.get_rng_state()
    if torch.cuda.is_initialized():
        tensors["generator.cuda"] = torch.cuda.get_rng_state()
    tensors["progress"] = _curves(progress)
    metadata = {"seconds": repr(progress.seconds), "key": key, "scalars": json.dumps(scalars)}
    try:
        write_tensors(path, tensors, metadata)
    except (SafetensorError, OSError) as error:
        raise LabError(f"checkpoint {path} cannot be written ({error}); the previous one, if any, is intact") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whole or not at all, in place of the one that is there.

    Raises:
        SafetensorError, OSError: it cannot be written; a full disk comes as the first, without errno.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as scratch:
        unfinished = Path(scratch, path.name)
        save_file(dict(tensors), unfinished, metadata=dict(metadata))
        os.replace(unfinished, path)


def _curves(progress: Progress) -> Float64[Tensor, "curves steps"]:
    return torch.tensor([progress.losses, progress.learning_rates], dtype=torch.float64)


def load_checkpoint(
    path: Path,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    key: str,
    buffers: Mapping[str, Tensor] = NO_BUFFERS,
) -> Progress:
    """Restore a checkpoint and return what the run has gone through; its steps done are as many as its losses.

    Raises:
        LabError: the file is damaged, belongs to another run, or does not fit the model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise LabError(f"checkpoint {path} cannot be read ({error}); delete it to start this run again") from error
    if metadata.get("key") != key:
        raise LabError(
            f"checkpoint {path} belongs to run {metadata.get('key')!r}, not to {key!r}; delete it to start again"
        )
    restored: dict[str, Tensor] = {f"model.{name}": parameter for name, parameter in trained_parameters(model)}
    restored |= {f"buffer.{name}": buffer for name, buffer in buffers.items()}
    found = {name for name in tensors if name.startswith(("model.", "buffer."))}
    if (
        restored.keys() != found
        or "progress" not in tensors
        or any(restored[name].shape != tensors[name].shape for name in restored)
    ):
        raise LabError(f"checkpoint {path} does not fit the model: delete it to start this run again")
    with torch.no_grad():
        for name, tensor in restored.items():
            tensor.copy_(tensors[name])
    state: dict[int, dict[str, Tensor | float]] = {}
    for name, value in [*tensors.items(), *json.loads(metadata["scalars"]).items()]:
        if name.startswith("optimizer."):
            _, index, entry = name.split(".", 2)
            state.setdefault(int(index), {})[entry] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(tensors["generator.torch"])
    if "generator.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["generator.cuda"])
    losses, learning_rates = tensors["progress"].tolist()
    return Progress(losses, learning_rates, float(metadata["seconds"]))


def trained_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters that training changes, by name."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
