"""The losses that `lab score` wrote: what a loss filter looks at, from Parquet or from memory.

A file has the columns of `LOSS_COLUMNS`: the sample's id, the mean loss of a token of its answer (nats, end included)
given the prompt, the same without the prompt (null where it was not measured), and the answer's and prompt's tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from jaxtyping import Float, Int
from numpy import ndarray

from lab.data.parquet import read_parquet, read_schema
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
class Losses:
    """The losses of samples, in their order; the ids may be Arrow's and are read only where one is named.

    Raises:
        LabError: not one loss an id.
    """

    ids: Sequence[Any]
    losses: Float[ndarray, " samples"]
    without_prompt: Float[ndarray, " samples"] | None = None
    """Of the answers alone; NaN where it was not measured."""

    def __post_init__(self) -> None:
        if {len(self.losses), len(self.losses if self.without_prompt is None else self.without_prompt)} != {len(self)}:
            raise LabError(f"there are {len(self.losses)} losses for {len(self)} samples; expected one each")

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, places: Int[ndarray, " some"]) -> "Losses":
        """Those of some samples."""
        alone = None if self.without_prompt is None else self.without_prompt[places]
        return Losses([self.ids[int(i)] for i in places], self.losses[places], alone)


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


def read_losses(path: Path) -> Losses:
    """The losses of a scoring: 16 bytes a sample, and its id.

    Raises:
        LabError: as `loss_files`, or a damaged file.
    """
    table = read_parquet(loss_files(path), ["id", "loss", "loss_without_prompt"])
    # A null becomes a NaN, which is named as such where it is looked at.
    return Losses(table["id"], table["loss"].to_numpy(), table["loss_without_prompt"].to_numpy())
