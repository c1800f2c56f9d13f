"""Data sets of the Hugging Face hub, or folders of the same form, streamed through `datasets`: rows become samples.

Name: `hub:DATASET[:CONFIG[:SPLIT]]`, the split one of the data set's own. What is made of a row is a form
(`lab.data.forms`). Videos mostly lie in archives beside the rows: unpack them into `lab.paths.media_dir()/OWNER/NAME`.
Which state of a data set or a model is read is told before it is loaded: the SHA-256 of all files of a folder, a commit
of a repository, or the pinned SHA-256 of a package. A data set of the hub stays at the commit at which the cache first
read it (`revisions/` in the cache), and `OWNER/NAME@COMMIT` names another one.
"""

import csv
import hashlib
import io
import json
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lab.data.fetch import files_hashes, packages
from lab.data.filters.filtering import Dropped, LeftOut
from lab.data.forms import FORMS, Form, Row, as_row, as_text
from lab.data.parquet import NOT_UTF8, parquet_rows, rows_of
from lab.data.sample import Part, Sample, Video
from lab.errors import LabError, choose, first_line
from lab.paths import cache_dir, media_dir, write_whole

PREFIX = "hub:"
_FILE_NAME = "file_name"
_UTF8 = "utf-8-sig"
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
# Rows that are looked at for the names of columns.
_FIRST_ROWS = 1000
_ROWS_AT_ONCE = 16
LETTERS = 16
"""Of a state's name, where it stands in a key."""


@dataclass
class SampleReading:
    """A stream of samples; `left_out` names what is none of them, and is whole when the stream has ended.

    `sources` has what pins each source: a package's SHA-256, a data set's revision.
    """

    name: str
    licence: str
    sources: Mapping[str, str]
    samples: Iterator[Sample]
    left_out: LeftOut = field(default_factory=LeftOut)


@dataclass(frozen=True)
class HubSplit:
    """One split of a data set, opened as a stream; or its `files`, whose rows are read here by `reader`.

    `datasets` refuses a file for one line that is none, and writes a column anew whose values are of several types. In
    metadata beside media, columns are named after the kind of `media`.
    """

    dataset: str
    split: str
    revision: str
    """A commit, or "folder SHA-256"."""
    info: Any
    stream: Any = None
    files: tuple[str, ...] = ()
    reader: Callable[[str], Iterator[Any]] | None = None
    media: str = ""
    tables: bool = False
    """Whether the stream is made of tables, of which a row can be broken without the others."""

    @property
    def name(self) -> str:
        """Data set and split."""
        return f"{self.dataset}:{self.split}"

    @property
    def licence(self) -> str:
        """As the data set's card has it."""
        return self.info.license or "see the data set's card"

    def columns(self) -> list[str]:
        """The names of its columns, asked before a row is read."""
        seen: dict[str, None] = {}
        why = "it is empty"
        try:
            if self.files:
                for row in islice(self._own_rows(), _FIRST_ROWS):
                    try:
                        seen |= dict.fromkeys(as_row(row))
                    except Dropped as dropped:
                        why = str(dropped)
                    if seen and self.reader is not _json_rows:
                        break
            else:
                seen = dict.fromkeys(self.stream.features or next(iter(self.stream.take(1)), {}))
        except Exception as error:  # `datasets` raises whatever its readers and the network raise
            raise LabError(
                f"data set {self.name} cannot be read: {first_line(error)}; check access and network"
            ) from error
        if not seen:
            raise LabError(f"data set {self.name} has no row that can be read: {why}")
        return list(seen)

    def rows(self, limit: int | None = None) -> Iterator[Any]:
        """Its rows, at most `limit`, as they are stored, for `as_row`: media are bytes or a path, never decoded."""
        number = 0
        try:
            for row in islice(self._own_rows() if self.files else self._streamed(), limit):
                yield row
                number += 1
        except Exception as error:  # as above
            raise LabError(
                f"data set {self.name} broke off at row {number}: {first_line(error)}; check the network"
            ) from error

    def _streamed(self) -> Iterator[Row | Dropped]:
        # With features, `datasets` wants torchcodec even for audio that it is told not to decode.
        self.stream.info.features = None
        if not self.tables:
            return iter(self.stream)
        return chain.from_iterable(map(rows_of, self.stream.with_format("arrow").iter(_ROWS_AT_ONCE)))

    def _own_rows(self) -> Iterator[Any]:
        assert self.reader is not None
        for file in self.files:
            for row in self.reader(file):
                yield self._with_media(row, file) if self.media else row

    def _with_media(self, given: Any, file: str) -> Any:
        """A row of metadata: files that it names lie beside it."""
        try:
            row = dict(as_row(given))
        except Dropped:
            return given
        for name in [name for name in row if name.endswith(_FILE_NAME)]:
            column, place = name.removesuffix(_FILE_NAME).rstrip("_") or self.media, row.pop(name)
            row[column] = {"path": f"{file.rpartition('/')[0]}/{place}" if isinstance(place, str) else place}
        return row

    def samples(self, form: Form, left_out: LeftOut, *, limit: int | None = None) -> Iterator[Sample]:
        """Make a sample of each row, of `limit` rows at most; one that does not fit the form is named in `left_out`.

        A sample has the row's own id, else its number; of a data set that asks several questions under one id, several
        have it. Samples of one video are one group. Files that rows name lie in the folder, of the hub's data sets in
        their own in `media_dir()`.
        """
        if limit is not None and limit < 1:
            raise LabError(f"limit is {limit} rows, expected at least 1")
        if lacks := form.missing(present := self.columns()):
            told, expected = (", ".join(" or ".join(names) for names in listed) for listed in (lacks, form.required))
            raise LabError(
                f"data set {self.name} has no column {told}; its form needs {expected}, the columns are "
                f"{', '.join(present)}"
            )
        root = Path(self.dataset) if Path(self.dataset).is_dir() else media_dir() / self.dataset

        def samples() -> Iterator[Sample]:
            for number, row in enumerate(self.rows(limit)):
                key = f"{self.split}-{number:08d}"
                try:
                    told = as_row(row)
                    own_id = next((told[column] for column in form.ids if told.get(column) is not None), None)
                    key = as_text(own_id, "id") or key
                    made = form.read(told, root)
                except Dropped as error:
                    left_out.add(str(error), key)
                except Exception:  # whatever a row may hold
                    left_out.add("a row of another shape", key)
                else:
                    group = next(filter(None, map(_video_name, made.content)), key)
                    yield replace(made, id=key, source=f"{PREFIX}{self.name}", group=group)

        return samples()


