"""Instructions as Parquet: `id, prompt, answer, source, group`, with `task` and `messages` where there is more to tell.

Filters and recipes read `prompt`, all that was said before the answer. `messages` are the turns of a longer
conversation (`role`, `content`), empty for a prompt of one turn. Tables are written whole and read in batches.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from lab.data.instructions.instructions import instruction
from lab.data.parquet import read_schema
from lab.data.sample import Sample, Text
from lab.errors import LabError
from lab.paths import whole

NEEDED = ("id", "prompt", "answer", "source", "group")
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
COLUMNS = pa.schema([*((name, pa.string()) for name in (*NEEDED, "task")), ("messages", _MESSAGES)])
_BATCH_ROWS = 8192
Item = TypeVar("Item")


def in_batches(samples: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of `size` samples, the last of what is left."""
    stream = iter(samples)
    while batch := list(islice(stream, size)):
        yield batch


def table_of(samples: Sequence[Sample]) -> pa.Table:
    """Instructions as rows.

    Raises:
        LabError: one that holds more than text.
    """
    return pa.Table.from_pylist([_row(one) for one in samples], COLUMNS)


def _row(sample: Sample) -> dict[str, Any]:
    turns = []
    for part in sample.content:
        if not isinstance(part, Text):
            raise LabError(f"sample {sample.id!r} of {sample.source!r} holds {part.type}; a table has text alone")
        turns.append({"role": part.role, "content": part.text})
    facts = {name: getattr(sample, name) for name in ("id", "answer", "source", "group", "task")}
    return {**facts, "prompt": sample.asked, "messages": turns if len(turns) > 1 else None}


def _sample(row: Mapping[str, Any]) -> Sample:
    told: dict[str, Any] = {name: row.get(name) or "" for name in (*NEEDED, "task")}
    if not row.get("messages"):
        return instruction(**told)
    content = tuple(Text(turn["content"] or "", turn["role"]) for turn in row["messages"])
    del told["prompt"]
    return Sample(content=content, **told)


def write_instructions(path: Path, samples: Iterable[Sample]) -> int:
    """Write instructions, whole or not at all, a batch in memory at a time; returns how many there were.

    Raises:
        LabError: as `table_of`.
    """
    count = 0
    with whole(path) as unfinished, pq.ParquetWriter(unfinished, COLUMNS) as writer:
        for batch in in_batches(samples, _BATCH_ROWS):
            writer.write_table(table_of(batch))
            count += len(batch)
    return count


def read_instruction_table(*paths: Path) -> Iterator[Sample]:
    """Stream the instructions of Parquet files, one after the other; further columns are let pass.

    Raises:
        LabError: no file, one that is cut off or damaged, or lacks a column or has it in another type: then nothing is
            read, whichever file it is.
    """
    if not paths:
        raise LabError("no table of instructions is given; name a Parquet file")
    for path in paths:
        schema = read_schema(path)
        for name in NEEDED:
            found = schema.field(name).type if name in schema.names else "missing"
            if found not in (pa.string(), pa.large_string()):
                raise LabError(
                    f"column {name!r} of {path} is {found}, expected string; a table of instructions has the "
                    f"columns {', '.join(NEEDED)}, and all of several files the same"
                )
    return _read(paths)


def _read(paths: tuple[Path, ...]) -> Iterator[Sample]:
    for path in paths:
        try:
            with pq.ParquetFile(path) as opened:
                present = [name for name in COLUMNS.names if name in opened.schema_arrow.names]
                for batch in opened.iter_batches(_BATCH_ROWS, columns=present):
                    yield from map(_sample, batch.to_pylist())
        except (pa.ArrowException, OSError) as error:
            raise LabError(f"{path} is damaged ({str(error).splitlines()[0]}); write it again") from error
