"""One stage of a recipe over one shard: what a worker does, whichever machine it is on.

Section 3 of the paper. Each function takes one task and gives the account of what it did; a task whose account is there
already is not done again. A row is never lost between them: rows in are rows out and rows dropped, or it is an error.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from lab.data.recipes.accounts import Account, check_balance, examples
from lab.data.recipes.hashes import hash_rows, hash_texts
from lab.data.recipes.schemas import as_schema
from lab.data.recipes.shards import read_json, read_shard, write_array, write_json, write_shard, write_texts
from lab.data.recipes.source import Source
from lab.data.recipes.step import CorpusStep, RowStep, Step
from lab.errors import LabError


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


def account_path(folder: Path, name: str) -> Path:
    """The account of a shard, or of a part that was read."""
    return folder / f"{name}.json"


def read_part(task: ReadTask) -> Account:
    """Read one part of a source into shards; those of a former attempt that are there are not written again."""
    _see(task.folder)
    account: Account = {"name": task.name, "shards": []}
    ids = []
    skipped: Counter[str] = Counter()
    for number, rows in enumerate(_by_shard(task.source.rows(task.number, task.schema, skipped), task.shard_rows)):
        path = task.folder / f"{task.name}-{number:05d}.parquet"
        table = as_schema(rows, task.schema, str(path))
        if not path.exists():
            write_shard(path, table)
        account["shards"].append({"name": path.stem, "rows": table.num_rows, "hash": hash_rows(table)})
        ids.append(hash_texts(table, ["id"])[:, 0])
    write_array(task.folder / f"{task.name}.npy", np.concatenate([np.empty(0, dtype="<u8"), *ids]))
    account["skipped"] = dict(skipped)
    write_json(account_path(task.folder, task.name), account)
    return account


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
    rows = read_shard(task.inputs)
    sketch, texts = task.step.sketch(rows), task.step.texts(rows)
    if len(sketch) != task.num_rows:
        raise LabError(f"step {task.step.use} looked at {len(sketch)} rows of {task.num_rows} of shard {task.name}")
    if texts is not None:
        write_texts(task.folder / f"{task.name}.arrow", texts)
    write_array(task.folder / f"{task.name}.npy", sketch)
    return {"name": task.name}


def step_shard(task: ShardTask) -> Account:
    """Write the rows of a shard that stay, and the account of those that do not."""
    _see(task.folder)
    rows = read_shard(task.inputs)
    if isinstance(task.step, CorpusStep):
        codes = np.load(task.folder / "verdict.npy", mmap_mode="r")[task.first : task.first + task.num_rows]
        result = task.step.report(rows, np.asarray(codes), task.step.reasons())
    else:
        assert isinstance(task.step, RowStep)
        result = task.step.judge(rows)
    check_balance(f"step {task.step.use} in shard {task.name}", task.num_rows, rows, result)
    kept = rows.filter(pa.array(result.keep))
    numbers: dict[str, float] = {}
    if isinstance(task.step, RowStep):
        kept, numbers = task.step.arrange(kept)
        if kept.num_rows != result.report.num_kept:
            raise LabError(
                f"step {task.step.use} made {kept.num_rows} rows of the {result.report.num_kept} that stay of shard "
                f"{task.name}; a step may drop rows only where it counts them"
            )
    write_shard(task.folder / f"{task.name}.parquet", kept)
    account = {
        "name": task.name,
        "rows_in": rows.num_rows,
        "rows": kept.num_rows,
        "dropped": dict(result.report.dropped),
        "examples": examples(rows, result),
        "numbers": numbers,
        "hash": hash_rows(kept),
    }
    write_json(account_path(task.folder, task.name), account)
    return account


def done(task: ReadTask | ShardTask) -> Account | None:
    """The account of a task whose shards are whole."""
    account: Account | None = read_json(account_path(task.folder, task.name))
    return account


def sketched(task: ShardTask) -> Account | None:
    """The account of a shard that was looked at."""
    return {"name": task.name} if (task.folder / f"{task.name}.npy").exists() else None


def _see(folder: Path) -> None:
    if not folder.is_dir():
        import socket

        raise LabError(
            f"{socket.gethostname()} does not see the folder {folder}; all nodes of a cluster need the same cache "
            "folder, on storage that they share (OMNI_LAB_CACHE names it)"
        )
