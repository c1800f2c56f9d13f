"""Where a recipe's rows come from, by name: files, data sets of the hub, and the project's own instructions.

A further kind is a `Source` of `lab.data.recipes.source` and a line here, a further kind of file a function and one.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa

from lab.data.fetch import sha256_of
from lab.data.hub import HubSplit, SampleReading, open_splits, parse_name
from lab.data.instructions.instructions import NEEDED, read_instructions, table_of
from lab.data.parquet import open_parquet
from lab.data.recipes.source import Source
from lab.errors import LabError, choose

BATCH_ROWS = 10_000


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
        return list(self._splits())

    def identity(self, part: str) -> str:
        """The commit on the hub, or the hash of a folder's files."""
        name, config, _ = parse_name(self.dataset)
        if Path(name).is_dir():
            files = sorted(file for file in Path(name).rglob("*") if file.is_file())
            commit = hashlib.sha256("\n".join(sha256_of(file) for file in files).encode()).hexdigest()
        else:
            commit = self.revision or _newest(name)
        return f"{name if not Path(name).is_dir() else ''}:{config}:{part}:{commit}:{self.limit}"

    def tables(self, part: str, skipped: Counter[str]) -> Iterator[pa.Table]:
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
    limit: int | None = None

    def __post_init__(self) -> None:
        self._read()  # nothing is fetched, but the names and the limit are looked at

    def parts(self) -> list[str]:
        """One stream."""
        return [self.corpus]

    def identity(self, part: str) -> str:
        """The packages' hashes and the hub's revision, and the limit."""
        pinned = ", ".join(f"{name} {version}" for name, version in self._read().sources.items())
        return f"{part}: {pinned}" + (f" (first {self.limit})" if self.limit else "")

    def told_licence(self) -> str:
        """The sources' own."""
        return self.licence or self._read().licence

    def tables(self, part: str, skipped: Counter[str]) -> Iterator[pa.Table]:
        """One row an instruction, with the columns that every table of instructions has, or those that are named."""
        reading = self._read()
        while batch := list(islice(reading.samples, BATCH_ROWS)):
            yield table_of(batch) if self.columns else table_of(batch).select(NEEDED)
        skipped.update(reading.left_out.counts())

    def _read(self) -> SampleReading:
        return read_instructions(self.corpus, limit=self.limit, revision=self.revision)


FILE_READERS: Mapping[str, Callable[[Path], Iterator[pa.Table]]] = {
    ".parquet": parquet,
    ".jsonl": json_lines,
    ".ndjson": json_lines,
}
SOURCES: Mapping[str, type[Source]] = {"files": Files, "hub": Hub, "instructions": Instructions}
