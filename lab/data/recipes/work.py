"""What a worker does with one shard of a recipe, whichever machine it is on.

Each function takes one task and gives the account of what it did; a task whose account is there already is not done
again. A row is never lost: rows in are rows out and rows dropped, or it is an error.
"""

import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lab.data.filters.filtering import Filtered
from lab.data.filters.hashes import hash_rows, hash_texts
from lab.data.filters.step import CorpusStep, RowStep, Step
from lab.data.recipes.shards import read_json, read_shards, write_array, write_json, write_shard, write_texts
from lab.data.recipes.source import Source
from lab.errors import LabError

EXCERPT_CHARACTERS = 80
VERDICT = "verdict.npy"

Account = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ReadTask:
    """Part `number` of a source, to be cut into shards of `shard_rows` rows called `name`-00000 and on in `folder`."""

    source: Source
    number: int
    schema: pa.Schema
    shard_rows: int
    folder: Path
    name: str


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """Shards `inputs` (joined, one behind the other) through a step to the shard `name` in `folder`.

    Their rows are those from `first` on in the corpus, `num_rows` of them.
    """

    step: Step
    inputs: tuple[Path, ...]
    first: int
    num_rows: int
    folder: Path
    name: str


def read_part(task: ReadTask) -> Account:
    """Read one part of a source into shards; those of a former attempt that are there are not written again."""
    _see(task.folder)
    shards = []
    ids = [np.empty(0, dtype="<u8")]
    skipped: Counter[str] = Counter()
    for number, rows in enumerate(_by_shard(task.source.rows(task.number, task.schema, skipped), task.shard_rows)):
        path = task.folder / f"{task.name}-{number:05d}.parquet"
        if not path.exists():
            write_shard(path, rows)
        shards.append({"name": path.stem, "rows": rows.num_rows, "hash": hash_rows(rows)})
        ids.append(hash_texts(rows, ["id"])[:, 0])
    write_array(task.folder / f"{task.name}.npy", np.concatenate(ids))
    return _written(task, {"shards": shards, "skipped": dict(skipped)})


def _by_shard(tables: Iterator[pa.Table], shard_rows: int) -> Iterator[pa.Table]:
    """Cut a stream of tables anew: tables of `shard_rows` rows, the last of what is left."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        while table.num_rows:
            piece = table.slice(0, shard_rows - count)
            held.append(piece)
            count += piece.num_rows
            table = table.slice(piece.num_rows)
            if count == shard_rows:
                yield pa.concat_tables(held)
                held, count = [], 0
    if held:
        yield pa.concat_tables(held)


def sketch_shard(task: ShardTask) -> Account:
    """Keep of a shard what a `CorpusStep` has to know of it."""
    assert isinstance(task.step, CorpusStep)
    _see(task.folder)
    rows = read_shards(task.inputs)
    sketch = task.step.sketch(rows)
    if len(sketch) != task.num_rows:
        raise LabError(f"step {task.step.use} looked at {len(sketch)} rows of {task.num_rows} of shard {task.name}")
    write_texts(task.folder / f"{task.name}.arrow", task.step.texts(rows))
    write_array(task.folder / f"{task.name}.npy", sketch)
    return {"name": task.name}


def sketched(task: ShardTask) -> Account | None:
    """The account of a shard that was looked at."""
    return {"name": task.name} if (task.folder / f"{task.name}.npy").exists() else None


def step_shard(task: ShardTask) -> Account:
    """Write the rows of a shard that stay, and the account of those that do not."""
    _see(task.folder)
    rows = read_shards(task.inputs)
    if isinstance(task.step, RowStep):
        codes = task.step.judge(rows)
    else:
        codes = np.load(task.folder / VERDICT, mmap_mode="r")[task.first : task.first + task.num_rows]
    result = task.step.report(rows, codes)
    kept = rows.filter(pa.array(result.keep))
    numbers: dict[str, float] = {}
    if isinstance(task.step, RowStep):
        kept, numbers = task.step.arrange(kept)
    report = result.report
    if not task.num_rows == report.num_samples == kept.num_rows + report.num_dropped:
        raise LabError(
            f"step {task.step.use} does not balance in shard {task.name}: of {task.num_rows} rows {kept.num_rows} stay "
            f"and {report.num_dropped} are dropped; every row has to stay or be counted as dropped"
        )
    write_shard(task.folder / f"{task.name}.parquet", kept)
    account = {
        "rows_in": task.num_rows,
        "rows": kept.num_rows,
        "dropped": dict(report.dropped),
        "examples": _examples(rows, result),
        "numbers": numbers,
        "hash": hash_rows(kept),
    }
    return _written(task, account)


def _examples(rows: pa.Table, result: Filtered) -> dict[str, list[dict[str, str]]]:
    """Of each reason the first rows, to be read in the card: their ids and how their texts begin."""
    chosen = {reason: ids for reason, ids in result.report.examples.items() if reason != "kept"}
    texts = [field.name for field in rows.schema if pa.types.is_string(field.type) and field.name != "source"]
    wanted = pa.array([name for ids in chosen.values() for name in ids], pa.string())
    found = {}
    for row in rows.select(texts).filter(pa.compute.is_in(rows["id"], wanted)).to_pylist():
        found[row["id"]] = {name: (text or "")[:EXCERPT_CHARACTERS] for name, text in row.items()}
    return {reason: [found[name] for name in ids] for reason, ids in chosen.items()}


def _written(task: ReadTask | ShardTask, account: Account) -> Account:
    write_json(_account_path(task), named := {"name": task.name, **account})
    return named


def done(task: ReadTask | ShardTask) -> Account | None:
    """The account of a task whose shards are whole."""
    account: Account | None = read_json(_account_path(task))
    return account


def _account_path(task: ReadTask | ShardTask) -> Path:
    return task.folder / f"{task.name}.json"


def _see(folder: Path) -> None:
    if not folder.is_dir():
        raise LabError(
            f"{socket.gethostname()} does not see the folder {folder}; all nodes of a cluster need the same cache "
            "folder, on storage that they share (OMNI_LAB_CACHE names it)"
        )
