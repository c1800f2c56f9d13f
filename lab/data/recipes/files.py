"""Files that a recipe reads, by their ending: a stream of tables, and one sentence about what is damaged."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from lab.data.recipes.shards import open_parquet, unreadable
from lab.errors import LabError

BATCH_ROWS = 10_000


def parquet(path: Path) -> Iterator[pa.Table]:
    """Rows of a Parquet file, a batch at a time.

    Raises:
        LabError: the file is damaged or cut short.
    """
    with open_parquet(path) as file:
        try:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
                yield pa.Table.from_batches([batch])
        except (pa.ArrowInvalid, OSError) as error:
            raise unreadable(path, error) from error


def json_lines(path: Path) -> Iterator[pa.Table]:
    """Rows of a JSON object a line; blank lines are passed over.

    Raises:
        LabError: a line is no JSON object, or a column is of more than one type in a batch.
    """
    with path.open(encoding="utf-8", errors="strict") as file:
        rows: list[dict[str, object]] = []
        number = 0
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    rows.append(json.loads(line))
                    if not isinstance(rows[-1], dict):
                        raise LabError(f'line {number} of {path} is no JSON object, such as {{"prompt": "..."}}')
                if len(rows) == BATCH_ROWS:
                    yield _as_table(rows, path, number)
                    rows = []
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise LabError(
                f"line {number + isinstance(error, UnicodeDecodeError)} of {path} is no JSON: {error}"
            ) from error
        if rows:
            yield _as_table(rows, path, number)


def _as_table(rows: list[dict[str, object]], path: Path, last: int) -> pa.Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    arrays = {}
    for name in names:
        try:
            arrays[name] = pa.array([row.get(name) for row in rows])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise LabError(
                f"{path}, lines up to {last}: column {name!r} is of more than one type ({error}); expected one type "
                "in all rows"
            ) from error
    return pa.table(arrays)


FILE_READERS: Mapping[str, Callable[[Path], Iterator[pa.Table]]] = {
    ".parquet": parquet,
    ".jsonl": json_lines,
    ".ndjson": json_lines,
}
