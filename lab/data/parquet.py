"""Parquet files, read with one sentence about what is damaged, and rows without text that nobody can write."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lab.data.filters.filtering import LeftOut
from lab.errors import LabError, first_line

NOT_UTF8 = "text that is not UTF-8"


@contextmanager
def open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; damage is told here and while it is read.

    Raises:
        LabError: it is not there, damaged, cut short, or no Parquet.
    """
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except FileNotFoundError:
        raise LabError(f"{path} is not there") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise LabError(
            f"{path} cannot be read as Parquet, it is damaged or cut short ({first_line(error)}); expected a whole file"
        ) from error


def rows_of(table: pa.Table) -> Iterator[dict[str, Any] | None]:
    """The rows of a table; None for one with a text that is not UTF-8."""
    try:
        yield from table.to_pylist()
    except UnicodeDecodeError:
        for place in range(table.num_rows):
            try:
                yield from table.slice(place, 1).to_pylist()
            except UnicodeDecodeError:
                yield None


def text_batches(path: Path, most: int, left_out: LeftOut, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of a file, at most so many at a time; those with a text that is not UTF-8 are named in `left_out`."""
    first = 0
    with open_parquet(path) as file:
        for batch in file.iter_batches(most, columns=columns, use_threads=False):
            table = pa.Table.from_batches([batch])
            try:
                table.validate(full=True)
            except pa.ArrowInvalid:
                whole = [row is not None for row in rows_of(table)]
                for place in (place for place, is_whole in enumerate(whole) if not is_whole):
                    left_out.add(NOT_UTF8, f"{path}, row {first + place}")
                table = table.filter(pa.array(whole))
            first += batch.num_rows
            if table.num_rows:
                yield table


def read_parquet(paths: Sequence[Path], columns: Sequence[str] | None = None) -> pa.Table:
    """Read files, one after the other, and of them `columns` (default: all)."""
    tables = []
    for path in paths:
        with open_parquet(path) as file:
            # Not in several threads: each worker has one core, and Arrow's pool would hold more memory.
            table = file.read(columns=list(columns) if columns else None, use_threads=False)
            tables.append(table.replace_schema_metadata())
    return pa.concat_tables(tables)


def read_schema(path: Path) -> pa.Schema:
    """The columns of a file, and its metadata."""
    with open_parquet(path) as file:
        return file.schema_arrow
