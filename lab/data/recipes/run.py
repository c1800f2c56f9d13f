"""Runs a recipe: each stage from the cache or shard by shard on an engine, and the rows into a folder.

A stage (the reading of the sources, then each step) depends on the hash of its input's rows, on its parameters and on
its version: a changed threshold runs from there on, and a step that gives the same rows as before changes nothing after
it. Its folder in the cache has its shards, their accounts and, once all of them are there, `stage.json`. A build that
was killed leaves it without, and the next one goes on with the shards that are missing.
"""

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock
from tqdm import tqdm

from lab.data.filters.filtering import NUM_EXAMPLES, Reasons
from lab.data.filters.hashes import hash_all, hash_texts
from lab.data.filters.step import CorpusStep, Step
from lab.data.parquet import read_parquet
from lab.data.recipes.card import check_free, make_card, publish
from lab.data.recipes.engines import ENGINES, Submit
from lab.data.recipes.recipe import Recipe, check_recipe
from lab.data.recipes.shards import map_texts, read_json, write_json
from lab.data.recipes.work import SKETCHES, Account, ReadTask, SketchTask, StepTask, Task
from lab.errors import LabError, choose
from lab.paths import UNFINISHED, cache_dir, mlruns_dir

FORMAT_VERSION = 3
STAGE = "stage.json"
# Told: the stage, shards done, shards in all.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class BuiltStage:
    """A stage that is whole: its shards (name, rows, hash of the rows) in `folder`, and its account."""

    folder: Path
    shards: list[dict[str, Any]]
    account: Account

    @property
    def hash(self) -> str:
        """Of all rows, in their order; shards that steps have emptied do not count."""
        return hash_all(shard["hash"] for shard in self.shards if shard["rows"])

    def paths(self, shards: Sequence[Mapping[str, Any]]) -> tuple[Path, ...]:
        """The files of some of its shards."""
        return tuple(self.folder / f"{shard['name']}.parquet" for shard in shards)


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
    with opened(workers=workers, address=address) as submit:
        versions = source_versions(recipe)
        place, do = reading_folder(recipe, versions), partial(_do_all, submit, progress)
        stages = [make_stage(place, partial(_read_sources, recipe, schema, place, do))]
        for number, step in enumerate(recipe.steps, 1):
            what, before = f"step {number} ({step.use})", stages[-1]
            place = step_folder(recipe, step, before)
            stages.append(make_stage(place, partial(_run_step, recipe, what, step, before, place, do)))
            if not stages[-1].account["rows"]:
                told = ", ".join(f"{count:,} {reason}" for reason, count in stages[-1].account["dropped"].items())
                raise LabError(f"{what} dropped all {before.account['rows']:,} rows: {told}")
    last = stages[-1]
    accounts = [{**stage.account, "rows_hash": stage.hash} for stage in stages]
    card = make_card(recipe, accounts, versions, engine)
    publish(folder, last.paths([shard for shard in last.shards if shard["rows"]]), card)
    return folder, card


@contextmanager
def bars() -> Iterator[Progress]:
    """A `Progress` of a bar a stage, shown as long as the context is open."""
    shown: dict[str, tqdm] = {}

    def progress(stage: str, number: int, total: int) -> None:
        if stage not in shown:
            shown[stage] = tqdm(desc=stage, total=total, unit=" shards", mininterval=1)
        shown[stage].update(number - shown[stage].n)
        if number == total:
            shown[stage].close()

    try:
        yield progress
    finally:
        for bar in shown.values():
            bar.close()


def plan(recipe: Recipe) -> list[tuple[str, str]]:
    """What a build would do, stage by stage: its name, and whether its rows are in the cache; runs nothing.

    What comes after the first stage that is not in the cache is not known before that one has run.

    Raises:
        LabError: all that `check_recipe` finds.
    """
    check_recipe(recipe)
    stage = cached_stage(reading_folder(recipe, source_versions(recipe)))
    found = [(f"reading ({', '.join(source.name for source in recipe.sources)})", _state(stage))]
    for number, step in enumerate(recipe.steps, 1):
        known = stage is not None
        stage = cached_stage(step_folder(recipe, step, stage)) if stage is not None else None
        found.append((f"step {number} ({step.use})", _state(stage) if known else "to do, or in the cache"))
    return found


