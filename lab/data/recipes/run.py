"""Runs a recipe: each stage from the cache or shard by shard on an engine, and the rows into a folder.

Section 3 of the paper. A stage (the reading of the sources, then each step) depends on the hash of its input's rows, on
its parameters and on its version: a changed threshold runs from there on, and a step that gives the same rows as before
changes nothing behind it.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lab.data.recipes.accounts import Account, merged
from lab.data.recipes.cache import Made, Stage, cached_stage, make_stage, stage_folder
from lab.data.recipes.card import make_card
from lab.data.recipes.engines import ENGINES, Engine, Progress, do_all
from lab.data.recipes.folder import check_free, publish
from lab.data.recipes.reading import read_sources, reading_folder, source_versions
from lab.data.recipes.recipe import Recipe, check_recipe
from lab.data.recipes.shards import MappedTexts, write_array
from lab.data.recipes.stages import ShardTask, done, sketch_shard, sketched, step_shard
from lab.data.recipes.step import CorpusStep, Step
from lab.errors import LabError, choose
from lab.paths import mlruns_dir


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
        stages = [make_stage(place, partial(read_sources, recipe, schema, place, run, progress))]
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


def step_folder(recipe: Recipe, step: Step, before: Stage) -> Path:
    """The rows of a step depend on the rows before it, and on the step."""
    shards = [shard["rows"] for shard in before.shards]  # a step looks at one shard at a time
    return stage_folder(
        step.use, step.version, step.parameters(), step.identity(), before.hash, shards, recipe.shard_rows
    )


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
        do_all(run, sketch_shard, tasks, sketched, f"{what}, looking", progress)
        _decide(what, step, tasks, folder)
    accounts = do_all(run, step_shard, tasks, done, what, progress)
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