def _opened(file: str) -> Iterator[Any]:
    """A file here or on the hub, unpacked where it is an archive of several."""
    from datasets import StreamingDownloadManager
    from datasets.utils.file_utils import xopen

    manager = StreamingDownloadManager()
    for one in manager.iter_files(manager.extract([file])):
        with xopen(one, "rb") as lines:
            yield lines


def _json_rows(file: str) -> Iterator[Any]:
    """The lines of a file, or the rows of one that holds one list of all."""
    for lines in _opened(file):
        for number, line in enumerate(lines):
            if not number and line.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
                yield from _one_list(line + lines.read())
            elif line.strip():
                yield line


def _one_list(content: bytes) -> list[Any]:
    """The rows of a file that holds one list; its lines where it only looks like one."""
    try:
        return list(json.loads(content))
    except ValueError:
        return content.splitlines()


def _csv_rows(file: str, *, delimiter: str, encoding: str) -> Iterator[Row | Dropped]:
    """The rows of a file whose first line names the columns; all is text, nothing is null."""
    csv.field_size_limit(sys.maxsize)
    for lines in _opened(file):
        records = _records(io.TextIOWrapper(lines, encoding, "surrogateescape", newline=""), delimiter)
        names = next(records, None)
        if not isinstance(names, list) or _NO_TEXT.search("".join(names)):
            yield Dropped(f"file without a first line of UTF-8 that names its columns ({file})")
            continue
        for fields in records:
            if isinstance(fields, Dropped):
                yield fields
            elif _NO_TEXT.search("".join(fields)):
                yield Dropped(NOT_UTF8)
            elif len(fields) != len(names):
                yield Dropped("line of another number of fields than the first")
            else:
                yield {name: field or None for name, field in zip(names, fields, strict=True)}


