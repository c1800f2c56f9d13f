"""Image-text and video-text data of the Hugging Face hub, or folders of the same form, streamed through `datasets`.

Name: `hub:OWNER/NAME[:CONFIG[:SPLIT]]`, with one of `lab.data.vision_forms.FORMS`; for the rungs above `cpu`. The hub's
copies change: where columns have other names, map the form's name to the data set's with `columns`. Videos mostly
lie in archives beside the rows: unpack them, and give their folder as `root` (the studies look in
`lab.paths.media_dir()/OWNER/NAME`).
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.data.hub import open_streams, parse_name
from lab.data.vision_forms import FORMS, Form, Media, RowError, Sample
from lab.errors import LabError, choose
from lab.paths import media_dir

PREFIX = "hub:"
ID_COLUMNS = ("id", "question_id", "video_id", "videoid")


@dataclass
class SampleReading:
    """A stream of samples; `skipped` counts the rows left out, by reason, and is whole when the stream has ended."""

    source: str
    licence: str
    samples: Iterator[Sample]
    skipped: Counter[str] = field(default_factory=Counter)


def read_samples(
    name: str,
    *,
    form: str,
    first: int = 0,
    limit: int | None = None,
    root: Path | None = None,
    columns: Mapping[str, str] | None = None,
    revision: str | None = None,
) -> SampleReading:
    """Stream one split of a data set, from row `first` (a run that resumes), at most `limit` rows.

    The split may be left out of the name where there is only one. A row that does not fit the form is counted in
    `skipped`, never guessed.

    Raises:
        LabError: unknown form, a name of another form, a data set that cannot be opened, no such split, columns that
            the form needs and that are not there; while it is read, also a network that fails.
    """
    chosen = choose(FORMS, form, "form of image-text and video-text data")
    if first < 0 or (limit is not None and limit < 1):
        raise LabError(f"first row and limit are {first} and {limit}, expected at least 0 and 1")
    if not name.startswith(PREFIX):
        raise LabError(
            f"data set {name!r} does not begin with {PREFIX!r}, expected {PREFIX}OWNER/NAME[:CONFIG[:SPLIT]]"
        )
    dataset, config, split = parse_name(name.removeprefix(PREFIX))
    splits = open_streams(dataset, config, revision)
    if split is None and len(splits) == 1:
        split = str(next(iter(splits)))
    if split is None or split not in splits:
        raise LabError(f"data set {dataset!r} has no split {split!r}; choose one of: {', '.join(map(str, splits))}")
    stream = splits[split]
    what = f"data set {dataset}:{split}"
    renamed = _checked_columns(what, stream, form, chosen, columns or {})
    # Without features the rows come as they are stored: bytes or a path, never decoded.
    stream.info.features = None
    rows = stream.skip(first) if first else stream
    rows = rows if limit is None else rows.take(limit)
    skipped: Counter[str] = Counter()
    samples = _samples(what, split, rows, first, chosen, root, renamed, skipped)
    return SampleReading(name, stream.info.license or "see the data set's card", samples, skipped)


def media_file(media: Media, *, folder: Path) -> Path:
    """Return a path to an image or video; bytes and what a web address leads to are kept in `folder`, once.

    Raises:
        LabError: there is no such file, or the address cannot be read.
    """
    if isinstance(media, Path):
        if not media.is_file():
            raise LabError(
                f"{media} is not there; expected the unpacked files of the data set in its folder under {media_dir()} "
                "(OMNI_LAB_MEDIA sets that one)"
            )
        return media
    key = media if isinstance(media, bytes) else media.encode()
    suffix = "" if isinstance(media, bytes) else Path(media.partition("?")[0]).suffix
    path = folder / f"{hashlib.sha256(key).hexdigest()}{suffix}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_bytes(media if isinstance(media, bytes) else _downloaded(media))
        part.rename(path)
    return path


def _downloaded(address: str) -> bytes:
    from datasets.utils.file_utils import xopen

    try:
        with xopen(address, "rb") as file:
            return bytes(file.read())
    except Exception as error:  # whatever the network raises
        raise LabError(f"{address} cannot be read: {_first_line(error)}; check the network and the address") from error


def _checked_columns(what: str, stream: Any, name: str, form: Form, columns: Mapping[str, str]) -> dict[str, str]:
    """Map the form's columns to the data set's; those that are not named keep their names."""
    known = [column for names in form.required for column in names] + list(form.optional)
    for column in columns:
        if column not in known:
            raise LabError(f"form {name!r} has no column {column!r}; choose one of: {', '.join(known)}")
    try:
        present = list(stream.features or next(iter(stream.take(1)), {}))
    except Exception as error:  # `datasets` raises whatever its readers and the network raise
        raise LabError(f"{what} cannot be read: {_first_line(error)}; check access and network") from error
    renamed = {column: columns.get(column, column) for column in known}
    missing = form.missing([column for column in known if renamed[column] in present])
    if missing:
        expected = ", ".join(" or ".join(names) for names in form.required)
        raise LabError(
            f"{what} is not of the form {name!r}: it has no column {', '.join(missing)}; the form needs {expected} and "
            f"may have {', '.join(form.optional)}, the columns are {', '.join(present)}: name them with columns"
        )
    return renamed


def _samples(
    what: str,
    split: str,
    rows: Any,
    first: int,
    form: Form,
    root: Path | None,
    renamed: Mapping[str, str],
    skipped: Counter[str],
) -> Iterator[Sample]:
    number, stream = first, iter(rows)
    while True:
        try:
            row = next(stream)
        except StopIteration:
            return
        except Exception as error:  # `datasets` raises whatever its readers and the network raise
            raise LabError(
                f"{what} broke off at row {number}: {_first_line(error)}; "
                f"check the network, and go on with first={number}"
            ) from error
        row = {**row, **{column: row[own] for column, own in renamed.items() if own in row}}
        own_id = next((row[column] for column in ID_COLUMNS if row.get(column) is not None), None)
        try:
            yield form.sample(row, f"{split}-{number:08d}" if own_id is None else str(own_id), root)
        except RowError as error:
            skipped[str(error)] += 1
        except (AttributeError, IndexError, KeyError, TypeError):
            skipped["a row of another shape"] += 1
        number += 1


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
