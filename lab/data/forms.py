"""Image-text and video-text data of the Hugging Face hub, or folders of the same form, as samples.

| form | for example | holds |
|---|---|---|
| `conversation` | `liuhaotian/LLaVA-Instruct-150K`, `lmms-lab/LLaVA-Video-178K` | turns about images or a video |
| `image_caption` | any data set of one image and its caption a row | an image |
| `image_choices` | `lmms-lab/MMBench_EN` | a question about an image, with choices |
| `sharegpt4video` | `ShareGPT4Video/ShareGPT4Video` | a video, captions of its parts and of the whole |
| `webvid` | `TempoFunk/webvid-10M` | the address of a video and its name |
| `activitynet_qa` | `lmms-lab/ActivityNetQA` | an open question about a video |
| `next_qa` | `lmms-lab/NExTQA`, configurations `MC` and `OE` | a question about a video, with five choices or open |

The hub's copies change: where columns have other names, map the form's name to the data set's with `columns`. Videos
mostly lie in archives beside the rows: unpack them into `lab.paths.media_dir()/OWNER/NAME`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from lab.data.filters.streamed import Dropped, LeftOut
from lab.data.hub import open_streams, parse_name
from lab.data.media import Media
from lab.data.sample import Image, Part, Role, Sample, Text, Video
from lab.errors import LabError, choose
from lab.paths import media_dir

PREFIX = "hub:"
ID_COLUMNS = ("id", "question_id", "video_id", "videoid")
VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".avi")
DESCRIBE_IMAGE, DESCRIBE_VIDEO = Text("Describe the image."), Text("Describe the video.")
_IMAGE_MARK, _VIDEO_MARK = "<image>", "<video>"
_ROLES: Mapping[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Content:
    """What a row holds, as in a `Sample`."""

    content: Sequence[Part]
    answer: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Form:
    """Which columns a row needs (each one of several names), may have, and what is made of it.

    `read(row, root)` raises a `Dropped` for a row that does not fit; `root` is the folder of relative paths.
    """

    required: tuple[tuple[str, ...], ...]
    optional: tuple[str, ...]
    read: Callable[[Row, Path], Content]


@dataclass
class SampleReading:
    """A stream of samples; `left_out` has the rows of which none was made, and is whole when the stream has ended."""

    source: str
    licence: str
    samples: Iterator[Sample]
    left_out: LeftOut = field(default_factory=dict)


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

    A sample has the row's own id, else its number; of a data set that asks several questions under one id, several
    have it. Samples of one video are one group. A row that does not fit the form is left out, never guessed.

    Args:
        name: `hub:OWNER/NAME[:CONFIG[:SPLIT]]`; the split may be left out where there is only one.
        form: of `FORMS`.
        first: row to begin with.
        limit: rows at most.
        root: folder of the files that rows name; by default the data set's own under `media_dir()`.
        columns: the data set's names of the form's columns.
        revision: a commit of the hub's.

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
    folder = media_dir() / dataset if root is None else root
    left_out: LeftOut = {}

    def samples() -> Iterator[Sample]:
        for number, stored in _numbered(what, rows, first):
            row = {**stored, **{column: stored[own] for column, own in renamed.items() if own in stored}}
            own_id = next((row[column] for column in ID_COLUMNS if row.get(column) is not None), None)
            key = f"{split}-{number:08d}" if own_id is None else str(own_id)
            try:
                made = chosen.read(row, folder)
            except Dropped as error:
                left_out.setdefault(str(error), []).append(key)
            except (AttributeError, IndexError, KeyError, TypeError):
                left_out.setdefault("a row of another shape", []).append(key)
            else:
                videos = (part.source for part in made.content if isinstance(part, Video))
                yield Sample(
                    id=key,
                    content=tuple(made.content),
                    answer=made.answer,
                    choices=made.choices,
                    task=form,
                    source=f"{form}@{name}",
                    group=next((str(video) for video in videos if not isinstance(video, bytes)), key),
                )

    return SampleReading(name, stream.info.license or "see the data set's card", samples(), left_out)


def _numbered(what: str, rows: Any, first: int) -> Iterator[tuple[int, Row]]:
    stream = iter(rows)
    for number in count(first):
        try:
            row = next(stream)
        except StopIteration:
            return
        except Exception as error:  # `datasets` raises whatever its readers and the network raise
            raise LabError(
                f"{what} broke off at row {number}: {_first_line(error)}; "
                f"check the network, and go on with first={number}"
            ) from error
        yield number, row


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
    missing = [names for names in form.required if not any(renamed[column] in present for column in names)]
    if missing:
        lacks, expected = (", ".join(" or ".join(names) for names in listed) for listed in (missing, form.required))
        raise LabError(
            f"{what} is not of the form {name!r}: it has no column {lacks}; the form needs {expected} and "
            f"may have {', '.join(form.optional)}, the columns are {', '.join(present)}: name them with columns"
        )
    return renamed


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _media(value: Any, root: Path, *, suffixes: Sequence[str] = ()) -> Media:
    """What a column holds as bytes, web address or path; a name without suffix gets the one whose file exists."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return value
    if value is None or value in ("", b""):
        raise Dropped("no image or video in the row")
    name = str(value)
    if "://" in name:
        return name
    path = root / name
    if suffixes and path.suffix.lower() not in suffixes:
        named = [path.with_name(path.name + suffix) for suffix in suffixes]
        return next((candidate for candidate in named if candidate.is_file()), named[0])
    return path


