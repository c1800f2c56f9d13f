"""Weights that a stage leaves behind, and where they come from: a chain of hashes of stages and weights (section 3).

A link is a stage's declaration, the weights of every part behind it, and the links that it started from; its hash is
over all of these, so that an ancestor cannot be exchanged unnoticed. The chain is kept in the weights' own file. A file
holds the parts that the stage or one of its ancestors trained; what is still as it was pretrained is known by its hash.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from lab.errors import LabError
from lab.training.checkpoints import read_tensors, write_tensors
from lab.training.stages import Stage


@dataclass(frozen=True, kw_only=True)
class Ancestor:
    """One link: a stage that was trained, and what came out of it."""

    stage: str
    declaration: Mapping[str, Any]
    weights: Mapping[str, str]
    """SHA-256 of each part's weights and buffers after the stage, the frozen parts' too."""
    trained: tuple[str, ...]
    """Parts that this stage or an ancestor trained."""
    parents: tuple[str, ...]
    """The links that it started from, by their `sha256`."""

    @property
    def sha256(self) -> str:
        """Of all of the link, and so of all links behind it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


Ancestry = tuple[Ancestor, ...]
"""Oldest first."""


def as_json(ancestry: Ancestry) -> list[dict[str, Any]]:
    """The chain for a JSON file, each link with its hash."""
    return [{**asdict(link), "sha256": link.sha256} for link in ancestry]


def from_json(entries: Sequence[Mapping[str, Any]], where: str) -> Ancestry:
    """What `as_json` gave.

    Raises:
        LabError: its hashes do not fit; `where` names its file.
    """
    chain: list[Ancestor] = []
    for entry in entries:
        given: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in entry.items()}
        told = given.pop("sha256")
        link = Ancestor(**given)
        if link.sha256 != told or not set(link.parents) <= {ancestor.sha256 for ancestor in chain}:
            raise LabError(
                f"the ancestry in {where} does not fit itself at stage {link.stage!r}; train that stage anew"
            )
        chain.append(link)
    return tuple(chain)


def declaration(stage: Stage) -> dict[str, Any]:
    """What of a stage decides its weights, as JSON has it."""
    facts = {name: value for name, value in vars(stage).items() if name not in ("name", "paper")}
    if not stage.starts_as:
        # So that stages without it have the hashes that they had when there was no such thing.
        del facts["starts_as"]
    plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in facts.items()}
    described: dict[str, Any] = json.loads(json.dumps(plain))
    return described


def with_stage(ancestry: Ancestry, stage: Stage, model_parts: Mapping[str, nn.Module]) -> Ancestry:
    """The ancestry of what a stage made of the parts, the stage as its last link.

    Raises:
        LabError: a stage that it starts from is not in `ancestry`.
    """
    parents = [_youngest(ancestry, name, stage) for name in stage.starts_from or ()]
    trained = {part for parent in parents for part in parent.trained} | set(stage.changed)
    link = Ancestor(
        stage=stage.name,
        declaration=declaration(stage),
        weights={part: _sha256(module.state_dict()) for part, module in model_parts.items()},
        trained=tuple(part for part in model_parts if part in trained),
        parents=tuple(parent.sha256 for parent in parents),
    )
    return (*ancestry, link)


def save_stage(path: Path, model_parts: Mapping[str, nn.Module], ancestry: Ancestry) -> None:
    """Write what the last stage of an ancestry made of the parts.

    Raises:
        LabError: the file cannot be written.
    """
    tensors = {
        # Cloned: tied weights share their memory, which safetensors refuses.
        f"{part}.{name}": tensor.detach().clone().contiguous()
        for part in ancestry[-1].trained
        for name, tensor in model_parts[part].state_dict().items()
    }
    try:
        write_tensors(path, tensors, {"ancestry": json.dumps(as_json(ancestry))})
    except (SafetensorError, OSError) as error:
        raise LabError(f"weights of stage {ancestry[-1].stage!r} cannot be written to {path} ({error})") from error


def read_ancestry(path: Path) -> Ancestry:
    """The chain behind a file of weights.

    Raises:
        LabError: it cannot be read, holds no ancestry, or one whose hashes do not fit.
    """
    return _open(path)[0]


