"""The forms in which the hub keeps image-text and video-text data, each made into one kind of sample.

| form | for example | holds |
|---|---|---|
| `conversation` | `liuhaotian/LLaVA-Instruct-150K`, `lmms-lab/LLaVA-Video-178K` | turns about images or a video |
| `image_caption` | any data set of one image and its caption a row | an image |
| `sharegpt4video` | `ShareGPT4Video/ShareGPT4Video` | a video, captions of its parts and of the whole |
| `webvid` | `TempoFunk/webvid-10M` | the address of a video and its name |
| `activitynet_qa` | `lmms-lab/ActivityNetQA` | an open question about a video |
| `next_qa` | `lmms-lab/NExTQA`, configurations `MC` and `OE` | a question about a video, with five choices or open |
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Media = bytes | Path | str
Row = Mapping[str, Any]

IMAGE_MARK = "<image>"
VIDEO_MARK = "<video>"
DESCRIBE_IMAGE = "Describe the image."
DESCRIBE_VIDEO = "Describe the video."

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".avi")


@dataclass(frozen=True)
class Sample:
    """A question and an answer about images or a video; `images` and `video` are bytes, a path or a web address.

    Text holds one `<image>` for each image where it belongs, and one `<video>` for a video; where the data set has no
    marks, they stand in front of the question. `choices` is empty for an open question. What follows in a longer
    conversation is in `later_turns`, as questions and answers.
    """

    id: str
    question: str
    answer: str
    images: tuple[Media, ...] = ()
    video: Media | None = None
    choices: tuple[str, ...] = ()
    later_turns: tuple[tuple[str, str], ...] = ()


class RowError(Exception):
    """A row that does not fit its form; the message is the reason under which it is counted."""


@dataclass(frozen=True)
class Form:
    """Which columns a row needs (each one of several names), may have, and how it becomes a sample.

    `sample(row, id, root)` raises a `RowError` for a row that does not fit; `root` is the folder of relative paths.
    """

    required: tuple[tuple[str, ...], ...]
    optional: tuple[str, ...]
    sample: Callable[[Row, str, Path | None], Sample]

    def missing(self, present: Sequence[str]) -> tuple[str, ...]:
        """Name the columns that are needed and not there, alternatives joined by "or"."""
        return tuple(" or ".join(names) for names in self.required if not set(names) & set(present))


def media(value: Any, root: Path | None, *, suffixes: Sequence[str] = ()) -> Media:
    """Return what a column holds as bytes, web address or path; a name without suffix gets the one whose file exists.

    Raises:
        RowError: it is empty.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return value
    if value is None or value in ("", b""):
        raise RowError("no image or video in the row")
    name = str(value)
    if "://" in name:
        return name
    path = (root or Path()) / name
    if suffixes and path.suffix.lower() not in suffixes:
        named = [path.with_name(path.name + suffix) for suffix in suffixes]
        return next((candidate for candidate in named if candidate.is_file()), named[0])
    return path


def _text(row: Row, column: str) -> str:
    text = str(row[column] if row[column] is not None else "").strip()
    if not text:
        raise RowError(f"empty {column}")
    return text


