"""What the cells of a study share is made once, and remembered under a hash of everything that it depends on.

So a sweep with nothing to do need not import torch.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from lab.data.fetch import packages
from lab.paths import cache_dir, write_whole
from lab.study.gpus import visible_gpus
from lab.study.identity import package_versions, processor
from lab.training.parameters import TrainedParameters

Ingredients = dict[str, Any]


def remembered(
    facts: Sequence[Any], code: Mapping[str, str], make: Callable[[], tuple[Ingredients, list[str]]]
) -> Ingredients:
    """What `make` returned when it was last run on the same facts with the same code; else it is run.

    Pinned packages, libraries and processor count as facts. `code` has a hash of each definition that `make` reaches.
    `make` gives what was prepared, by parameter and value, and the folders that must still be there for it to count.
    """
    pinned = {name: package.sha256 for name, package in packages().items()}
    # Processor and GPUs tell whether `auto` comes to the same as before, without asking torch.
    identity = json.dumps([*facts, code, pinned, package_versions(), processor(), visible_gpus()], sort_keys=True)
    memo = cache_dir() / "prepared" / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.json"
    if memo.is_file():
        known = json.loads(memo.read_text(encoding="utf-8"))
        if all(Path(folder).exists() for folder in known["folders"]):
            ingredients: Ingredients = known["ingredients"]
            return ingredients
    memo.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{memo}.lock"):
        ingredients, folders = make()
        write_whole(memo, json.dumps({"ingredients": ingredients, "folders": folders}))
    return ingredients


def folder_states(names: Iterable[str]) -> dict[str, list[tuple[str, int, int]]]:
    """What tells whether a folder among the names has changed: its files, their sizes and when they were written."""
    states = {}
    for folder in (Path(name) for name in sorted({name for name in names if name and Path(name).is_dir()})):
        files = [(str(path.relative_to(folder)), path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
        states[str(folder)] = [(name, status.st_size, status.st_mtime_ns) for name, status in files]
    return states


def computed_with(cell: TrainedParameters) -> Ingredients:
    """Device and precision of a cell, where it says `auto` what that is on this machine: they move a result."""
    from lab.training.loop import choose_device, choose_precision

    device: str = cell.device
    precision: str = cell.precision
    if "auto" in (device, precision) or device != "cuda":  # cells that name all may be for another machine
        chosen = choose_device(device)
        device, precision = chosen.type, choose_precision(precision, chosen)
    return {"device": {cell.device: device}, "precision": {cell.precision: precision}}


def say(what: str) -> Callable[..., None]:
    """A progress call that prints a line at each twentieth of the work."""
    said = -1

    def print_line(done: int, total: int, loss: float | None = None) -> None:
        nonlocal said
        if done == total or done * 20 // total > said:
            said = done * 20 // total
            print(
                f"preparing: {what} {done} of {total}" + (f", loss {loss:.3f}" if loss is not None else ""), flush=True
            )

    return print_line


def say_left_out(source: str, left_out: Mapping[str, Sequence[str]]) -> None:
    """Print what of a source cannot be used, where there is any."""
    from lab.data.filters.filtering import left_out_account

    if left_out:
        print(f"preparing: {source}, {left_out_account(left_out)}", flush=True)
