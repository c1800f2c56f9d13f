"""Runs a recipe: each stage from the cache or shard by shard on an engine, and the rows into a folder.

A stage (the reading of the sources, then each step) depends on the hash of its input's rows, on its parameters and on
its version: a changed threshold runs from there on, and a step that gives the same rows as before changes nothing after
it. Its folder in the cache has its shards, their accounts and, once all of them are there, `stage.json`. A build that
was killed leaves it without, and the next one goes on with the shards that are missing. A row is never lost: rows in
are rows out and rows dropped, or it is an error.
"""

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock

from lab.data.filters.filtering import NUM_EXAMPLES, Filtered, LeftOut, Reasons, left_out_account
from lab.data.filters.step import Step
from lab.data.parquet import read_parquet
from lab.data.recipes.card import check_free, make_card, publish
from lab.data.recipes.engines import ENGINES, Account, Task, do_all, read_json, write_json
from lab.data.recipes.recipe import Recipe, check_recipe
from lab.data.recipes.sources import Source
from lab.errors import LabError, choose
from lab.paths import UNFINISHED, cache_dir, mlruns_dir, whole

FORMAT_VERSION = 8
STAGE = "stage.json"
# In a stage's folder: what its later tasks read. It goes when the stage is whole.
SKETCHES = "sketches"
EXCERPT_CHARACTERS = 80
Do = Callable[[str, Mapping[Path, Task]], list[Account]]


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

    def paths(self) -> list[Path]:
        """The files of those that have rows."""
        return [self.folder / f"{shard['name']}.parquet" for shard in self.shards if shard["rows"]]


def build(
    recipe: Recipe,
    *,
    out: Path | None = None,
    engine: str = "local",
    workers: int | None = None,
    address: str = "",
) -> tuple[Path, dict[str, Any]]:
    """Build the rows of a recipe into `out` (default: `data/NAME` beside the tracked runs); returns it and the card.

    Raises:
        LabError: an unknown engine, all that `check_recipe` finds, an id that comes twice, a step that drops every row
            or does not balance, or an `out` that holds something else.
    """
    opened = choose(ENGINES, engine, "engine")
    if workers is not None and workers < 1:
        raise LabError(f"workers is {workers}, expected at least 1")
    target = mlruns_dir() / "data" / recipe.name if out is None else out
    check_free(target)
    check_recipe(recipe)
    with opened(workers=workers, address=address) as submit:
        versions = _source_versions(recipe)
        stages = [stage for _, stage in _stages(recipe, versions, partial(do_all, submit)) if stage is not None]
    card = make_card(recipe, [{**stage.account, "rows_hash": stage.hash} for stage in stages], versions, engine)
    publish(target, stages[-1].paths(), card)
    return target, card


def plan(recipe: Recipe) -> list[tuple[str, str]]:
    """What a build would do, stage by stage: its name, and whether its rows are in the cache; runs nothing.

    What comes after the first stage that is not in the cache is not known before that one has run.
    """
    check_recipe(recipe)
    found, missing = [], "to do"
    for name, stage in _stages(recipe, _source_versions(recipe)):
        found.append((name, missing if stage is None else f"in the cache: {stage.account['rows']:,} rows"))
        missing = "to do" if stage is not None else "to do, or in the cache"
    return found


def _source_versions(recipe: Recipe) -> dict[str, list[str]]:
    """The hash or pinned version of each part of each source; files are read whole for it."""
    return {source.name: [source.identity(part) for part in source.parts()] for source in recipe.sources}


def _stages(
    recipe: Recipe, versions: Mapping[str, list[str]], do: Do | None = None
) -> Iterator[tuple[str, BuiltStage | None]]:
    """The name of each stage, and the stage; without `do` it is None where the cache has it not, or none before it.

    The rows of the sources depend on the sources' content, not on where they lie or what the recipe is called; those
    of a step on the rows before it, and on the step.
    """
    name = f"reading ({', '.join(versions)})"
    stage = _stage(do, partial(_read_sources, recipe), "read", list(versions.items()), recipe.shard_rows)
    yield name, stage
    for number, step in enumerate(recipe.steps, 1):
        name = f"step {number} ({step.use})"
        if stage is not None:
            shards = [shard["rows"] for shard in stage.shards]  # a step looks at one shard at a time
            own = (step.version, step.parameters(), step.identity())
            stage = _stage(do, partial(_run_step, name, step, stage), step.use, *own, stage.hash, shards)
        yield name, stage


