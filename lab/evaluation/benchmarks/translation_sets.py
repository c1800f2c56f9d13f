"""Sentences or speech with a reference translation: a file's, or the hub's copies of CoVoST-2 (section 4, Table 7)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.data.hub import open_streams, parse_name
from lab.errors import LabError
from lab.evaluation.benchmarks.conversations import Medium
from lab.evaluation.benchmarks.questions import HUB, TRIVIA, data_key, medium_of, read_rows

# Names of the reference's column, ours and those of the copies on the hub.
_REFERENCES = ("reference", "translation", "gt")


@dataclass(frozen=True, kw_only=True)
class Translated:
    """A sentence, or speech in `media`, and how a person translated it."""

    id: str
    source: str
    reference: str
    media: tuple[Medium, ...] = ()


def translations_key(data: str) -> str:
    """Name the data with their revision, before they are read.

    Raises:
        LabError: as `data_key`.
    """
    if data == TRIVIA:
        raise LabError(f"data {data!r} are no translations")
    return data_key(data)


def read_translations(data: str) -> list[Translated]:
    """Read all; sounds in files are found, not opened. Paths in a file are relative to its folder.

    Raises:
        LabError: as `translations_key`, no line, no such split, a line without its columns or with a sound that is none
            (it is named), or a data set of the hub that breaks off.
    """
    key = translations_key(data)
    if data.startswith(HUB):
        rows, folder = _hub_rows(data, key.rpartition("@")[2]), Path()
    else:
        rows, folder = iter(read_rows(Path(data))), Path(data).parent
    found = [_translated(row, number, data, folder) for number, row in enumerate(rows)]
    if not found:
        raise LabError(f"data {data!r} hold no translation")
    return found


def _translated(row: Mapping[str, Any], number: int, data: str, folder: Path) -> Translated:
    reference = next((str(row[name]).strip() for name in _REFERENCES if row.get(name)), "")
    sound = row.get("audio")
    source = "" if sound else str(row.get("source") or "").strip()
    if not reference or not (source or sound):
        raise LabError(
            f"translation {number} of {data} needs 'source' or 'audio', and one of "
            f"{', '.join(map(repr, _REFERENCES))}; it has {', '.join(row)}"
        )
    media = (medium_of("audio", sound, folder, f"translation {number} of {data}"),) if sound else ()
    return Translated(id=str(row.get("id", number)), source=source, reference=reference, media=media)


def _hub_rows(data: str, revision: str) -> Iterator[dict[str, Any]]:
    name, config, split = parse_name(data.removeprefix(HUB))
    streams = open_streams(name, config, None if Path(name).is_dir() else revision)
    if split is None and len(streams) == 1:
        split = str(next(iter(streams)))
    if split is None or split not in streams:
        raise LabError(f"data set {name!r} has no split {split!r}; choose one of: {', '.join(map(str, streams))}")
    stream = streams[split]
    # Without features the rows come as they are stored: sound as bytes, never decoded.
    stream.info.features = None
    try:
        yield from stream
    except Exception as error:  # `datasets` raises whatever its readers and the network raise
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise LabError(f"data set {name}:{split} broke off ({why}); check access and network") from error
