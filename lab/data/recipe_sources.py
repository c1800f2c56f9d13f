"""Where a recipe's rows come from: files, data sets of the hub, and the project's own instructions, as batches of rows.

Section 3 of the paper. A source is cut into parts (a file, a split), which are read one beside the other, each as a
stream of tables. Every row gets an `id` (the source's own column, else made of the source's name and the row's place)
and a `source` (its own, else the source's name).
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lab.data.fetch import sha256_of
from lab.data.recipe_files import BATCH_ROWS, FILE_READERS
from lab.data.recipe_schemas import as_schema, plain_schema
from lab.errors import LabError, choose


@dataclass(frozen=True, kw_only=True)
class Source:
    """What every kind of source is declared with; `columns` maps our names to the source's, None takes all as they are.

    A kind adds `parts`, `identity` (the hash or pinned version of a part) and `tables` (its rows as the source has
    them).
    """

    name: str
    licence: str
    columns: Mapping[str, str] = field(default_factory=dict)

    def parts(self) -> list[str]:
        """Names of what can be read on its own, in order.

        Raises:
            LabError: there is nothing, or it cannot be reached.
        """
        raise NotImplementedError

    def identity(self, part: str) -> str:
        """What stands for the content of a part in the keys of the cache."""
        raise NotImplementedError

    def told_licence(self) -> str:
        """What the card says."""
        return self.licence

    def tables(self, part: str, skipped: Counter[str]) -> Iterator[pa.Table]:
        """The rows of a part, a batch at a time; what the source leaves out it counts in `skipped`, by reason."""
        raise NotImplementedError

    def rows(
        self, number: int, schema: pa.Schema | None = None, skipped: Counter[str] | None = None
    ) -> Iterator[pa.Table]:
        """The rows of part `number`, from 0, with our columns; all of `schema`, else of the first batch.

        Raises:
            LabError: a column that was asked for is not there, or the batches differ.
        """
        part, first = self.parts()[number], 0
        for table in self.tables(part, Counter() if skipped is None else skipped):
            ours = self._ours(table, number, first, part)
            schema = schema or plain_schema(ours.schema)
            yield as_schema(ours, schema, f"source {self.name!r}: {part} (rows {first} to {first + len(table) - 1})")
            first += len(table)

    def schema(self, number: int) -> pa.Schema | None:
        """The columns of a part, from its first batch; None where it has no rows."""
        return next((table.schema for table in self.rows(number)), None)

    def _ours(self, table: pa.Table, number: int, first: int, part: str) -> pa.Table:
        columns = self.columns or {name: name for name in table.column_names}
        if missing := [theirs for theirs in columns.values() if theirs not in table.column_names]:
            raise LabError(
                f"source {self.name!r}: {part} has no column {missing[0]!r}; its columns are "
                f"{', '.join(table.column_names)}"
            )
        arrays = {ours: table[theirs] for ours, theirs in columns.items()}
        made = pa.array([f"{self.name}-{number}-{row:09d}" for row in range(first, first + len(table))])
        ids = arrays.pop("id", made).cast(pa.string())
        if ids.null_count:
            row = first + pc.index(pc.is_null(ids), True).as_py()
            raise LabError(
                f"source {self.name!r}: row {row} of {part} has no id; expected one in every row, or no column"
            )
        arrays.setdefault("source", pa.array([self.name] * len(table)))
        return pa.table({"id": ids, **arrays})


@dataclass(frozen=True, kw_only=True)
class Files(Source):
    """Parquet and JSON lines: a file, a folder (all files in it), or a pattern such as `chats/*.parquet`.

    Its licence has to be told: nothing in such a file does.
    """

    path: Path

    def parts(self) -> list[str]:
        """The files, by name."""
        if self.path.is_dir():
            found = sorted(file for file in self.path.rglob("*") if file.suffix in FILE_READERS)
        elif self.path.exists():
            choose(FILE_READERS, self.path.suffix, f"kind of file of source {self.name!r}:")
            found = [self.path]
        else:
            found = sorted(self.path.parent.glob(self.path.name)) if self.path.parent.is_dir() else []
            found = [file for file in found if file.suffix in FILE_READERS]
        if not found:
            raise LabError(
                f"source {self.name!r} has no file at {self.path}; expected a file, a folder or a "
                f"pattern of files with "
                f"one of the endings {', '.join(FILE_READERS)}"
            )
        return [str(file) for file in found]

    def identity(self, part: str) -> str:
        """SHA-256 of the file; its place and name are no matter."""
        return sha256_of(Path(part))

    def tables(self, part: str, skipped: Counter[str]) -> Iterator[pa.Table]:
        """The rows of one file."""
        return FILE_READERS[Path(part).suffix](Path(part))


@dataclass(frozen=True, kw_only=True)
class Hub(Source):
    """A data set of the hub, or a folder of the same form, streamed; `dataset` is DATASET[:CONFIG[:SPLIT]].

    `revision` pins a commit; without it the newest is asked for at each build. `limit` takes the first rows of a split.
    """

    dataset: str
    licence: str = "see the data set's card"
    revision: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise LabError(f"limit is {self.limit}, expected at least 1")

    def parts(self) -> list[str]:
        """The splits."""
        return list(self._streams())

    def identity(self, part: str) -> str:
        """The commit on the hub, or the hash of a folder's files."""
        from lab.data.hub import parse_name

        name, config, _ = parse_name(self.dataset)
        if Path(name).is_dir():
            files = sorted(file for file in Path(name).rglob("*") if file.is_file())
            commit = hashlib.sha256("\n".join(sha256_of(file) for file in files).encode()).hexdigest()
        else:
            commit = self.revision or _newest(name)
        return f"{name if not Path(name).is_dir() else ''}:{config}:{part}:{commit}:{self.limit}"

    def tables(self, part: str, skipped: Counter[str]) -> Iterator[pa.Table]:
        """The rows of one split."""
        stream = self._streams()[part]
        chosen = stream if self.limit is None else stream.take(self.limit)
        yield from chosen.with_format("arrow").iter(batch_size=BATCH_ROWS)

    def _streams(self) -> Mapping[str, Any]:
        from lab.data.hub import open_streams, parse_name

        name, config, split = parse_name(self.dataset)
        streams = {str(own): stream for own, stream in open_streams(name, config, self.revision).items()}
        return streams if split is None else {split: choose(streams, split, f"split of data set {name!r}:")}


def _newest(name: str) -> str:
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(name).sha)
    except Exception as error:  # whatever the network raises
        raise LabError(
            f"the newest revision of data set {name!r} cannot be asked for ({error}); pin one with revision"
        ) from error


SOURCES: Mapping[str, type[Source]] = {"files": Files, "hub": Hub}
