"""Shards of a recipe's rows: Parquet files that are written whole, and read with one sentence about what is damaged.

Where data of section 3 of the paper pass through a recipe (`lab.data.recipes.recipe`), each step reads and writes
shards. A shard's account (rows in, rows out, what was dropped) is a JSON file beside it, written after it: who finds
the account finds the shard whole.
"""

import bisect
import itertools
import json
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy import ndarray

from lab.errors import LabError

# What may lie in a folder of shards while it is written; a process that was killed leaves it behind.
UNFINISHED = ".part-"


def _write_whole(path: Path, write: Callable[[Path], None]) -> None:
    # No process id, as in `lab.paths`: two machines of a cluster that share the folder may have the same one.
    unfinished = path.with_name(f"{UNFINISHED}{uuid.uuid4().hex}")
    try:
        write(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_shard(path: Path, table: pa.Table) -> None:
    """Write rows as Parquet, whole or not at all.

    Raises:
        OSError: it cannot be written; nothing is left.
    """
    _write_whole(path, lambda unfinished: pq.write_table(table, unfinished, compression="zstd"))


def write_array(path: Path, array: ndarray) -> None:
    """Write an array as .npy, whole or not at all.

    Raises:
        OSError: it cannot be written; nothing is left.
    """

    def write(unfinished: Path) -> None:
        with unfinished.open("wb") as file:
            np.save(file, array)

    _write_whole(path, write)


def write_texts(path: Path, texts: pa.Array) -> None:
    """Write texts as Arrow, whole or not at all; they can be mapped into memory.

    Raises:
        OSError: it cannot be written; nothing is left.
    """
    table = pa.table({"text": texts})

    def write(unfinished: Path) -> None:
        with pa.ipc.new_file(unfinished, table.schema) as file:
            file.write_table(table)

    _write_whole(path, write)


class MappedTexts(Sequence[str]):
    """The texts of many files one behind the other, read from the disk where they are looked at."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._maps = [pa.memory_map(str(path)) for path in paths]
        self._columns = [pa.ipc.open_file(file).read_all()["text"] for file in self._maps]
        self._ends = list(itertools.accumulate(map(len, self._columns)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, row: Any) -> Any:
        file = bisect.bisect_right(self._ends, row)
        start = self._ends[file] - len(self._columns[file])
        return self._columns[file][row - start].as_py()


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all.

    Raises:
        OSError: it cannot be written; nothing is left.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"

    def write(unfinished: Path) -> None:
        unfinished.write_bytes(text.encode("utf-8", "surrogatepass"))

    _write_whole(path, write)


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote; None where it is not there."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file and read its footer alone.

    Raises:
        LabError: it is not there, cut short, or no Parquet.
    """
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise LabError(f"{path} is not there") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> LabError:
    """Word the one sentence about a file that is not what its name says."""
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return LabError(f"{path} cannot be read as Parquet, it is damaged or cut short ({first}); expected a whole file")


def read_shard(paths: Sequence[Path], columns: Sequence[str] | None = None) -> pa.Table:
    """Read shards, one behind the other, and of them `columns` (default: all).

    Raises:
        LabError: one is not there or damaged.
    """
    tables = []
    for path in paths:
        with open_parquet(path) as file:
            try:
                # Not in several threads: each worker has one core, and Arrow's pool would hold more memory.
                tables.append(file.read(columns=list(columns) if columns else None, use_threads=False))
            except (pa.ArrowInvalid, OSError) as error:
                raise unreadable(path, error) from error
    return pa.concat_tables(tables)