def _turns(row: Row) -> list[tuple[str, str]]:
    """Return questions and answers; `from` and `value`, or `role` and `content`, and what the system says left out."""
    who = {"human": "ask", "user": "ask", "gpt": "answer", "assistant": "answer", "system": "system"}
    spoken = []
    for turn in row["conversations"] or ():
        role = who.get(str(turn.get("from") or turn.get("role")))
        if role != "system":
            spoken.append((role, str(turn.get("value") or turn.get("content") or "").strip()))
    if not spoken or [role for role, _ in spoken] != ["ask", "answer"] * (len(spoken) // 2):
        raise RowError("turns that are not questions and answers in alternation")
    if not all(text for _, text in spoken):
        raise RowError("empty turn")
    return [(spoken[i][1], spoken[i + 1][1]) for i in range(0, len(spoken), 2)]


def _conversation(row: Row, key: str, root: Path | None) -> Sample:
    turns = _turns(row)
    video = media(row["video"], root, suffixes=VIDEO_SUFFIXES) if row.get("video") else None
    if row.get("images"):
        images = tuple(media(value, root) for value in row["images"])
    else:
        images = (media(row["image"], root),) if row.get("image") else ()
    if video is not None:
        if images:
            raise RowError("both images and a video")
        # Several data sets mark a video as an image.
        turns = [(question.replace(IMAGE_MARK, VIDEO_MARK), answer) for question, answer in turns]
    mark, expected = (VIDEO_MARK, 1) if video is not None else (IMAGE_MARK, len(images))
    marks = sum(question.count(mark) for question, _ in turns)
    if marks == 0:
        turns[0] = (mark * expected + "\n" * bool(expected) + turns[0][0], turns[0][1])
    elif marks != expected:
        raise RowError("another number of marks than of images or videos")
    return Sample(
        key, question=turns[0][0], answer=turns[0][1], images=images, video=video, later_turns=tuple(turns[1:])
    )


def _image_caption(row: Row, key: str, root: Path | None) -> Sample:
    image = media(row["image"], root)
    return Sample(key, f"{IMAGE_MARK}\n{DESCRIBE_IMAGE}", _text(row, "caption"), images=(image,))


def _sharegpt4video(row: Row, key: str, root: Path | None) -> Sample:
    # A video's captions are of its parts in order; the one of the whole is numbered -1.
    whole = [caption["content"] for caption in row["captions"] or () if str(caption["idx"]) == "-1"]
    if len(whole) != 1:
        raise RowError("no caption of the whole video")
    video = media(row["video_path"], root, suffixes=VIDEO_SUFFIXES)
    return Sample(key, f"{VIDEO_MARK}\n{DESCRIBE_VIDEO}", _text({"caption": whole[0]}, "caption"), video=video)


def _webvid(row: Row, key: str, root: Path | None) -> Sample:
    column = "contentUrl" if row.get("contentUrl") else "video"
    video = media(row.get(column), root, suffixes=VIDEO_SUFFIXES)
    return Sample(key, f"{VIDEO_MARK}\n{DESCRIBE_VIDEO}", _text(row, "name"), video=video)


def _activitynet_qa(row: Row, key: str, root: Path | None) -> Sample:
    # The files are called v_NAME, with one of several suffixes.
    video = media(f"v_{_text(row, 'video_name')}", root, suffixes=VIDEO_SUFFIXES)
    return Sample(key, f"{VIDEO_MARK}\n{_text(row, 'question')}", _text(row, "answer"), video=video)


def _next_qa(row: Row, key: str, root: Path | None) -> Sample:
    video = media(row["video"], root, suffixes=VIDEO_SUFFIXES)
    question, answer = f"{VIDEO_MARK}\n{_text(row, 'question')}", _text(row, "answer")
    choices = tuple(str(row[f"a{k}"]) for k in range(5) if row.get(f"a{k}") is not None)
    if choices:
        if not answer.isdecimal() or int(answer) >= len(choices):
            raise RowError("an answer that is no number of a choice")
        answer = choices[int(answer)]
    return Sample(key, question, answer, video=video, choices=choices)


def _image_choices(row: Row, key: str, root: Path | None) -> Sample:
    """A list of choices with the number of the right one, or columns A, B, ... with its letter (MMBench)."""
    listed = row.get("choices")
    choices = tuple(map(str, listed)) if listed else tuple(str(row[c]) for c in "ABCDE" if _is_choice(row.get(c)))
    answer = _text(row, "answer")
    number = int(answer) if answer.isdecimal() else "ABCDE".find(answer) if len(answer) == 1 else -1
    if not 0 <= number < len(choices):
        raise RowError("an answer that is no number or letter of a choice")
    question = f"{IMAGE_MARK}\n{_text(row, 'question')}"
    return Sample(key, question, choices[number], images=(media(row["image"], root),), choices=choices)


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
