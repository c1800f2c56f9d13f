"""What a worker does with one shard of a recipe, whichever machine it is on.

Each task leaves its files and then the account of what it did; a task whose account is there is not done again. A row
is never lost: rows in are rows out and rows dropped, or it is an error.
"""

import socket
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lab.data.filters.filtering import Filtered, Reasons
from lab.data.filters.hashes import hash_rows, hash_texts
from lab.data.filters.step import CorpusStep, Step
from lab.data.parquet import read_parquet
from lab.data.recipes.shards import read_json, write_array, write_json, write_shard, write_texts
from lab.data.recipes.source import Source
from lab.errors import LabError

EXCERPT_CHARACTERS = 80
# In a stage's folder: what its later tasks read. It goes when the stage is whole.
SKETCHES = "sketches"

Account = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """What is done on its own; its files are called `name` and lie in `folder`."""

    folder: Path
    name: str

    @abstractmethod
    def work(self) -> Account:
        """Write the files; returns their account."""

    def run(self) -> Account:
        """Work, and write the account down.

        Raises:
            LabError: as the work, or a node that does not see the folder.
        """
        if not self.folder.is_dir():
            raise LabError(
                f"{socket.gethostname()} does not see the folder {self.folder}; all nodes of a cluster need the same "
                "cache folder, on storage that they share (OMNI_LAB_CACHE names it)"
            )
        account = {"name": self.name, **self.work()}
        write_json(self.folder / f"{self.name}.json", account)
        return account

    def account(self) -> Account | None:
        """That of a task that was done, in this build or in one before it."""
        found: Account | None = read_json(self.folder / f"{self.name}.json")
        return found


@dataclass(frozen=True, kw_only=True)
class ReadTask(Task):
    """Cut part `number` of a source into shards of `shard_rows` rows, called `name`-00000 and on."""

    source: Source
    number: int
    schema: pa.Schema
    shard_rows: int

    def work(self) -> Account:
        """Shards of a former attempt that are there are not written again."""
        shards = []
        ids = [np.empty(0, dtype="<u8")]
        skipped: Counter[str] = Counter()
        tables = self.source.rows(self.number, self.schema, skipped)
        for number, rows in enumerate(_by_shard(tables, self.shard_rows)):
            path = self.folder / f"{self.name}-{number:05d}.parquet"
            if not path.exists():
                write_shard(path, rows)
            shards.append({"name": path.stem, "rows": rows.num_rows, "hash": hash_rows(rows)})
            ids.append(hash_texts(rows, ["id"])[:, 0])
        write_array(self.folder / SKETCHES / f"{self.name}.npy", np.concatenate(ids))
        return {"shards": shards, "skipped": dict(skipped)}


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


@dataclass(frozen=True, kw_only=True)
class SketchTask(Task):
    """Keep of shards (joined, one behind the other) what a `CorpusStep` has to know of them."""

    step: CorpusStep
    inputs: tuple[Path, ...]

    def work(self) -> Account:
        """The sketch, and texts that may be read again."""
        rows = read_parquet(self.inputs)
        write_texts(self.folder / f"{self.name}.arrow", self.step.texts(rows))
        write_array(self.folder / f"{self.name}.npy", self.step.sketch(rows))
        return {}


@dataclass(frozen=True, kw_only=True)
class StepTask(Task):
    """Put shards (joined) through a step; `reasons` are of their rows where the step looks at the whole corpus."""

    step: Step
    inputs: tuple[Path, ...]
    reasons: Reasons | None

    def work(self) -> Account:
        """Write the rows that stay; the account is of those that do not."""
        rows = read_parquet(self.inputs)
        result = self.step.apply(rows, self.reasons)
        kept, numbers = self.step.arrange(rows.filter(pa.array(result.keep)))
        if kept.num_rows != result.num_kept:
            raise LabError(
                f"step {self.step.use} does not balance in shard {self.name}: of {rows.num_rows} rows {kept.num_rows} "
                f"stay and {result.num_dropped} are dropped; every row has to stay or be counted as dropped"
            )
        write_shard(self.folder / f"{self.name}.parquet", kept)
        return {
            "rows_in": rows.num_rows,
            "rows": kept.num_rows,
            "dropped": result.dropped,
            "examples": _examples(rows, result),
            "numbers": numbers,
            "hash": hash_rows(kept),
        }


def _examples(rows: pa.Table, result: Filtered) -> dict[str, list[dict[str, str]]]:
    """Of each reason the first rows, to be read in the card: their ids and how their texts begin."""
    chosen = {reason: ids for reason, ids in result.examples.items() if reason != "kept"}
    texts = [field.name for field in rows.schema if pa.types.is_string(field.type) and field.name != "source"]
    wanted = pa.array([name for ids in chosen.values() for name in ids], pa.string())
    found = {}
    for row in rows.select(texts).filter(pa.compute.is_in(rows["id"], wanted)).to_pylist():
        found[row["id"]] = {name: (text or "")[:EXCERPT_CHARACTERS] for name, text in row.items()}
    return {reason: [found[name] for name in ids] for reason, ids in chosen.items()}
