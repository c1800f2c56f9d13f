"""Instructions as Parquet, of the columns `id, prompt, answer, source, group`: written whole, read in batches."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from lab.data.instructions.instruction import Instruction
from lab.data.parquet import read_schema
from lab.errors import LabError
from lab.paths import whole

COLUMNS = pa.schema([(name, pa.string()) for name in ("id", "prompt", "answer", "source", "group")])
_BATCH_ROWS = 8192
Sample = TypeVar("Sample")


def in_batches(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    """Yield lists of `size` samples, the last of what is left."""
    stream = iter(samples)
    while batch := list(islice(stream, size)):
        yield batch


def write_instructions(path: Path, instructions: Iterable[Instruction]) -> int:
    """Write instructions, whole or not at all, a batch in memory at a time; returns how many there were."""
    count = 0
    with whole(path) as unfinished, pq.ParquetWriter(unfinished, COLUMNS) as writer:
        for batch in in_batches(instructions, _BATCH_ROWS):
            rows = {name: [getattr(one, name) for one in batch] for name in COLUMNS.names}
            writer.write_table(pa.table(rows, schema=COLUMNS))
            count += len(batch)
    return count


def read_instruction_table(*paths: Path) -> Iterator[Instruction]:
    """Stream the instructions of Parquet files, one after the other; further columns are let pass.

    Raises:
        LabError: no file, one that is cut off or damaged, or lacks a column or has it in another type: then nothing is
            read, whichever file it is.
    """
    if not paths:
        raise LabError("no table of instructions is given; name a Parquet file")
    for path in paths:
        schema = read_schema(path)
        for column in COLUMNS:
            found = schema.field(column.name).type if column.name in schema.names else "missing"
            if found not in (pa.string(), pa.large_string()):
                raise LabError(
                    f"column {column.name!r} of {path} is {found}, expected string; a table of instructions has the "
                    f"columns {', '.join(COLUMNS.names)}, and all of several files the same"
                )
    return _read(paths)


def _read(paths: tuple[Path, ...]) -> Iterator[Instruction]:
    for path in paths:
        try:
            with pq.ParquetFile(path) as opened:
                for batch in opened.iter_batches(_BATCH_ROWS, columns=COLUMNS.names):
                    for row in batch.to_pylist():
                        yield Instruction(**{name: text or "" for name, text in row.items()})
        except (pa.ArrowException, OSError) as error:
            raise LabError(f"{path} is damaged ({str(error).splitlines()[0]}); write it again") from error