def _records(lines: Iterator[str], delimiter: str) -> Iterator[list[str] | Dropped]:
    """The fields of each record; a quote that is not closed costs its own line, and the next begins another record."""
    again: deque[str] = deque()
    while True:
        taken: list[str] = []

        def following(taken: list[str] = taken) -> Iterator[str]:
            while line := again.popleft() if again else next(lines, ""):
                taken.append(line)
                yield line

        try:
            if fields := next(csv.reader(following(), delimiter=delimiter, strict=True), None):
                yield fields
        except csv.Error:
            again.extendleft(reversed(taken[1:]))
            yield Dropped("line with a quote that is not closed, or not where its field begins and ends")
        if not taken:
            return


def parse_name(name: str) -> tuple[str, str | None, str | None]:
    """Cut `[hub:]DATASET[:CONFIG[:SPLIT]]` into its three parts."""
    parts = name.removeprefix(PREFIX).split(":")
    if not parts[0] or len(parts) > 3:
        raise LabError(f"{name!r} is not of the form {PREFIX}DATASET[:CONFIG[:SPLIT]]")
    dataset, config, split = (*parts, None, None)[:3]
    return str(dataset), config or None, split or None


def open_splits(name: str, *, revision: str | None = None) -> dict[str, HubSplit]:
    """Open every split of a data set, whichever is named, at a `revision` of the hub (None: as `pinned_revision`).

    Raises:
        LabError: a name of another form, no such data set, no access, no network, or a named split that is not there.
    """
    # Two seconds of import that only the hub needs.
    import datasets

    named, config, split = parse_name(name)
    state = revision or pinned_revision(named)
    dataset, commit = (named, None) if Path(named).is_dir() else (named.partition("@")[0], state)
    try:
        builder = datasets.load_dataset_builder(dataset, config, revision=commit)
        ours = _own_files(builder, is_folder=commit is None)
        streams = {} if ours else builder.as_streaming_dataset()
    except Exception as error:  # `datasets` raises whatever its readers and the network raise
        raise LabError(
            f"data set {dataset!r} cannot be opened: {first_line(error)}; expected a hub name, with access and "
            "network, or a folder"
        ) from error
    opened = partial(HubSplit, dataset, revision=state)
    splits = {own: opened(own, info=builder.info, **read) for own, read in ours.items()}
    tables = isinstance(builder, datasets.ArrowBasedBuilder)
    for own, stream in streams.items():
        splits[str(own)] = opened(str(own), info=stream.info, stream=stream, tables=tables)
    if split is not None:
        choose(splits, split, f"split of data set {dataset!r}:")
    return splits


def _own_files(builder: Any, *, is_folder: bool) -> dict[str, dict[str, Any]]:
    """The files of each split that are read here, and how (fields of `HubSplit`); none where rows stand in others.

    A Parquet file of the hub is left to `datasets`: what is damaged of it is the network's.
    """
    from datasets.packaged_modules.csv.csv import Csv, CsvConfig
    from datasets.packaged_modules.folder_based_builder.folder_based_builder import FolderBasedBuilder
    from datasets.packaged_modules.json.json import Json
    from datasets.packaged_modules.parquet.parquet import Parquet

    config = builder.config
    found: dict[str, Callable[[str], Iterator[Any]]] = {}
    if isinstance(builder, Json) and config.field is None:
        found = {"": _json_rows}
    elif isinstance(builder, Csv) and len(config.sep or "") == 1:
        usual = CsvConfig(sep=config.sep, encoding=config.encoding)
        if config.pd_read_csv_kwargs == usual.pd_read_csv_kwargs:
            found = {"": partial(_csv_rows, delimiter=config.sep, encoding=config.encoding or _UTF8)}
    elif isinstance(builder, Parquet) and is_folder and config.columns is None and config.filters is None:
        found = {".parquet": parquet_rows}
    elif isinstance(builder, FolderBasedBuilder):
        found = {"/metadata.jsonl": _json_rows, "/metadata.csv": partial(_csv_rows, delimiter=",", encoding=_UTF8)}
        found |= {"/metadata.parquet": parquet_rows} if is_folder else {}
    named = {str(own): tuple(files) for own, files in (config.data_files or {}).items()}
    media = getattr(builder, "BASE_COLUMN_NAME", "")
    for ending, reader in found.items():
        ours = {own: tuple(file for file in files if file.endswith(ending)) for own, files in named.items()}
        if all(ours.values()) and (media or ours == named):
            return {own: {"files": files, "reader": reader, "media": media} for own, files in ours.items()}
    return {}