def load_stage(
    stage: Stage, model_parts: Mapping[str, nn.Module], files: Mapping[str, Path], stages: Mapping[str, Stage]
) -> Ancestry:
    """Put the weights of the stages that `stage` starts from into the parts, and return where they come from.

    The parts come as they were pretrained. Every file is checked before any part is changed; a part that several files
    hold must be the same in all, so that branches which trained different parts can be joined.

    Args:
        stage: what is to be trained next.
        model_parts: the model's parts by name.
        files: the file of each stage that it starts from.
        stages: the stages as they are declared today.

    Raises:
        LabError: `stage` starts from others than those of `files`, a file holds another stage's weights, one of its
            ancestors was declared otherwise than today, a part that it left frozen is another one here, its weights are
            not those that were hashed or do not fit, or two files hold different weights of one part.
    """
    if stage.starts_from is None:
        raise LabError(
            f"what stage {stage.name!r} starts from is not found in the paper; give it with dataclasses.replace"
        )
    if set(files) != set(stage.starts_from):
        raise LabError(f"stage {stage.name!r} starts from {_list(stage.starts_from)}; got files of {_list(files)}")
    chosen: dict[str, tuple[str, dict[str, Tensor]]] = {}
    chain: dict[str, Ancestor] = {}
    untouched: dict[str, str] = {}
    for name in stage.starts_from:
        ancestry, tensors = _open(files[name])
        youngest = ancestry[-1]
        if youngest.stage != name:
            raise LabError(
                f"stage {stage.name!r} starts from {name!r}, but {files[name]} holds the weights of {youngest.stage!r}"
            )
        _check_declarations(ancestry, stages, files[name])
        for part, module in model_parts.items():
            if part in youngest.trained:
                weights = _checked_weights(tensors, part, module, files[name])
                known = chosen.setdefault(part, (name, weights))
                if known[0] != name and not _equal(known[1], weights):
                    raise LabError(f"stages {known[0]!r} and {name!r} trained {part!r} to different weights; take one")
            else:
                untouched.setdefault(part, _sha256(module.state_dict()))
                if untouched[part] != youngest.weights.get(part):
                    raise LabError(f"{files[name]} was trained with another {part!r} than this model's")
        chain |= {entry.sha256: entry for entry in ancestry}
        _check_hashes(youngest, tensors, files[name])
    for part, (_, weights) in chosen.items():
        model_parts[part].load_state_dict(weights)
    return tuple(chain.values())


def _open(path: Path) -> tuple[Ancestry, dict[str, Tensor]]:
    try:
        metadata, tensors = read_tensors(path)
    except (SafetensorError, OSError) as error:
        raise LabError(f"weights {path} cannot be read ({error})") from error
    if "ancestry" not in metadata:
        raise LabError(f"{path} does not say which stage its weights come from; save it with save_stage")
    return from_json(json.loads(metadata["ancestry"]), str(path)), tensors


def _of_part(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}


def _sha256(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        # reshape: a buffer without dimensions has no view as bytes.
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _checked_weights(tensors: Mapping[str, Tensor], part: str, module: nn.Module, path: Path) -> dict[str, Tensor]:
    weights = _of_part(tensors, part)
    expected = module.state_dict()
    if weights.keys() != expected.keys() or any(weights[n].shape != expected[n].shape for n in expected):
        raise LabError(f"weights of {part!r} in {path} do not fit this model's")
    return weights


def _check_hashes(link: Ancestor, tensors: Mapping[str, Tensor], path: Path) -> None:
    for part in link.trained:
        if _sha256(_of_part(tensors, part)) != link.weights[part]:
            raise LabError(f"weights of {part!r} in {path} are not those that stage {link.stage!r} left")


def _check_declarations(ancestry: Ancestry, stages: Mapping[str, Stage], path: Path) -> None:
    for entry in ancestry:
        if entry.stage in stages and declaration(stages[entry.stage]) != entry.declaration:
            now = declaration(stages[entry.stage])
            changed = sorted(key for key in now if now[key] != entry.declaration.get(key))
            raise LabError(f"{path} comes from a stage {entry.stage!r} with other {', '.join(changed)}; train it anew")


def _youngest(ancestry: Ancestry, name: str, stage: Stage) -> Ancestor:
    for entry in reversed(ancestry):
        if entry.stage == name:
            return entry
    raise LabError(f"stage {stage.name!r} starts from {name!r}, which is not in its ancestry; load it first")


def _equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def _list(names: Sequence[str] | Mapping[str, Path]) -> str:
    return ", ".join(map(repr, names)) or "the pretrained parts alone"
