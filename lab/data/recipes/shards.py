"""Files of a recipe that are written whole or not at all: who finds one finds it whole, whatever was killed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy import ndarray

from lab.paths import whole


def write_shard(path: Path, table: pa.Table) -> None:
    """Write rows as Parquet."""
    with whole(path) as unfinished:
        pq.write_table(table, unfinished, compression="zstd")


def write_array(path: Path, array: ndarray) -> None:
    """Write an array as .npy."""
    with whole(path) as unfinished, unfinished.open("wb") as file:
        np.save(file, array)


def write_texts(path: Path, texts: pa.ChunkedArray) -> None:
    """Write texts as Arrow, for `map_texts`."""
    table = pa.table({"text": texts})
    with whole(path) as unfinished, pa.ipc.new_file(unfinished, table.schema) as file:
        file.write_table(table)


def map_texts(paths: Sequence[Path]) -> pa.ChunkedArray:
    """The texts of files, one behind the other: mapped into memory, so that a text is read where it is looked at."""
    tables = [pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in paths]
    return pa.concat_tables(tables)["text"]


def write_json(path: Path, value: Any) -> None:
    """Write JSON."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    with whole(path) as unfinished:
        unfinished.write_bytes(text.encode("utf-8", "surrogatepass"))


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote; None where it is not there."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