def open_split(name: str, *, revision: str | None = None, default: str | None = None) -> HubSplit:
    """Open the split that is named; where none is, the `default`, or the only one that there is."""
    dataset, _, split = parse_name(name)
    splits = open_splits(name, revision=revision)
    if split is None and len(splits) == 1:
        split = next(iter(splits))
    split = split or default
    if split is None:
        raise LabError(f"data set {dataset!r} has several splits; name one of: {', '.join(splits)}")
    return choose(splits, split, f"split of data set {dataset!r}:")


def read_samples(name: str, *, form: str, revision: str | None = None, limit: int | None = None) -> SampleReading:
    """Stream one split of a data set, by the name of its form."""
    chosen = choose(FORMS, form, "form of a data set")
    opened, left_out = open_split(name, revision=revision), LeftOut()
    rows = opened.samples(chosen, left_out, limit=limit)
    samples = (replace(sample, task=form, source=f"{form}@{name}") for sample in rows)
    return SampleReading(name, opened.licence, {name: opened.revision}, samples, left_out)


def _video_name(part: Part) -> str:
    return str(part.source) if isinstance(part, Video) and not isinstance(part.source, bytes) else ""


def weights_key(name: str, known: Mapping[str, Sequence[str]]) -> str:
    """Tell which weights `name` stands for: one of `known` (our names -> their packages), a folder, or a hub's name.

    A hub's name stands for its newest commit, or without network for the commit in the hub's cache.

    Raises:
        LabError: it is none of these; the message lists them.
    """
    if name in known:
        return f"{name}@{_hashed([packages()[package].sha256 for package in known[name]])}"
    if (folder := Path(name)).is_dir():
        if not any(folder.rglob("config.json")):
            raise LabError(f"model folder {name} has no config.json; expected one that transformers saved")
        return f"folder@{files_sha256(folder)}"
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise LabError(
            f"unknown model {name!r}; expected one of {', '.join(sorted(known))}, a local folder, or OWNER/NAME on the "
            "Hugging Face hub"
        )
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        return f"{name}@{str(HfApi().model_info(name, timeout=20).sha)[:LETTERS]}"
    except Exception as error:  # the hub's client raises whatever its network raises
        cached = try_to_load_from_cache(name, "config.json")
        if isinstance(cached, str):
            return f"{name}@{Path(cached).parent.name[:LETTERS]}"  # .../snapshots/COMMIT/config.json
        raise _unreachable("model", name, error) from error


def data_revision(name: str) -> str:
    """The newest commit of a hub's data set (of a branch of it: NAME@BRANCH), or "folder SHA-256" of a folder.

    Raises:
        LabError: neither is there.
    """
    if Path(name).is_dir():
        return f"folder {files_sha256(Path(name))}"
    from huggingface_hub import HfApi

    repository, _, branch = name.partition("@")
    try:
        return str(HfApi().dataset_info(repository, revision=branch or None, timeout=20).sha)
    except Exception as error:  # the hub's client raises whatever its network raises
        raise _unreachable("data set", name, error) from error


def pin(name: str) -> Path:
    """The file in the cache with the commit at which a data set of the hub is read; remove it to take the newest."""
    return cache_dir() / "revisions" / f"{quote(name, safe='')}.txt"


def pinned_revision(name: str) -> str:
    """As `data_revision`, but of a hub's data set the commit that was its newest when this cache first read it.

    So a study's preparation, its cells and its status speak of the same rows, with or without network.
    """
    if Path(name).is_dir():
        return data_revision(name)
    if not pin(name).exists():
        write_whole(pin(name), data_revision(name))
    return pin(name).read_text(encoding="utf-8")


def data_state(datasets: Sequence[str]) -> str:
    """The data sets with their revisions, in words."""
    return "; ".join(f"{name} @ {data_revision(name)}" for name in datasets)


def files_sha256(folder: Path) -> str:
    """A hash of all files of a folder, by their names in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return _hashed(
        [f"{path.relative_to(folder).as_posix()} {own}" for path, own in zip(files, files_hashes(files), strict=True)]
    )


def _hashed(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:LETTERS]


def _unreachable(what: str, name: str, error: Exception) -> LabError:
    return LabError(
        f"{what} {name!r} cannot be had from the Hugging Face hub: {first_line(error)}; expected its name, with access "
        "and network, or a local folder of the same form"
    )
