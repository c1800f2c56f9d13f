"""The first stage of a recipe: the rows of its sources as shards of one size, each with an id of its own.

Section 3 of the paper. Parts of sources (files, splits) are read one beside the other; shards of a part follow each
other.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from lab.data.recipes.accounts import Account
from lab.data.recipes.cache import Made, stage_folder
from lab.data.recipes.engines import Engine, Progress, do_all
from lab.data.recipes.hashes import hash_texts
from lab.data.recipes.recipe import Recipe
from lab.data.recipes.shards import read_shard
from lab.data.recipes.stages import ReadTask, done, read_part
from lab.errors import LabError


def source_versions(recipe: Recipe) -> dict[str, list[str]]:
    """The hash or pinned version of each part of each source; files are read whole for it."""
    return {source.name: [source.identity(part) for part in source.parts()] for source in recipe.sources}


def reading_folder(recipe: Recipe, versions: dict[str, list[str]]) -> Path:
    """The rows of the sources depend on the sources' content, not on where they lie or what the recipe is called."""
    sources = [[source.name, dict(source.columns), versions[source.name]] for source in recipe.sources]
    return stage_folder("read", sources, recipe.shard_rows)


def read_sources(recipe: Recipe, schema: pa.Schema, folder: Path, run: Engine, progress: Progress) -> Made:
    """Read every part of every source into shards of `folder`; returns these and the account.

    Raises:
        LabError: a source without rows, a damaged file, columns that change, or an id that comes twice.
    """
    tasks = [
        ReadTask(
            source=source,
            number=number,
            schema=schema,
            shard_rows=recipe.shard_rows,
            folder=folder,
            name=f"{place:03d}-{number:05d}",
        )
        for place, source in enumerate(recipe.sources)
        for number in range(len(source.parts()))
    ]
    accounts = do_all(run, read_part, tasks, done, "reading", progress)
    shards = [shard for account in accounts for shard in account["shards"]]
    _check_ids(folder, accounts)
    counts: Counter[str] = Counter()
    skipped: dict[str, Counter[str]] = {source.name: Counter() for source in recipe.sources}
    for task, account in zip(tasks, accounts, strict=True):
        counts[task.source.name] += sum(shard["rows"] for shard in account["shards"])
        skipped[task.source.name].update(account["skipped"])
    if empty := [name for name, count in counts.items() if not count]:
        raise LabError(f"source {empty[0]!r} has no rows")
    total = counts.total()
    account = {"rows_in": total, "rows": total, "dropped": {}, "examples": {}, "numbers": {}}
    # Before the first step, so not among the dropped: what a source does not give out is no row yet.
    by_source = {name: {"rows": count, "skipped": dict(skipped[name])} for name, count in counts.items()}
    return shards, {**account, "by_source": by_source}


def _check_ids(folder: Path, accounts: Sequence[Account]) -> None:
    """Every id once: scores are joined by it, and what a card says of a row has to mean one row."""
    hashes = np.concatenate([np.load(folder / f"{account['name']}.npy") for account in accounts])
    hashes.sort()
    twice = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    if not twice:
        return
    # Seldom, and then worth reading the ids again: 64 bits may agree by chance.
    seen: set[str] = set()
    for shard in (shard for account in accounts for shard in account["shards"]):
        table = read_shard([folder / f"{shard['name']}.parquet"], ["id"])
        for name, code in zip(table["id"].to_pylist(), hash_texts(table, ["id"])[:, 0].tolist(), strict=True):
            if code in twice and name in seen:
                raise LabError(
                    f"sample id {name!r} comes twice; every row of a recipe needs an id of its own "
                    f"(leave id out of the "
                    "columns of a source, and its rows get one)"
                )
            if code in twice:
                seen.add(name)
