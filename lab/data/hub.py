"""Data sets of the Hugging Face hub, or folders of the same form, streamed through `datasets`: rows become samples.

Name: `hub:DATASET[:CONFIG[:SPLIT]]`, the split one of the data set's own. What is made of a row is a form
(`lab.data.forms`). Videos mostly lie in archives beside the rows: unpack them into `lab.paths.media_dir()/OWNER/NAME`.
Which state of a data set or a model is read is told before it is loaded: the SHA-256 of all files of a folder, a commit
of a repository, or the pinned SHA-256 of a package. A data set of the hub stays at the commit at which the cache first
read it (`revisions/` in the cache), and `OWNER/NAME@COMMIT` names another one.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lab.data.fetch import files_hashes, packages
from lab.data.filters.filtering import Dropped, LeftOut
from lab.data.forms import FORMS, Form, Row, as_row, as_text
from lab.data.parquet import rows_of
from lab.data.sample import Part, Sample, Video
from lab.errors import LabError, choose, first_line
from lab.paths import cache_dir, media_dir, write_whole

PREFIX = "hub:"
_METADATA = "metadata.jsonl"
_FILE_NAME = "file_name"
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
    """One split of a data set, opened as a stream; or its JSON `files`, which are read here.

    `datasets` refuses a file of JSON for one line that is none, and writes a column anew whose values are of several
    types. In metadata beside media, columns are named after the kind of `media`.
    """

    dataset: str
    split: str
    revision: str
    """A commit, or "folder SHA-256"."""
    info: Any
    stream: Any = None
    files: tuple[str, ...] = ()
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
        try:
            if self.files:
                seen: dict[str, None] = {}
                for row in islice(self._json_rows(), _FIRST_ROWS):
                    with suppress(Dropped):
                        seen |= dict.fromkeys(as_row(row))
                return list(seen)
            return list(self.stream.features or next(iter(self.stream.take(1)), {}))
        except Exception as error:  # `datasets` raises whatever its readers and the network raise
            raise LabError(
                f"data set {self.name} cannot be read: {first_line(error)}; check access and network"
            ) from error

    def rows(self, limit: int | None = None) -> Iterator[Any]:
        """Its rows, at most `limit`, as they are stored, for `as_row`: media are bytes or a path, never decoded."""
        number = 0
        try:
            for row in islice(self._json_rows() if self.files else self._streamed(), limit):
                yield row
                number += 1
        except Exception as error:  # as above
            raise LabError(
                f"data set {self.name} broke off at row {number}: {first_line(error)}; check the network"
            ) from error

    def _streamed(self) -> Iterator[Row | None]:
        # With features, `datasets` wants torchcodec even for audio that it is told not to decode.
        self.stream.info.features = None
        if not self.tables:
            return iter(self.stream)
        return chain.from_iterable(map(rows_of, self.stream.with_format("arrow").iter(_ROWS_AT_ONCE)))

    def _json_rows(self) -> Iterator[Row | bytes]:
        """The lines of the files, and the rows of those that hold one list of all."""
        from datasets import StreamingDownloadManager
        from datasets.utils.file_utils import xopen

        manager = StreamingDownloadManager()
        for file in manager.iter_files(manager.extract(list(self.files))):
            with xopen(file, "rb") as lines:
                for number, line in enumerate(lines):
                    if not number and line.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
                        yield from _one_list(line + lines.read())
                    elif line.strip():
                        yield self._with_media(line, file) if self.media else line

    def _with_media(self, line: bytes, file: str) -> Row | bytes:
        """A line of metadata: files that it names lie beside it."""
        try:
            row = dict(as_row(line))
        except Dropped:
            return line
        for name in [name for name in row if name.endswith(_FILE_NAME)]:
            column, place = name.removesuffix(_FILE_NAME).rstrip("_") or self.media, row.pop(name)
            row[column] = {"path": f"{file.removesuffix(_METADATA)}{place}" if isinstance(place, str) else place}
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


def _one_list(content: bytes) -> list[Any]:
    """The rows of a file that holds one list; its lines where it only looks like one."""
    try:
        return list(json.loads(content))
    except ValueError:
        return content.splitlines()


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
        files, media = _json_files(builder)
        streams = {} if files else builder.as_streaming_dataset()
    except Exception as error:  # `datasets` raises whatever its readers and the network raise
        raise LabError(
            f"data set {dataset!r} cannot be opened: {first_line(error)}; expected a hub name, with access and "
            "network, or a folder"
        ) from error
    opened = partial(HubSplit, dataset, revision=state)
    splits = {own: opened(own, info=builder.info, files=named, media=media) for own, named in files.items()}
    tables = isinstance(builder, datasets.ArrowBasedBuilder)
    for own, stream in streams.items():
        splits[str(own)] = opened(str(own), info=stream.info, stream=stream, tables=tables)
    if split is not None:
        choose(splits, split, f"split of data set {dataset!r}:")
    return splits


def _json_files(builder: Any) -> tuple[dict[str, tuple[str, ...]], str]:
    """The JSON files of each split, and of metadata beside media the kind of these; none where rows stand in others."""
    from datasets.packaged_modules.folder_based_builder.folder_based_builder import FolderBasedBuilder
    from datasets.packaged_modules.json.json import Json

    named = {str(own): tuple(files) for own, files in (builder.config.data_files or {}).items()}
    if isinstance(builder, Json) and builder.config.field is None:
        return named, ""
    found = {own: tuple(file for file in files if file.endswith(f"/{_METADATA}")) for own, files in named.items()}
    if isinstance(builder, FolderBasedBuilder) and all(found.values()):
        return found, builder.BASE_COLUMN_NAME
    return {}, ""


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
