"""Open questions with a reference answer, from a file, the hub's video question answering, or a package's trivia.

| data | is |
|---|---|
| `FILE.jsonl`, `FILE.parquet` | lines of `question`, `reference` (or `answer`); perhaps `id`, media |
| `hub:OWNER/NAME[:CONFIG[:SPLIT]]` | the form of `lmms-lab/ActivityNetQA`: `video_name`, `question`, `answer` |
| `trivia` | the English trivia of the package chatterbot-corpus |
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.data.fetch import fetch, packages, sha256_of
from lab.errors import LabError
from lab.evaluation.benchmarks.conversations import MediaKind, Medium
from lab.evaluation.benchmarks.data_revisions import data_revision
from lab.paths import media_dir

TRIVIA = "trivia"
HUB = "hub:"
_MEDIA: tuple[MediaKind, ...] = ("image", "video", "audio")
_REFERENCES = ("reference", "answer")


@dataclass(frozen=True, kw_only=True)
class Question:
    """An open question; its media stand before it."""

    id: str
    question: str
    reference: str
    media: tuple[Medium, ...] = ()


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


def read_questions(data: str) -> list[Question]:
    """Read all questions; media are found, not opened. Paths in a file are relative to its folder.

    Raises:
        LabError: as `data_key`, no question, a line without question or reference or with a medium that is none (it is
            named), a video of the hub's that is not there, or rows of it that are of another form.
    """
    key = data_key(data)
    if data == TRIVIA:
        found = list(_trivia())
    elif data.startswith(HUB):
        found = list(_hub(data, key.rpartition("@")[2]))
    else:
        rows = read_rows(Path(data))
        found = [_question(row, number, Path(data)) for number, row in enumerate(rows)]
    if not found:
        raise LabError(f"data {data!r} hold no question")
    return found


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a JSONL or Parquet file.

    Raises:
        LabError: a line that is no JSON object (it is named), or no Parquet.
    """
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            return list(pyarrow.parquet.read_table(path).to_pylist())
        except (OSError, pyarrow.ArrowException) as error:
            raise LabError(f"{path} is no Parquet file that can be read ({error})") from error
    rows = []
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
        rows.append(row)
    return rows


def _question(row: dict[str, Any], number: int, path: Path) -> Question:
    reference = next((row[name] for name in _REFERENCES if row.get(name) is not None), None)
    if not str(row.get("question") or "").strip() or reference is None or not str(reference).strip():
        raise LabError(f"question {number} of {path} has no 'question', or no {' or '.join(map(repr, _REFERENCES))}")
    what = f"question {number} of {path}"
    media = tuple(medium_of(kind, row[kind], path.parent, what) for kind in _MEDIA if row.get(kind))
    key = str(row.get("id", number))
    return Question(id=key, question=str(row["question"]).strip(), reference=str(reference).strip(), media=media)


def medium_of(kind: MediaKind, value: Any, folder: Path, what: str) -> Medium:
    """A medium of a row: bytes, a path relative to `folder`, or the hub's form in Parquet, a dict of either.

    Raises:
        LabError: it is none of these; `what` names the row.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return Medium(kind, value)
    if not isinstance(value, str) or not value:
        raise LabError(f"the {kind} of {what} is neither a path nor bytes")
    return Medium(kind, folder / value)


def _hub(data: str, revision: str) -> Iterator[Question]:
    from lab.data.vision_forms import VIDEO_MARK
    from lab.data.vision_hub import media_file, read_samples

    folder = media_dir() / data.removeprefix(HUB).split(":")[0]
    local = Path(data.removeprefix(HUB).split(":")[0]).is_dir()
    reading = read_samples(data, form="activitynet_qa", root=folder, revision=None if local else revision)
    for sample in reading.samples:
        if not isinstance(sample.video, Path):
            raise LabError(f"the video of sample {sample.id} of {data} is no file")
        media_file(sample.video, folder=folder)  # says where they have to be unpacked
        text = sample.question.replace(VIDEO_MARK, "").strip()
        yield Question(id=sample.id, question=text, reference=sample.answer, media=(Medium("video", sample.video),))
    if reading.skipped:
        raise LabError(f"rows of {data} do not fit the form activitynet_qa: {dict(reading.skipped)}")


def _trivia() -> Iterator[Question]:
    import yaml

    path = fetch("chatterbot-corpus") / "chatterbot_corpus/data/english/trivia.yml"
    for number, turns in enumerate(yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]):
        # One entry's dash is lost, which makes it a text and no pair.
        if isinstance(turns, list) and len(turns) == 2:
            yield Question(id=f"trivia-{number:04d}", question=str(turns[0]).strip(), reference=str(turns[1]).strip())
