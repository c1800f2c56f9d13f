"""Runs a recipe: each stage from the cache or shard by shard on an engine, and the rows into a folder.

Section 3 of the paper. A stage (the reading of the sources, then each step) depends on the hash of its input's rows, on
its parameters and on its version: a changed threshold runs from there on, and a step that gives the same rows as before
changes nothing behind it.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lab.data.recipe_cache import Stage, cached_stage, make_stage, stage_folder
from lab.data.recipe_card import make_card
from lab.data.recipe_engines import ENGINES, Engine, Function
from lab.data.recipe_folder import check_free, publish
from lab.data.recipe_hashes import hash_texts
from lab.data.recipe_shards import MappedTexts, read_shard, write_array
from lab.data.recipe_stages import (
    Account,
    ReadTask,
    ShardTask,
    done,
    merged,
    read_part,
    sketch_shard,
    sketched,
    step_shard,
)
from lab.data.recipe_step import CorpusStep, Step
from lab.data.recipes import Recipe, check_recipe
from lab.errors import LabError, choose
from lab.paths import mlruns_dir

# Told: the stage, shards done, shards in all.
Progress = Callable[[str, int, int], None]
Made = tuple[list[dict[str, Any]], Account]


def build(
    recipe: Recipe,
    *,
    out: Path | None = None,
    engine: str = "local",
    workers: int | None = None,
    address: str = "",
    progress: Progress = lambda stage, number, total: None,
) -> tuple[Path, dict[str, Any]]:
    """Build the rows of a recipe into `out` (default: `data/NAME` beside the tracked runs); returns it and the card.

    Raises:
        LabError: an unknown engine, all that `check_recipe` finds, an id that comes twice, a step that drops every row
            or does not balance, or an `out` that holds something else.
    """
    opened = choose(ENGINES, engine, "engine")
    if workers is not None and workers < 1:
        raise LabError(f"workers is {workers}, expected at least 1")
    folder = mlruns_dir() / "data" / recipe.name if out is None else out
    check_free(folder)
    schema = check_recipe(recipe)
    with opened(workers=workers, address=address) as run:
        versions = source_versions(recipe)
        place = reading_folder(recipe, versions)
        stages = [make_stage(place, partial(_read, recipe, schema, place, run, progress))]
        for number, step in enumerate(recipe.steps, 1):
            what, before = f"step {number} ({step.use})", stages[-1]
            place = step_folder(recipe, step, before)
            stages.append(make_stage(place, partial(_run_step, recipe, what, step, before, place, run, progress)))
            if not stages[-1].account["rows"]:
                raise LabError(f"{what} dropped all {before.account['rows']:,} rows: {_told(stages[-1].account)}")
    card = make_card(recipe, stages, versions, engine)
    publish(
        folder, [path for path, shard in zip(stages[-1].paths(), stages[-1].shards, strict=True) if shard["rows"]], card
    )
    return folder, card


def plan(recipe: Recipe) -> list[tuple[str, str]]:
    """What a build would do, stage by stage: its name, and whether its rows are in the cache; runs nothing.

    What comes behind the first stage that is not in the cache is not known before that one has run.

    Raises:
        LabError: all that `check_recipe` finds.
    """
    check_recipe(recipe)
    stage = cached_stage(reading_folder(recipe, source_versions(recipe)))
    sources = ", ".join(source.name for source in recipe.sources)
    found = [(f"reading ({sources})", _state(stage))]
    for number, step in enumerate(recipe.steps, 1):
        known = stage is not None
        stage = cached_stage(step_folder(recipe, step, stage)) if stage is not None else None
        found.append((f"step {number} ({step.use})", _state(stage) if known else "to do, or in the cache"))
    return found


def _state(stage: Stage | None) -> str:
    return "to do" if stage is None else f"in the cache: {stage.account['rows']:,} rows"


def _told(account: Account) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in account["dropped"].items())


def source_versions(recipe: Recipe) -> dict[str, list[str]]:
    """The hash or pinned version of each part of each source; files are read whole for it."""
    return {source.name: [source.identity(part) for part in source.parts()] for source in recipe.sources}


def reading_folder(recipe: Recipe, versions: dict[str, list[str]]) -> Path:
    """The rows of the sources depend on the sources' content, not on where they lie or what the recipe is called."""
    sources = [[source.name, dict(source.columns), versions[source.name]] for source in recipe.sources]
    return stage_folder("read", sources, recipe.shard_rows)