def _video(value: Any, root: Path) -> Video:
    return Video(_media(value, root, suffixes=VIDEO_SUFFIXES))


def _text(row: Row, column: str) -> str:
    text = str(row[column] if row[column] is not None else "").strip()
    if not text:
        raise Dropped(f"empty {column}")
    return text


def _turns(row: Row) -> list[Text]:
    """The turns, of `from` and `value` or `role` and `content`: perhaps the system's, then questions and answers."""
    turns = []
    for turn in row["conversations"] or ():
        role = _ROLES.get(str(turn.get("from") or turn.get("role")))
        if role is None:
            raise Dropped("turns that are not questions and answers in alternation")
        turns.append(Text(str(turn.get("value") or turn.get("content") or "").strip(), role))
    roles = [turn.role for turn in turns if turn.role != "system"]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise Dropped("turns that are not questions and answers in alternation")
    if any(turn.role == "system" for turn in turns[1:]):
        raise Dropped("a system message that is not the first")
    if not all(turn.text for turn in turns):
        raise Dropped("empty turn")
    return turns


def _conversation(row: Row, root: Path) -> Content:
    """All turns; the last answer is the sample's. Media take the places of their marks, else stand in front."""
    turns = _turns(row)
    pictures = row.get("images") or ([row["image"]] if row.get("image") else [])
    media: list[Part] = [Image(_media(value, root)) for value in pictures]
    if row.get("video"):
        if media:
            raise Dropped("both images and a video")
        media = [_video(row["video"], root)]
    # Several data sets mark a video as an image.
    marks = (_IMAGE_MARK, _VIDEO_MARK) if row.get("video") else (_IMAGE_MARK,)
    places = re.compile("|".join(marks))
    asked = [turn for turn in turns if turn.role == "user"]
    marked = sum(len(places.findall(turn.text)) for turn in asked)
    if marked not in (0, len(media)):
        raise Dropped("another number of marks than of images or videos")
    content: list[Part] = []
    for turn in turns[:-1]:
        if turn.role != "user":
            content.append(turn)
            continue
        if not marked:
            content, media = [*content, *media], []
        for number, piece in enumerate(places.split(turn.text)):
            content += [media.pop(0)] if number else []
            content += [Text(piece.strip())] if piece.strip() else []
    return Content(content, turns[-1].text)


def _image_caption(row: Row, root: Path) -> Content:
    return Content((Image(_media(row["image"], root)), DESCRIBE_IMAGE), _text(row, "caption"))


def _sharegpt4video(row: Row, root: Path) -> Content:
    # A video's captions are of its parts in order; the one of the whole is numbered -1.
    whole = [caption["content"] for caption in row["captions"] or () if str(caption["idx"]) == "-1"]
    if len(whole) != 1:
        raise Dropped("no caption of the whole video")
    return Content((_video(row["video_path"], root), DESCRIBE_VIDEO), _text({"caption": whole[0]}, "caption"))


def _webvid(row: Row, root: Path) -> Content:
    column = "contentUrl" if row.get("contentUrl") else "video"
    return Content((_video(row.get(column), root), DESCRIBE_VIDEO), _text(row, "name"))


def _activitynet_qa(row: Row, root: Path) -> Content:
    # The files are called v_NAME, with one of several suffixes.
    video = _video(f"v_{_text(row, 'video_name')}", root)
    return Content((video, Text(_text(row, "question"))), _text(row, "answer"))


def _next_qa(row: Row, root: Path) -> Content:
    content = (_video(row["video"], root), Text(_text(row, "question")))
    answer = _text(row, "answer")
    choices = tuple(str(row[f"a{k}"]) for k in range(5) if row.get(f"a{k}") is not None)
    if choices:
        if not answer.isdecimal() or int(answer) >= len(choices):
            raise Dropped("an answer that is no number of a choice")
        answer = choices[int(answer)]
    return Content(content, answer, choices)


def _image_choices(row: Row, root: Path) -> Content:
    """A list of choices with the number of the right one, or columns A, B, ... with its letter (MMBench)."""
    listed = row.get("choices")
    choices = tuple(map(str, listed)) if listed else tuple(str(row[c]) for c in "ABCDE" if _is_choice(row.get(c)))
    answer = _text(row, "answer")
    number = int(answer) if answer.isdecimal() else "ABCDE".find(answer) if len(answer) == 1 else -1
    if not 0 <= number < len(choices):
        raise Dropped("an answer that is no number or letter of a choice")
    content = (Image(_media(row["image"], root)), Text(_text(row, "question")))
    return Content(content, choices[number], choices)


def _is_choice(value: Any) -> bool:
    return value is not None and str(value).strip().lower() not in ("", "nan")


FORMS: Mapping[str, Form] = {
    "conversation": Form((("conversations",),), ("id", "image", "images", "video"), _conversation),
    "image_caption": Form((("image",), ("caption",)), ("id",), _image_caption),
    "image_choices": Form((("image",), ("question",), ("answer",)), ("index", "choices", *"ABCDE"), _image_choices),
    "sharegpt4video": Form((("video_path",), ("captions",)), ("video_id",), _sharegpt4video),
    "webvid": Form((("contentUrl", "video"), ("name",)), ("videoid",), _webvid),
    "activitynet_qa": Form((("video_name",), ("question",), ("answer",)), ("question_id",), _activitynet_qa),
    "next_qa": Form((("video",), ("question",), ("answer",)), ("a0", "a1", "a2", "a3", "a4"), _next_qa),
}