def _state(stage: BuiltStage | None) -> str:
    return "to do" if stage is None else f"in the cache: {stage.account['rows']:,} rows"


def source_versions(recipe: Recipe) -> dict[str, list[str]]:
    """The hash or pinned version of each part of each source; files are read whole for it."""
    return {source.name: [source.identity(part) for part in source.parts()] for source in recipe.sources}


def reading_folder(recipe: Recipe, versions: dict[str, list[str]]) -> Path:
    """The rows of the sources depend on the sources' content, not on where they lie or what the recipe is called."""
    sources = [[source.name, dict(source.columns), versions[source.name]] for source in recipe.sources]
    return _stage_folder("read", sources, recipe.shard_rows)


def step_folder(recipe: Recipe, step: Step, before: BuiltStage) -> Path:
    """The rows of a step depend on the rows before it, and on the step."""
    shards = [shard["rows"] for shard in before.shards]  # a step looks at one shard at a time
    own = (step.version, step.parameters(), step.identity())
    return _stage_folder(step.use, *own, before.hash, shards, recipe.shard_rows)


def _stage_folder(name: str, *depends_on: Any) -> Path:
    text = json.dumps([FORMAT_VERSION, name, *depends_on], sort_keys=True)
    return cache_dir() / "recipes" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


def cached_stage(folder: Path) -> BuiltStage | None:
    """The stage of a folder where it is whole."""
    if (found := read_json(folder / STAGE)) is None:
        return None
    return BuiltStage(folder=folder, shards=found["shards"], account={**found["account"], "cached": True})