def step_folder(recipe: Recipe, step: Step, before: Stage) -> Path:
    """The rows of a step depend on the rows before it, and on the step."""
    shards = [shard["rows"] for shard in before.shards]  # a step looks at one shard at a time
    return stage_folder(
        step.use, step.version, step.parameters(), step.identity(), before.hash, shards, recipe.shard_rows
    )


def _all(
    run: Engine, function: Function, tasks: Sequence[Any], ready: Callable[[Any], Any], what: str, progress: Progress
) -> list[Account]:
    """The accounts of all tasks in their order; those that are `ready` from a former attempt are not given out."""
    accounts = {task.name: ready(task) for task in tasks}
    missing = [task for task in tasks if accounts[task.name] is None]
    progress(what, len(tasks) - len(missing), len(tasks))
    try:
        for number, account in enumerate(run(function, missing) if missing else (), len(tasks) - len(missing) + 1):
            if "error" in account:
                raise LabError(account["error"])
            accounts[account["name"]] = account
            progress(what, number, len(tasks))
    except LabError as error:
        raise LabError(f"{what}: {error}") from error
    return [accounts[task.name] for task in tasks]


def _read(recipe: Recipe, schema: pa.Schema, folder: Path, run: Engine, progress: Progress) -> Made:
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
    accounts = _all(run, read_part, tasks, done, "reading", progress)
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


def _run_step(
    recipe: Recipe, what: str, step: Step, before: Stage, folder: Path, run: Engine, progress: Progress
) -> Made:
    tasks, first = [], 0
    groups = _groups(before.shards, recipe.shard_rows) if step.ends else [[shard] for shard in before.shards]
    for group in groups:
        count = sum(shard["rows"] for shard in group)
        inputs = tuple(before.folder / f"{shard['name']}.parquet" for shard in group)
        name = group[0]["name"]
        tasks.append(ShardTask(step=step, inputs=inputs, first=first, num_rows=count, folder=folder, name=name))
        first += count
    if isinstance(step, CorpusStep) and not (folder / "verdict.npy").exists():
        _all(run, sketch_shard, tasks, sketched, f"{what}, looking", progress)
        _decide(what, step, tasks, folder)
    accounts = _all(run, step_shard, tasks, done, what, progress)
    account = merged(accounts)
    rows_in, rows, dropped = account["rows_in"], account["rows"], sum(account["dropped"].values())
    if rows_in != before.account["rows"] or rows + dropped != rows_in:
        raise LabError(
            f"{what} does not balance: of {before.account['rows']} rows {rows_in} went in, {rows} "
            f"stay and {dropped} are "
            "dropped"
        )
    return [{name: entry[name] for name in ("name", "rows", "hash")} for entry in accounts], account


def _decide(what: str, step: CorpusStep, tasks: Sequence[ShardTask], folder: Path) -> None:
    sketches = [np.load(folder / f"{task.name}.npy", mmap_mode="r") for task in tasks]
    texts = [path for task in tasks if (path := folder / f"{task.name}.arrow").exists()]
    try:
        codes = step.decide(sketches, MappedTexts(texts))
    except LabError as error:
        raise LabError(f"{what}: {error}") from None
    num_rows = sum(task.num_rows for task in tasks)
    if len(codes) != num_rows:
        raise LabError(f"{what} decided over {len(codes)} rows of {num_rows}; every row has to stay or be dropped")
    write_array(folder / "verdict.npy", codes)


def _groups(shards: Sequence[dict[str, Any]], shard_rows: int) -> list[list[dict[str, Any]]]:
    """Neighbouring shards, joined while they have together no more rows than one has when it is read."""
    groups: list[list[dict[str, Any]]] = []
    count = 0
    for shard in shards:
        if not groups or count + shard["rows"] > shard_rows:
            groups.append([])
            count = 0
        groups[-1].append(shard)
        count += shard["rows"]
    return groups
