"""Where a recipe's rows come from, by name: files, data sets of the hub, and the project's own instructions.

Section 3 of the paper. A further kind is a `Source` of `lab.data.recipes.source` and a line here.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from lab.data.fetch import sha256_of
from lab.data.recipes.files import BATCH_ROWS, FILE_READERS
from lab.data.recipes.instructions import Instructions
from lab.data.recipes.source import Source
from lab.errors import LabError, choose


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


SOURCES: Mapping[str, type[Source]] = {"files": Files, "hub": Hub, "instructions": Instructions}
