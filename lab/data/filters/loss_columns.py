"""The losses that `lab score` wrote, read in batches: what a loss filter looks at, from Parquet or from memory.

A file has the columns of `LOSS_COLUMNS`: the sample's id, the mean loss of a token of its answer (nats, end included)
given the prompt, the same without the prompt (null where it was not measured), and the answer's and prompt's tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float
from numpy import ndarray

from lab.errors import LabError

LOSS_COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("loss", pa.float64()),
        ("loss_without_prompt", pa.float64()),
        ("num_tokens", pa.int32()),
        ("prompt_tokens", pa.int32()),
    ]
)
SUMMARY = "summary.json"


@dataclass(frozen=True)
class LossBatch:
    """Some samples, in their order; their ids are read only where one is named."""

    read_ids: Callable[[], Sequence[Any]]
    losses: Float[ndarray, " samples"]
    losses_without_prompt: Float[ndarray, " samples"] | None

    def id(self, index: int) -> str:
        """The id of one sample of the batch."""
        return str(self.read_ids()[index])


Batches = Callable[[], Iterator[LossBatch]]
"""Begins a pass over all samples; a filter makes several."""


def losses_in_memory(
    ids: Sequence[str],
    losses: Sequence[float] | Float[ndarray, " samples"],
    losses_without_prompt: Sequence[float] | Float[ndarray, " samples"] | None = None,
) -> Batches:
    """Losses at hand, as one batch.

    Raises:
        LabError: not one loss an id.
    """
    given = np.asarray(losses, dtype=np.float64)
    without = None if losses_without_prompt is None else np.asarray(losses_without_prompt, dtype=np.float64)
    if not len(ids) == len(given) == len(given if without is None else without):
        raise LabError(f"there are {len(given)} losses for {len(ids)} samples; expected one each")
    return lambda: iter([LossBatch(lambda: ids, given, without)])


def loss_files(path: Path) -> list[Path]:
    """The Parquet files of a scoring, one file or the folder that `lab score` wrote.

    Raises:
        LabError: nothing there, a folder whose scoring was not finished, or a file that is no whole Parquet file or
            has other columns.
    """
    if path.is_dir() and not (path / SUMMARY).is_file():
        raise LabError(f"the scoring in {path} is not finished (no {SUMMARY}); run the same `lab score` again")
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise LabError(f"{path} holds no losses; expected a Parquet file, or a folder that `lab score` wrote")
    for file in files:
        schema = read_schema(file)
        for column in LOSS_COLUMNS:
            found = schema.field(column.name).type if column.name in schema.names else "missing"
            if found != column.type:
                raise LabError(
                    f"column {column.name!r} of {file} is {found}, expected {column.type}; all files of a scoring "
                    f"have the columns {', '.join(LOSS_COLUMNS.names)}"
                )
    return files


def read_schema(file: Path) -> pa.Schema:
    """The columns of a Parquet file.

    Raises:
        LabError: it is cut off, damaged or no Parquet file.
    """
    try:
        return pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise LabError(f"{file} is no whole Parquet file ({why}); write it again") from error


def losses_in_files(path: Path) -> Batches:
    """Losses of a scoring, streamed: the losses of one row group in memory at a time.

    Raises:
        LabError: as `loss_files`; while it is read, a damaged file.
    """
    files = loss_files(path)

    def batches() -> Iterator[LossBatch]:
        for file in files:
            try:
                with pq.ParquetFile(file) as opened:
                    for group in range(opened.num_row_groups):
                        read = opened.read_row_group(group, columns=["loss", "loss_without_prompt"])
                        # A null becomes a NaN, which is named as such where it is looked at.
                        yield LossBatch(partial(_ids, file, group), *(column.to_numpy() for column in read.columns))
            except (pa.ArrowException, OSError) as error:
                raise LabError(f"{file} is damaged ({str(error).splitlines()[0]}); score it again") from error

    return batches


@lru_cache(maxsize=2)
def _ids(file: Path, group: int) -> list[str]:
    with pq.ParquetFile(file) as opened:
        ids: list[str] = opened.read_row_group(group, columns=["id"]).column(0).to_pylist()
    return ids
