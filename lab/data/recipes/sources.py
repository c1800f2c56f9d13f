"""Where a recipe's rows come from, by name: files, data sets of the hub, and the project's own instructions.

A further kind is a `Source` and a line at the foot, a further kind of file a function and a line.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from lab.data.fetch import sha256_of
from lab.data.filters.filtering import LeftOut
from lab.data.hub import HubSplit, SampleReading, open_splits, parse_name
from lab.data.instructions.instructions import NEEDED, in_batches, read_instructions, table_of
from lab.data.parquet import open_parquet
from lab.errors import LabError, choose

BATCH_ROWS = 10_000
Limit = Annotated[int, Field(ge=1)] | None


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """What every kind of source is declared with; `columns` maps our names to the source's, None takes all as they are.

    Its parts are read one beside the other, each as a stream of tables. Every row gets an `id` (the source's own
    column, else made of the source's name and the row's place) and a `source` (its own, else the source's name).
    """

    name: str
    licence: str
    columns: Mapping[str, str] = field(default_factory=dict)

    @abstractmethod
    def parts(self) -> list[str]:
        """Names of what can be read on its own, in order.

        Raises:
            LabError: there is nothing, or it cannot be reached.
        """

    @abstractmethod
    def identity(self, part: str) -> str:
        """What stands for the content of a part in the keys of the cache: its hash, or a pinned version."""

    @abstractmethod
    def tables(self, part: str, left_out: LeftOut) -> Iterator[pa.Table]:
        """The rows of a part as the source has them, a batch at a time; what it leaves out is named in `left_out`."""

    def rows(self, number: int, schema: pa.Schema | None = None, left_out: LeftOut | None = None) -> Iterator[pa.Table]:
        """The rows of part `number`, from 0, with our columns; all of `schema`, else of the first batch.

        Raises:
            LabError: a column that was asked for is not there, or the batches differ.
        """
        part, first = self.parts()[number], 0
        for table in self.tables(part, LeftOut() if left_out is None else left_out):
            where = f"source {self.name!r}: {part} (rows {first} to {first + len(table) - 1})"
            ours = as_schema(self._ours(table, number, first, part), schema, where)
            schema = ours.schema
            yield ours
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


def as_schema(table: pa.Table, schema: pa.Schema | None, what: str) -> pa.Table:
    """Bring rows to the schema of the rows before them, if any; ways to store a text and the columns' order may differ.

    Raises:
        LabError: as `check_schema`.
    """
    found = pa.schema([(field.name, _plain(field.type)) for field in table.schema])
    if schema is None:
        return table.cast(found).replace_schema_metadata(None)
    # A batch that happens to hold nothing but nulls says nothing about its column's type.
    empty = {field.name for field in table.schema if pa.types.is_null(field.type)} & set(schema.names)
    check_schema(pa.schema([(schema if f.name in empty else found).field(f.name) for f in found]), schema, what)
    return table.select(schema.names).cast(schema).replace_schema_metadata(None)


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of values, however they are stored."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    texts = (pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return pa.string() if any(is_text(kind) for is_text in texts) else kind


def check_schema(found: pa.Schema, expected: pa.Schema, what: str) -> None:
    """Refuse other columns than the expected ones; else it would show up hours later, in a step that cannot read them.

    Raises:
        LabError: a column is missing, too much, or of another type; `what` names the rows.
    """
    for name in [*expected.names, *found.names]:
        has, wanted = (schema.field(name).type if name in schema.names else "none" for schema in (found, expected))
        if has != wanted:
            listed = ", ".join(f"{field.name} ({field.type})" for field in expected)
            raise LabError(
                f"{what}: column {name!r} is {has}, expected {wanted} as in those before it; all rows of a recipe have "
                f"the columns {listed}"
            )


def parquet(path: Path) -> Iterator[pa.Table]:
    """Rows of a Parquet file, a batch at a time.

    Raises:
        LabError: the file is damaged or cut short.
    """
    with open_parquet(path) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
            yield pa.Table.from_batches([batch])


def json_lines(path: Path) -> Iterator[pa.Table]:
    """Rows of a JSON object a line; blank lines are passed over.

    Raises:
        LabError: a line is no JSON object, or a column is of more than one type in a batch.
    """
    rows: list[object] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise LabError(f"line {number} of {path} is no JSON: {error}") from error
            if not isinstance(rows[-1], dict):
                raise LabError(f'line {number} of {path} is no JSON object, such as {{"prompt": "..."}}')
            if len(rows) == BATCH_ROWS:
                yield _as_table(rows, path)
                rows = []
    if rows:
        yield _as_table(rows, path)


def _as_table(rows: list[object], path: Path) -> pa.Table:
    try:
        return pa.Table.from_struct_array(pa.array(rows))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise LabError(f"{path}: a column is of more than one type ({error}); expected one type in all rows") from error


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
                f"source {self.name!r} has no file at {self.path}; expected a file, a folder or a pattern of files "
                f"with one of the endings {', '.join(FILE_READERS)}"
            )
        return [str(file) for file in found]

    def identity(self, part: str) -> str:
        """SHA-256 of the file; its place and name are no matter."""
        return sha256_of(Path(part))

    def tables(self, part: str, left_out: LeftOut) -> Iterator[pa.Table]:
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
    limit: Limit = None

    def parts(self) -> list[str]:
        """The splits."""
        return list(self._splits())

    def identity(self, part: str) -> str:
        """The commit on the hub, or the hash of a folder's files."""
        name, config, _ = parse_name(self.dataset)
        if Path(name).is_dir():
            files = sorted(file for file in Path(name).rglob("*") if file.is_file())
            of = hashlib.sha256("\n".join(sha256_of(file) for file in files).encode()).hexdigest()
        else:
            of = f"{name}:{self.revision or _newest(name)}"
        return f"{of}:{config}:{part}:{self.limit}"

    def tables(self, part: str, left_out: LeftOut) -> Iterator[pa.Table]:
        """The rows of one split."""
        stream = self._splits()[part].stream
        chosen = stream if self.limit is None else stream.take(self.limit)
        yield from chosen.with_format("arrow").iter(batch_size=BATCH_ROWS)

    def _splits(self) -> Mapping[str, HubSplit]:
        split, splits = parse_name(self.dataset)[2], open_splits(self.dataset, revision=self.revision)
        return splits if split is None else {split: splits[split]}


def _newest(name: str) -> str:
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(name).sha)
    except Exception as error:  # whatever the network raises
        raise LabError(
            f"the newest revision of data set {name!r} cannot be asked for ({error}); pin one with revision"
        ) from error