Make = Callable[[Do, Path], tuple[list[dict[str, Any]], Account]]


def _stage(do: Do | None, make: Make, name: str, *depends_on: Any) -> BuiltStage | None:
    """The stage from the cache, or made; another build that wants the same one at the same time waits for it."""
    text = json.dumps([FORMAT_VERSION, name, *depends_on], sort_keys=True)
    folder = cache_dir() / "recipes" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"
    if do is None:
        return _cached(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if (found := _cached(folder)) is not None:
            return found
        (folder / SKETCHES).mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{UNFINISHED}*"):
            left.unlink(missing_ok=True)
        begun = time.perf_counter()
        shards, account = make(do, folder)
        account["seconds"] = round(time.perf_counter() - begun, 3)
        write_json(folder / STAGE, {"shards": shards, "account": account})
        shutil.rmtree(folder / SKETCHES, ignore_errors=True)
    return BuiltStage(folder=folder, shards=shards, account={**account, "cached": False})


def _cached(folder: Path) -> BuiltStage | None:
    """The stage of a folder where it is whole."""
    if (found := read_json(folder / STAGE)) is None:
        return None
    return BuiltStage(folder=folder, shards=found["shards"], account={**found["account"], "cached": True})


def _read_sources(recipe: Recipe, do: Do, folder: Path) -> tuple[list[dict[str, Any]], Account]:
    """The first stage: parts of sources (files, splits) one beside the other, the shards of a part after each other."""
    parts = [
        (source, part, folder / f"{place:03d}-{number:05d}")
        for place, source in enumerate(recipe.sources)
        for number, part in enumerate(source.parts())
    ]
    tasks = {path: partial(read_part, source, part, recipe.shard_rows) for source, part, path in parts}
    accounts = do("reading", tasks)
    # What a source itself leaves out is no row yet, and so not among the dropped.
    by_source: dict[str, Any] = {
        source.name: {"rows": 0, "skipped": Counter(), "left_out": {}} for source in recipe.sources
    }
    for (source, _, _), account in zip(parts, accounts, strict=True):
        by_source[source.name]["rows"] += sum(shard["rows"] for shard in account["shards"])
        by_source[source.name]["skipped"].update(account["skipped"])
        for reason, names in account["left_out"].items():
            shown = by_source[source.name]["left_out"].setdefault(reason, [])
            shown += names[: NUM_EXAMPLES - len(shown)]
    for name, told in by_source.items():
        if not told["rows"]:
            raise LabError(f"source {name!r} has no rows; {left_out_account(told['left_out'])}")
    shards = [shard for account in accounts for shard in account["shards"]]
    # Scores are joined by id, and what a card says of a row has to mean one row.
    ids = read_parquet([folder / f"{shard['name']}.parquet" for shard in shards], ["id"])["id"]
    if pc.count_distinct(ids).as_py() < len(ids):
        counts = pc.value_counts(ids)
        twice = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"]
        raise LabError(
            f"sample id {twice.as_py()!r} comes twice; every row of a recipe needs an id of its own (leave id out of "
            "the columns of a source, and its rows get one)"
        )
    return shards, {"rows": len(ids), "by_source": by_source}


def _run_step(what: str, step: Step, before: BuiltStage, do: Do, folder: Path) -> tuple[list[dict[str, Any]], Account]:
    """A further stage: first what a step has to know of every shard to judge the whole corpus, then what stays."""
    inputs = [before.folder / f"{shard['name']}.parquet" for shard in before.shards]
    reasons: list[Reasons | None] = [None] * len(inputs)
    if step.whole_corpus:
        sketches = {folder / SKETCHES / path.stem: partial(sketch_shard, step, path) for path in inputs}
        do(f"{what}, looking", sketches)
        # Mapped into memory, so that a text is read where it is looked at.
        known = [pa.ipc.open_file(pa.memory_map(f"{path}.arrow")).read_all() for path in sketches]
        try:
            judged = step.judge(pa.concat_tables(known))
        except LabError as error:
            raise LabError(f"{what}: {error}") from None
        ends = np.cumsum([0, *map(len, known)]).tolist()
        reasons = [judged[start:end] for start, end in pairwise(ends)]
    tasks = {
        folder / path.stem: partial(apply_step, step, path, why) for path, why in zip(inputs, reasons, strict=True)
    }
    accounts = do(what, tasks)
    merged = _merged(accounts)
    if not merged["rows"]:
        told = ", ".join(f"{count:,} {reason}" for reason, count in merged["dropped"].items())
        raise LabError(f"{what} dropped all {merged['rows_in']:,} rows: {told}")
    return [{name: entry[name] for name in ("name", "rows", "hash")} for entry in accounts], merged


def _merged(accounts: Sequence[Account]) -> Account:
    """One account of all shards, in their order."""
    merged: Account = {"rows_in": 0, "rows": 0, "dropped": Counter(), "examples": {}, "numbers": Counter()}
    for account in accounts:
        for name in ("rows_in", "rows"):
            merged[name] += account[name]
        for name in ("dropped", "numbers"):
            merged[name].update(account[name])
        for reason, rows in account["examples"].items():
            shown = merged["examples"].setdefault(reason, [])
            shown += rows[: NUM_EXAMPLES - len(shown)]
    return merged


def read_part(source: Source, part: str, shard_rows: int, path: Path) -> Account:
    """Cut a part of a source into shards, called as the path and numbered; those that are there stay."""
    shards, left_out = [], LeftOut()
    for place, rows in enumerate(source.tables(part, left_out, shard_rows)):
        shard = path.with_name(f"{path.name}-{place:05d}.parquet")
        if not shard.exists():
            _write_shard(shard, rows)
        shards.append({"name": shard.stem, "rows": rows.num_rows, "hash": hash_rows(rows)})
    named = {reason: ids[:NUM_EXAMPLES] for reason, ids in left_out.items()}
    return {"shards": shards, "skipped": left_out.counts(), "left_out": named}


def sketch_shard(step: Step, shard: Path, path: Path) -> Account:
    """Keep of a shard what the step has to know of it."""
    known = step.sketch(read_parquet([shard]))
    with whole(path.with_name(f"{path.name}.arrow")) as unfinished, pa.ipc.new_file(unfinished, known.schema) as file:
        file.write_table(known)
    return {}


def apply_step(step: Step, shard: Path, reasons: Reasons | None, path: Path) -> Account:
    """Put a shard through a step; `reasons` are of its rows where the step looks at the whole corpus."""
    rows = read_parquet([shard])
    result = step.apply(rows, reasons)
    kept, numbers = step.arrange(rows.filter(pa.array(result.keep)))
    if kept.num_rows != result.num_kept:
        raise LabError(
            f"step {step.use} does not balance in shard {path.name}: of {rows.num_rows} rows {kept.num_rows} stay and "
            f"{result.num_dropped} are dropped; every row has to stay or be counted as dropped"
        )
    _write_shard(path.with_name(f"{path.name}.parquet"), kept)
    return {
        "name": path.name,
        "rows_in": rows.num_rows,
        "rows": kept.num_rows,
        "dropped": result.dropped,
        "examples": _examples(rows, result),
        "numbers": numbers,
        "hash": hash_rows(kept),
    }


def _write_shard(path: Path, rows: pa.Table) -> None:
    with whole(path) as unfinished:
        pq.write_table(rows, unfinished, compression="zstd")


def _examples(rows: pa.Table, result: Filtered) -> dict[str, list[dict[str, str]]]:
    """Of each reason the first rows, to be read in the card: their ids and how their texts begin."""
    texts = rows.select([f.name for f in rows.schema if pa.types.is_string(f.type) and f.name != "source"])
    found = {}
    for reason in result.dropped:
        shown = texts.filter(pc.is_in(rows["id"], pa.array(result.examples[reason]))).to_pylist()
        found[reason] = [{name: (text or "")[:EXCERPT_CHARACTERS] for name, text in row.items()} for row in shown]
    return found


def hash_rows(rows: pa.Table) -> str:
    """SHA-256 over the columns' names, types and values, in their order; how the rows are cut into chunks is no matter.

    The Parquet file's bytes would change with the version that wrote it.
    """
    # `take` copies: no offset into a larger buffer and no spare byte is left that the stream would carry.
    table = rows.replace_schema_metadata(None).take(np.arange(rows.num_rows)).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return hashlib.sha256(sink.getvalue()).hexdigest()


def hash_all(hashes: Iterable[str]) -> str:
    """One hash of shards' hashes, in their order."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()
