"""Parquet files, read with one sentence about what is damaged; rows that cannot be read do not end the others."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lab.data.filters.filtering import Dropped, LeftOut
from lab.errors import LabError, first_line, reason

NOT_UTF8 = "text that is not UTF-8"
_ROWS_AT_ONCE = 16
_NO_PARQUET, _DAMAGED = "file that cannot be read as Parquet", "row in a damaged part of a Parquet file"


class _NoParquet(LabError):
    """What is wrong is the file's content."""


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
    except (pa.ArrowException, OSError) as error:
        if not _is_damage(error):
            raise LabError(f"{path} cannot be read: {reason(error)}; look after the disk") from error
        raise _NoParquet(
            f"{path} cannot be read as Parquet, it is damaged or cut short ({first_line(error)}); expected a whole file"
        ) from error


def _is_damage(error: Exception) -> bool:
    """What the system says of a disk has a number, and may be another tomorrow."""
    return getattr(error, "errno", None) is None


def rows_of(table: pa.Table) -> Iterator[dict[str, Any] | Dropped]:
    """The rows of a table; why it is dropped of one with a text that is not UTF-8."""
    try:
        yield from table.to_pylist()
    except UnicodeDecodeError:
        for place in range(table.num_rows):
            try:
                yield from table.slice(place, 1).to_pylist()
            except UnicodeDecodeError:
                yield Dropped(NOT_UTF8)


def _tables(file: pq.ParquetFile, most: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table | int]:
    """The rows of a file, at most so many at a time; of a row group that is damaged, how many could not be read."""
    done = 0
    options: Any = {"columns": columns, "use_threads": False}
    try:
        for batch in file.iter_batches(most, **options):
            yield pa.Table.from_batches([batch])
            done += batch.num_rows
        return
    except (pa.ArrowException, OSError) as error:
        if not _is_damage(error):
            raise
    for group in range(file.num_row_groups):
        rows, before = file.metadata.row_group(group).num_rows, done
        done = max(done - rows, 0)
        if before >= rows:
            continue
        try:
            table = file.read_row_group(group, **options).slice(before)
        except (pa.ArrowException, OSError) as error:
            if not _is_damage(error):
                raise
            yield rows - before
        else:
            yield from (table.slice(place, most) for place in range(0, table.num_rows, most))


def parquet_rows(path: str | Path) -> Iterator[dict[str, Any] | Dropped]:
    """The rows of a file; why it is dropped of each that cannot be read, or of the file where it is no Parquet."""
    try:
        with open_parquet(Path(path)) as file:
            for table in _tables(file, _ROWS_AT_ONCE):
                yield from [Dropped(f"{_DAMAGED} ({path})")] * table if isinstance(table, int) else rows_of(table)
    except _NoParquet:
        yield Dropped(f"{_NO_PARQUET} ({path})")


def text_batches(path: Path, most: int, left_out: LeftOut, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of a file, at most so many at a time; what cannot be read is named in `left_out`.

    That is a row with a text that is not UTF-8, the rows of a damaged part, or the file where it is no Parquet.
    """
    first = 0
    try:
        with open_parquet(path) as file:
            for table in _tables(file, most, columns):
                if isinstance(table, int):
                    for row in range(first, first + table):
                        left_out.add(_DAMAGED, f"{path}, row {row}")
                    first += table
                    continue
                before, first = first, first + table.num_rows
                try:
                    table.validate(full=True)
                except pa.ArrowInvalid:
                    whole = [not isinstance(row, Dropped) for row in rows_of(table)]
                    for place in (place for place, is_whole in enumerate(whole) if not is_whole):
                        left_out.add(NOT_UTF8, f"{path}, row {before + place}")
                    table = table.filter(pa.array(whole))
                if table.num_rows:
                    yield table
    except _NoParquet:
        left_out.add(_NO_PARQUET, str(path))


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
