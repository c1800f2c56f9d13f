"""What a model is asked to answer or to translate: lines of a file, a data set of the hub, or a package's trivia.

| data | is |
|---|---|
| `FILE.jsonl`, `FILE.parquet` | a JSON object or a row an item, with the columns below |
| `hub:OWNER/NAME[:CONFIG[:SPLIT]]` | the same rows; for questions those of `lmms-lab/ActivityNetQA` and its like |
| `trivia` | the English trivia of the package chatterbot-corpus |

Questions have `question`, `reference` (or `answer`), and perhaps `image`, `video` and `audio`. Translations have
`source` or `audio`, and `reference` (the hub's copies of CoVoST-2: `translation`, `gt`). Both may have an `id`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lab.data.fetch import fetch, packages, sha256_of
from lab.data.sample import Audio, Image, Part, Sample, Text, Video
from lab.errors import LabError
from lab.evaluation.benchmarks.revisions import data_revision

TRIVIA = "trivia"
HUB = "hub:"
_MEDIA: Mapping[str, tuple[type[Image | Video | Audio], ...]] = {"question": (Image, Video, Audio), "source": (Audio,)}
_REFERENCES = {"question": ("reference", "answer"), "source": ("reference", "translation", "gt")}


def data_key(data: str) -> str:
    """Name the data with their revision, before they are read.

    Raises:
        LabError: no such file, a file of another kind, or a data set that the hub does not know.
    """
    if data == TRIVIA:
        package = packages()["chatterbot-corpus"]
        return f"{package.package} {package.version}, English trivia"
    if data.startswith(HUB):
        return f"{data}@{data_revision(data.removeprefix(HUB).split(':')[0])}"
    path = Path(data)
    if path.suffix not in (".jsonl", ".parquet"):
        raise LabError(f"data {data!r} is none of FILE.jsonl, FILE.parquet, hub:OWNER/NAME[:CONFIG[:SPLIT]], {TRIVIA}")
    try:
        return f"{path.name} {sha256_of(path)[:16]}"
    except OSError as error:
        raise LabError(f"data file {data} cannot be read ({error.strerror or error})") from error


def read_questions(data: str) -> list[Sample]:
    """Read all questions, after their media: found, not opened. Paths in a file are relative to its folder.

    Raises:
        LabError: as `data_key`, no question, a line without question or reference or with a medium that is none (it is
            named), a video of the hub's that is not there, or rows of it that are of another form.
    """
    if data == TRIVIA:
        return list(_trivia())
    if data.startswith(HUB):
        return list(_activitynet(data))
    return _samples(_file_rows(Path(data)), data, Path(data).parent, "question")


def read_translations(data: str) -> list[Sample]:
    """Read all sentences, or speech without text: found, not opened. Paths in a file are relative to its folder.

    Raises:
        LabError: as `data_key`, no line, no such split, a line without its columns or with a sound that is none (it is
            named), or a data set of the hub that breaks off.
    """
    if data.startswith(HUB):
        return _samples(_hub_rows(data), data, Path(), "source")
    return _samples(_file_rows(Path(data)), data, Path(data).parent, "source")


def _samples(rows: Iterable[Mapping[str, Any]], data: str, folder: Path, column: str) -> list[Sample]:
    found = []
    for number, row in enumerate(rows):
        what = f"{'question' if column == 'question' else 'translation'} {number} of {data}"
        content: list[Part] = [
            kind(_source(kind.type, row[kind.type], folder, what)) for kind in _MEDIA[column] if row.get(kind.type)
        ]
        spoken = column == "source" and bool(content)
        text = "" if spoken else str(row.get(column) or "").strip()
        given = [str(row[name]).strip() for name in _REFERENCES[column] if row.get(name) is not None]
        reference = next(filter(None, given), "")
        if not reference or not (text or spoken):
            needed = "'question'" if column == "question" else "'source' or 'audio'"
            names = ", ".join(map(repr, _REFERENCES[column]))
            raise LabError(f"{what} needs {needed}, and one of {names}; it has {', '.join(row)}")
        content += [] if spoken else [Text(text)]
        found.append(Sample(id=str(row.get("id", number)), content=tuple(content), answer=reference, source=data))
    if not found:
        raise LabError(f"data {data!r} hold nothing to ask")
    return found


def _source(kind: str, value: Any, folder: Path, what: str) -> Any:
    """A medium of a row: bytes, a path relative to `folder`, or the hub's form in Parquet, a dict of either."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return value
    if not isinstance(value, str) or not value:
        raise LabError(f"the {kind} of {what} is neither a path nor bytes")
    return folder / value


def _file_rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            yield from pyarrow.parquet.read_table(path).to_pylist()
        except (OSError, pyarrow.ArrowException) as error:
            raise LabError(f"{path} is no Parquet file that can be read ({error})") from error
        return
    try:
        # Not `splitlines`: JSON lets other separators of Unicode stand within a text.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(f"data file {path} cannot be read ({error})") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise LabError(f"line {number} of {path} is no JSON object")
        yield row


def _at_revision(data: str) -> tuple[str, str | None]:
    """The data set of `hub:`, with configuration and split, and its commit; None for a folder."""
    name = data.removeprefix(HUB).split(":")[0]
    return name, None if Path(name).is_dir() else data_revision(name)


def _activitynet(data: str) -> Iterator[Sample]:
    from lab.data.hub import read_samples
    from lab.data.sample import media_file

    _, revision = _at_revision(data)
    reading = read_samples(data, form="activitynet_qa", revision=revision)
    for sample in reading.samples:
        (video,) = (part.source for part in sample.content if isinstance(part, Video))
        if not isinstance(video, Path):
            raise LabError(f"the video of sample {sample.id} of {data} is no file")
        media_file(video)  # says where they have to be unpacked
        yield sample
    if reading.left_out:
        raise LabError(f"rows of {data} do not fit the form activitynet_qa: {dict(reading.left_out.counts())}")


def _hub_rows(data: str) -> Iterator[Mapping[str, Any]]:
    from lab.data.hub import open_split

    _, revision = _at_revision(data)
    yield from open_split(data, revision=revision).rows()


def _trivia() -> Iterator[Sample]:
    import yaml

    path = fetch("chatterbot-corpus") / "chatterbot_corpus/data/english/trivia.yml"
    for number, turns in enumerate(yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]):
        # One entry's dash is lost, which makes it a text and no pair.
        if isinstance(turns, list) and len(turns) == 2:
            asked, answer = (str(turn).strip() for turn in turns)
            yield Sample(id=f"trivia-{number:04d}", content=(Text(asked),), answer=answer, source=TRIVIA)