@dataclass(frozen=True, kw_only=True)
class Instructions(Source):
    """Prompts and answers by name, such as `chatterbot`, `bigbench:TASK` or `hub:OWNER/NAME`, several joined by `+`.

    `columns` may name `task` and `messages` too: without them rows go together with other people's, and `messages` keep
    the turns of a conversation. The licence is the sources' own. What they leave out (a pair said before, an empty
    answer) the card counts apart.
    """

    corpus: str
    licence: str = ""
    revision: str | None = None
    limit: Limit = None

    def __post_init__(self) -> None:
        # Nothing is fetched, but the names are looked at.
        object.__setattr__(self, "licence", self.licence or self._read().licence)

    def parts(self) -> list[str]:
        """One stream."""
        return [self.corpus]

    def identity(self, part: str) -> str:
        """The packages' hashes and the hub's revision, and the limit."""
        pinned = ", ".join(f"{name} {version}" for name, version in self._read().sources.items())
        return f"{part}: {pinned}" + (f" (first {self.limit})" if self.limit else "")

    def tables(self, part: str, left_out: LeftOut) -> Iterator[pa.Table]:
        """One row an instruction, with the columns that every table of instructions has, or those that are named."""
        reading = self._read()
        for batch in in_batches(reading.samples, BATCH_ROWS):
            yield table_of(batch) if self.columns else table_of(batch).select(NEEDED)
        left_out.update(reading.left_out)

    def _read(self) -> SampleReading:
        return read_instructions(self.corpus, limit=self.limit, revision=self.revision)


FILE_READERS: Mapping[str, Callable[[Path], Iterator[pa.Table]]] = {
    ".parquet": parquet,
    ".jsonl": json_lines,
    ".ndjson": json_lines,
}
SOURCES: Mapping[str, type[Source]] = {"files": Files, "hub": Hub, "instructions": Instructions}
