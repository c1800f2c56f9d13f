"""Parquet files, read with one sentence about what is damaged."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lab.errors import LabError, first_line


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