def make_stage(folder: Path, make: Callable[[], tuple[list[dict[str, Any]], Account]]) -> BuiltStage:
    """The stage from the cache, or made; another build that wants the same one at the same time waits for it.

    Raises:
        OSError: it cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if (found := cached_stage(folder)) is not None:
            return found
        (folder / SKETCHES).mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{UNFINISHED}*"):
            left.unlink(missing_ok=True)
        begun = time.perf_counter()
        shards, account = make()
        account["seconds"] = round(time.perf_counter() - begun, 3)
        write_json(folder / STAGE, {"shards": shards, "account": account})
        shutil.rmtree(folder / SKETCHES, ignore_errors=True)
    return BuiltStage(folder=folder, shards=shards, account={**account, "cached": False})


Do = Callable[[str, Sequence[Task]], list[Account]]


def _do_all(submit: Submit, progress: Progress, what: str, tasks: Sequence[Task]) -> list[Account]:
    """The accounts of all tasks in their order; those that are there from a former attempt are not given out.

    Raises:
        LabError: what a task finds wrong, after the name of the stage.
    """
    accounts = {task.name: task.account() for task in tasks}
    futures = [submit(task.run) for task in tasks if accounts[task.name] is None]
    progress(what, done := len(tasks) - len(futures), len(tasks))
    try:
        for number, future in enumerate(as_completed(futures), done + 1):
            account = future.result()
            accounts[account["name"]] = account
            progress(what, number, len(tasks))
    except LabError as error:
        # Of a Ray task, the error is told with its traceback; the cause is what the task raised.
        raise LabError(f"{what}: {getattr(error, 'cause', error)}") from error
    return [account for account in accounts.values() if account is not None]


def _read_sources(recipe: Recipe, schema: pa.Schema, folder: Path, do: Do) -> tuple[list[dict[str, Any]], Account]:
    """The first stage: parts of sources (files, splits) one beside the other, the shards of a part after each other."""
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
    accounts = do("reading", tasks)
    shards = [shard for account in accounts for shard in account["shards"]]
    _check_ids(folder, accounts, shards)
    # What a source itself skips is no row yet, and so not among the dropped.
    by_source: dict[str, Any] = {source.name: {"rows": 0, "skipped": Counter()} for source in recipe.sources}
    for task, account in zip(tasks, accounts, strict=True):
        by_source[task.source.name]["rows"] += sum(shard["rows"] for shard in account["shards"])
        by_source[task.source.name]["skipped"].update(account["skipped"])
    if empty := [name for name, told in by_source.items() if not told["rows"]]:
        raise LabError(f"source {empty[0]!r} has no rows")
    return shards, {"rows": sum(shard["rows"] for shard in shards), "by_source": by_source}


def _check_ids(folder: Path, accounts: Sequence[Account], shards: Sequence[Mapping[str, Any]]) -> None:
    """Every id once: scores are joined by it, and what a card says of a row has to mean one row."""
    hashes = np.concatenate([np.load(folder / SKETCHES / f"{account['name']}.npy") for account in accounts])
    hashes.sort()
    twice = hashes[1:][hashes[1:] == hashes[:-1]]
    # Seldom, and then worth reading the ids again: 64 bits may agree by chance.
    seen: set[str] = set()
    for shard in shards if len(twice) else ():
        table = read_parquet([folder / f"{shard['name']}.parquet"], ["id"])
        for name in table.filter(np.isin(hash_texts(table, ["id"])[:, 0], twice))["id"].to_pylist():
            if name in seen:
                raise LabError(
                    f"sample id {name!r} comes twice; every row of a recipe needs an id of its own (leave id out of "
                    "the columns of a source, and its rows get one)"
                )
            seen.add(name)


def _run_step(
    recipe: Recipe, what: str, step: Step, before: BuiltStage, folder: Path, do: Do
) -> tuple[list[dict[str, Any]], Account]:
    """A further stage: first what a `CorpusStep` has to know of every shard, then shard by shard what stays."""
    groups = _groups(before.shards, recipe.shard_rows) if step.ends else [[shard] for shard in before.shards]
    inputs = {group[0]["name"]: before.paths(group) for group in groups}
    reasons: dict[str, Reasons] = {}
    if isinstance(step, CorpusStep):
        sketches = folder / SKETCHES
        do(f"{what}, looking", [SketchTask(step=step, inputs=p, folder=sketches, name=n) for n, p in inputs.items()])
        reasons = dict(zip(inputs, _decided(what, step, sketches, list(inputs)), strict=True))
    tasks = [
        StepTask(step=step, inputs=paths, reasons=reasons.get(name), folder=folder, name=name)
        for name, paths in inputs.items()
    ]
    accounts = do(what, tasks)
    return [{name: entry[name] for name in ("name", "rows", "hash")} for entry in accounts], _merged(accounts)


def _decided(what: str, step: CorpusStep, folder: Path, names: Sequence[str]) -> list[Reasons]:
    """What the step decides over the whole corpus, cut into shards."""
    sketches = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in names]
    try:
        reasons = step.decide(sketches, map_texts([folder / f"{name}.arrow" for name in names]))
    except LabError as error:
        raise LabError(f"{what}: {error}") from None
    ends = np.cumsum([len(sketch) for sketch in sketches]).tolist()
    return [reasons[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


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


def _merged(accounts: Sequence[Account]) -> Account:
    """One account of all shards, in their order."""
    dropped: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    examples: dict[str, list[Any]] = {}
    for account in accounts:
        dropped.update(account["dropped"])
        numbers.update(account["numbers"])
        for reason, rows in account["examples"].items():
            shown = examples.setdefault(reason, [])
            shown += rows[: NUM_EXAMPLES - len(shown)]
    return {
        "rows_in": sum(account["rows_in"] for account in accounts),
        "rows": sum(account["rows"] for account in accounts),
        "dropped": dict(dropped),
        "examples": examples,
        "numbers": dict(numbers),
    }
