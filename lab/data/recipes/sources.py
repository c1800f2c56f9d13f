"""Where a recipe's rows come from, by name: files of one's own, instructions, and samples of any media.

All rows have the columns `lab.data.instructions.instructions.COLUMNS`, so that what is built reads as samples again. A
further kind of source is a class and a line at the foot, a further kind of file a function and a line.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from lab.data.fetch import sha256_of
from lab.data.filters.filtering import Dropped, LeftOut
from lab.data.filters.step import one_of
from lab.data.forms import as_row, as_text, is_null
from lab.data.hub import SampleReading
from lab.data.instructions.instructions import COLUMNS, in_batches, media_of, read_instructions, table_of
from lab.data.parquet import text_batches
from lab.data.sample import Sample
from lab.data.sources import SAMPLES_VERSION, check_source, open_samples, sources_sha256
from lab.data.splits import Split
from lab.data.video import PAPER_SIGHT, Sight
from lab.errors import LabError, TryAgain, choose

# Files have other things under these names too: they are read where `columns` names them.
_NAMED = ("choices", "split")
Column = Annotated[str, one_of(dict.fromkeys(COLUMNS.names), "column of a recipe's rows")]


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """What every kind of source is declared with; its parts are read one beside the other."""

    name: str
    licence: str

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
    def tables(self, part: str, left_out: LeftOut, most: int) -> Iterator[pa.Table]:
        """The rows of a part, at most so many at a time; what the source leaves out is named in `left_out`.

        Raises:
            LabError: it is damaged, or has not what a row needs.
        """


def parquet(path: Path, most: int, types: Mapping[str, pa.DataType], left_out: LeftOut) -> Iterator[pa.Table]:
    """Rows of a Parquet file, at most so many at a time; what is no finite number is null."""
    for table in text_batches(path, most, left_out):
        for place, name in enumerate(table.column_names):
            column = table[name]
            if name in types and pa.types.is_floating(column.type):
                table = table.set_column(place, name, pc.if_else(pc.is_finite(column), column, None))
        yield table


def json_lines(path: Path, most: int, types: Mapping[str, pa.DataType], left_out: LeftOut) -> Iterator[pa.Table]:
    """Rows of a JSON object a line; blank lines are passed over, one that is none or has no text is left out."""
    seen: dict[str, pa.DataType] = {}  # by all rows so far: those of a batch may lack what others have
    with path.open("rb") as file:
        for lines in in_batches(((number, line) for number, line in enumerate(file, 1) if line.strip()), most):
            rows: list[dict[str, Any]] = []
            for number, line in lines:
                try:
                    rows.append({name: _typed(value, types.get(name), name) for name, value in as_row(line).items()})
                except Dropped as dropped:
                    left_out.add(str(dropped), f"{path}, line {number}")
            if rows:
                seen |= {name: types.get(name, pa.null()) for row in rows for name in row}
                yield pa.Table.from_pylist(rows, pa.schema(seen))


def _typed(value: Any, kind: pa.DataType | None, name: str) -> Any:
    """A value of a JSON object as its column has it: text, turns, or nothing of a column that is left."""
    if kind is None or is_null(value):
        return None
    if kind == pa.string():
        return as_text(value, name)
    if kind == pa.list_(pa.string()) and isinstance(value, list):
        return [as_text(one, name) for one in value]
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) for turn in value):
        raise Dropped(f"{name} that are no turns")
    return [
        {key: as_text(turn.get(key), "turn") for key in ("role", "content", *({"type"} & turn.keys()))}
        for turn in value
    ]


@dataclass(frozen=True, kw_only=True)
class Files(Source):
    """Parquet and JSON lines: a file, a folder (all files in it), or a pattern such as `chats/*.parquet`.

    `columns` has the files' names of our columns. A prompt and an answer have to be there; a row without an id gets one
    of the source's name and its place, one without a source that name, one without a group is its own. Further columns
    are left. The licence has to be told: nothing in such a file does. A row whose text is none is left out and counted.
    """

    path: Path
    columns: Mapping[Column, str] = field(default_factory=dict)

    def parts(self) -> list[str]:
        """The files, by name."""
        if self.path.is_dir():
            found = sorted(file for file in self.path.rglob("*") if file.suffix in FILE_READERS)
        elif self.path.exists():
            choose(FILE_READERS, self.path.suffix, f"kind of file of source {self.name!r}:")
            found = [self.path]
        else:
            found = sorted(file for file in self.path.parent.glob(self.path.name) if file.suffix in FILE_READERS)
        if not found:
            raise LabError(
                f"source {self.name!r} has no file at {self.path}; expected a file, a folder or a pattern of files "
                f"with one of the endings {', '.join(FILE_READERS)}"
            )
        return [str(file) for file in found]

    def identity(self, part: str) -> str:
        """SHA-256 of the file, and its names of our columns; its place and name are no matter."""
        return " ".join([sha256_of(Path(part)), *(f"{ours}={theirs}" for ours, theirs in self.columns.items())])

    def tables(self, part: str, left_out: LeftOut, most: int) -> Iterator[pa.Table]:
        """The rows of one file."""
        first = 0
        columns = zip(COLUMNS.names, COLUMNS.types, strict=True)
        types = {theirs: kind for name, kind in columns if (theirs := self._theirs(name))}
        for table in FILE_READERS[Path(part).suffix](Path(part), most, types, left_out):
            yield self._with_our_columns(table, part, first)
            first += table.num_rows

    def _theirs(self, name: str) -> str:
        return self.columns.get(name, "" if name in _NAMED else name)

    def _with_our_columns(self, table: pa.Table, part: str, first: int) -> pa.Table:
        columns = {}
        for name, kind in zip(COLUMNS.names, COLUMNS.types, strict=True):
            theirs = self._theirs(name)
            there = theirs in table.column_names
            if not there and (name in self.columns or name in ("prompt", "answer")):
                raise LabError(
                    f"source {self.name!r}: {part} has no column {theirs!r} for {name!r}; its columns are "
                    f"{', '.join(table.column_names)}: name it with columns"
                )
            try:
                columns[name] = table[theirs].cast(kind) if there else pa.nulls(table.num_rows, kind)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise LabError(
                    f"source {self.name!r}: column {theirs!r} of {part} is {table[theirs].type}, expected {kind}"
                ) from error
        start = f"{self.name}-{self.parts().index(part)}"
        made = pa.array([f"{start}-{row:09d}" for row in range(first, first + table.num_rows)])
        columns["id"] = pc.coalesce(columns["id"], made)
        columns["source"] = pc.coalesce(columns["source"], self.name)
        columns["group"] = pc.coalesce(columns["group"], columns["id"])
        rows = pa.table(columns, schema=COLUMNS)
        if any(media_of(rows)):
            raise LabError(
                f"source {self.name!r}: {part} has messages with media; read what was built as a source of samples, "
                'as in data = "built:FOLDER"'
            )
        return rows


@dataclass(frozen=True, kw_only=True)
class Instructions(Source):
    """Prompts and answers by name, such as `chatterbot`, `bigbench:TASK` or `hub:OWNER/NAME`, several joined by `+`.

    `revision` names a commit of the hub; without it that is read at which the cache first read the data set. `limit`
    takes the first rows.
    The licence is the sources' own. What they leave out (a pair said before, an empty answer) the card counts apart.
    """

    corpus: str
    licence: str = ""
    revision: str | None = None
    limit: Annotated[int, Field(ge=1)] | None = None

    def __post_init__(self) -> None:
        # Nothing is fetched, but the names are looked at.
        object.__setattr__(self, "licence", self.licence or self._read().licence)

    def parts(self) -> list[str]:
        """One stream."""
        return [self.corpus]

    def identity(self, part: str) -> str:
        """The packages' hashes and the hub's revisions, and the limit."""
        pinned = [f"{name} {version}" for name, version in self._read().sources.items()]
        return f"{part}: {', '.join(pinned)}" + (f" (first {self.limit})" if self.limit else "")

    def tables(self, part: str, left_out: LeftOut, most: int) -> Iterator[pa.Table]:
        """One row an instruction."""
        reading = self._read()
        yield from map(table_of, in_batches(reading.samples, most))
        left_out.update(reading.left_out)

    def _read(self) -> SampleReading:
        return read_instructions(self.corpus, limit=self.limit, revision=self.revision)


@dataclass(frozen=True, kw_only=True)
class Samples(Source):
    """The first `count` samples of one side of what `open_samples` opens, as in `data = "spoken:espeak:stills"`.

    Media that are drawn become files, as a `Sight` of these numbers sees them. An id begins with the source's name, as
    other sources may show the same things; groups stay, so that these are known to be the same. A sample whose media
    cannot be had is left out and counted. The licence has to be told.
    """

    data: str
    count: Annotated[int, Field(ge=1)]
    split: Split = "train"
    frame_size: int = PAPER_SIGHT.frame_size
    frames_per_second: float = PAPER_SIGHT.frames_per_second
    max_frames: Annotated[int, Field(ge=1)] = PAPER_SIGHT.max_frames

    def __post_init__(self) -> None:
        check_source(self.data)
        self._sight()

    def _sight(self) -> Sight:
        return Sight(frame_size=self.frame_size, frames_per_second=self.frames_per_second, max_frames=self.max_frames)

    def parts(self) -> list[str]:
        """One stream."""
        return [self.data]

    def identity(self, part: str) -> str:
        """What the samples are made of, and which and how much of them is taken."""
        made_of = f"{SAMPLES_VERSION} {sources_sha256(part)}"
        return f"{part}: {made_of} (first {self.count} of {self.split}, as {self.name}, {self._sight()})"

    def tables(self, part: str, left_out: LeftOut, most: int) -> Iterator[pa.Table]:
        """One row a sample."""
        samples, missing = open_samples(part, self.split, self.count)
        left_out.update(missing)
        for batch in in_batches(self._rows(samples, left_out), most):
            yield pa.concat_tables(batch).combine_chunks()

    def _rows(self, samples: Sequence[Sample], left_out: LeftOut) -> Iterator[pa.Table]:
        lacking = 0
        for one in samples:
            try:
                yield table_of([replace(one, id=f"{self.name}-{one.id}")], self._sight(), split=self.split)
            except TryAgain:
                raise
            except LabError:
                left_out.add("media that cannot be had", one.id)
                if (lacking := lacking + 1) == len(samples):
                    raise


FILE_READERS: Mapping[str, Callable[[Path, int, Mapping[str, pa.DataType], LeftOut], Iterator[pa.Table]]] = {
    ".parquet": parquet,
    ".jsonl": json_lines,
    ".ndjson": json_lines,
}
SOURCES: Mapping[str, type[Source]] = {"files": Files, "instructions": Instructions, "samples": Samples}
