"""Stages of recipes in the cache: each once, under the hash of what its rows depend on, and whole or taken up again.

A stage's folder has its shards, their accounts and, once all of them are there, `stage.json`. A build that was killed
leaves it without, and the next one goes on with the shards that are missing.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from lab.data.recipes.accounts import Account
from lab.data.recipes.hashes import hash_all
from lab.data.recipes.shards import UNFINISHED, read_json, write_json
from lab.paths import cache_dir

FORMAT_VERSION = 1
STAGE = "stage.json"

# The shards of a stage, and its account.
Made = tuple[list[dict[str, Any]], Account]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage that is whole: its shards (name, rows, hash of the rows) in `folder`, and its account."""

    folder: Path
    shards: list[dict[str, Any]]
    account: Account

    @property
    def hash(self) -> str:
        """Of all rows, in their order; shards that steps have emptied do not count."""
        return hash_all(shard["hash"] for shard in self.shards if shard["rows"])

    def paths(self) -> list[Path]:
        """The shards' files, in order."""
        return [self.folder / f"{shard['name']}.parquet" for shard in self.shards]


def stage_folder(name: str, *depends_on: Any) -> Path:
    """Where a stage lies: `depends_on` is what its rows depend on, as JSON."""
    text = json.dumps([FORMAT_VERSION, name, *depends_on], sort_keys=True)
    return cache_dir() / "recipes" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


def cached_stage(folder: Path) -> Stage | None:
    """The stage of a folder where it is whole."""
    if (found := read_json(folder / STAGE)) is None:
        return None
    return Stage(folder=folder, shards=found["shards"], account={**found["account"], "cached": True})


def make_stage(folder: Path, make: Callable[[], Made]) -> Stage:
    """The stage from the cache, or made; another build that wants the same one at the same time waits for it.

    Raises:
        OSError: it cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if (found := cached_stage(folder)) is not None:
            return found
        folder.mkdir(exist_ok=True)
        for left in folder.glob(f"{UNFINISHED}*"):
            left.unlink(missing_ok=True)
        begun = time.perf_counter()
        shards, account = make()
        account["seconds"] = round(time.perf_counter() - begun, 3)
        write_json(folder / STAGE, {"shards": shards, "account": account})
        for sketch in [*folder.glob("*.npy"), *folder.glob("*.arrow")]:
            sketch.unlink()
    return Stage(folder=folder, shards=shards, account={**account, "cached": False})
