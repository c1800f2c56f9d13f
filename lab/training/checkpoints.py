"""Checkpoints of a run: trained weights, optimiser state and the curve so far as safetensors; whole or not at all."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lab.errors import LabError
from lab.paths import whole


@dataclass
class TrainingRecord:
    """What a run gave: loss (nats a token) and learning rate of each step, seconds, and peak memory.

    All sittings of an interrupted run are in it, but for the memory, which is the last one's.
    """

    losses: list[float] = field(default_factory=list)
    learning_rates: list[float] = field(default_factory=list)
    seconds: float = 0.0
    peak_memory_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where an interrupted run is kept, and what stands there."""

    path: Path
    key: str
    """Names the run; a checkpoint of another run is refused."""
    parts: tuple[str, ...] = ()
    """Parts of the model whose weights are kept, trained or not; where there are none, what requires a gradient is."""
    earlier: Sequence[Mapping[str, Any]] = ()
    """What the stages that are done gave, for JSON."""

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer | None, record: TrainingRecord) -> None:
        """Write weights, persistent buffers, the optimiser's state, the generators' and the record, in one move.

        Raises:
            LabError: it cannot be written, as on a full disk; the previous checkpoint stays.
        """
        tensors = self._changed(model)
        for index, state in (optimizer.state_dict()["state"] if optimizer else {}).items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        tensors["generator.torch"] = torch.get_rng_state()
        if torch.cuda.is_initialized():
            tensors["generator.cuda"] = torch.cuda.get_rng_state()
        tensors["progress"] = torch.tensor([record.losses, record.learning_rates], dtype=torch.float64)
        metadata = {"seconds": repr(record.seconds), "key": self.key, "earlier": json.dumps(self.earlier)}
        write_tensors(self.path, tensors, metadata)

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer | None) -> TrainingRecord:
        """Restore what was saved and return what the run has gone through; nothing where nothing was saved.

        Raises:
            LabError: the file is damaged, belongs to another run, or does not fit the model.
        """
        if not self.path.exists():
            return TrainingRecord()
        metadata, tensors = self._read()
        restored = self._changed(model)
        found = {name for name in tensors if name.startswith(("model.", "buffer."))}
        if (
            restored.keys() != found
            or "progress" not in tensors
            or any(restored[name].shape != tensors[name].shape for name in restored)
        ):
            raise LabError(f"checkpoint {self.path} does not fit the model: delete it to start this run again")
        with torch.no_grad():
            for name, tensor in restored.items():
                tensor.copy_(tensors[name])
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, entry = name.split(".", 2)
                state.setdefault(int(index), {})[entry] = value
        if optimizer:
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        torch.set_rng_state(tensors["generator.torch"])
        if "generator.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["generator.cuda"])
        losses, learning_rates = tensors["progress"].tolist()
        return TrainingRecord(losses, learning_rates, float(metadata["seconds"]))

    def stages_done(self) -> list[dict[str, Any]] | None:
        """What stands there as `earlier`; None where nothing was saved, a LabError where it is another run's."""
        if not self.path.exists():
            return None
        found: list[dict[str, Any]] = json.loads(self._read()[0]["earlier"])
        return found

    def _read(self) -> tuple[dict[str, str], dict[str, Tensor]]:
        metadata, tensors = read_tensors(self.path)
        if metadata.get("key") != self.key:
            raise LabError(
                f"checkpoint {self.path} belongs to run {metadata.get('key')!r}, not to {self.key!r}; delete it to "
                "start again"
            )
        return metadata, tensors

    def _changed(self, model: nn.Module) -> dict[str, Tensor]:
        """Weights, and persistent buffers such as batch norm's statistics, which training changes too."""
        weights = dict(trained_parameters(model))
        if self.parts:
            weights = {n: p for n, p in model.named_parameters() if n.partition(".")[0] in self.parts}
        kept = model.state_dict()
        buffers = {f"buffer.{name}": buffer for name, buffer in model.named_buffers() if name in kept}
        return {**{f"model.{name}": parameter for name, parameter in weights.items()}, **buffers}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file in place of the one that is there, whole or, with a LabError, not at all."""
    try:
        with whole(path) as unfinished:
            plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
            save_file(plain, unfinished, metadata=dict(metadata))
    except (SafetensorError, OSError) as error:
        raise LabError(f"{path} cannot be written ({error}); the previous one, if any, is intact") from error


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file; a LabError where it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            return file.metadata() or {}, tensors
    except (SafetensorError, OSError) as error:
        raise LabError(
            f"{path} cannot be read ({error}); delete it, or the folder of a model, to begin anew"
        ) from error


def trained_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters that training changes, by name."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
