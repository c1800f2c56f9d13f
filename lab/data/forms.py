"""The forms in which the hub keeps data, and what is made of a row of each.

| form | for example | holds |
|---|---|---|
| `transcribe` | `openslr/librispeech_asr:clean`, `google/fleurs:en_us` | a sound and its text |
| `messages` | `HuggingFaceH4/no_robots` | turns of text, perhaps a system message |
| `pair` | `tatsu-lab/alpaca`, `databricks/databricks-dolly-15k` | a prompt and its answer |
| `conversation` | `liuhaotian/LLaVA-Instruct-150K`, `lmms-lab/LLaVA-Video-178K` | turns about images or a video |
| `image_caption` | any data set of one image and its caption a row | an image |
| `image_choices` | `lmms-lab/MMBench_EN` | a question about an image, with choices |
| `sharegpt4video` | `ShareGPT4Video/ShareGPT4Video` | a video, captions of its parts and of the whole |
| `webvid` | `TempoFunk/webvid-10M` | the address of a video and its name |
| `activitynet_qa` | `lmms-lab/ActivityNetQA` | an open question about a video |
| `next_qa` | `lmms-lab/NExTQA`, configurations `MC` and `OE` | a question about a video, with five choices or open |

More of speech: `google/fleurs:cmn_hans_cn`, `AISHELL/AISHELL-1` (or a copy of it in Parquet), `wenet-e2e/wenetspeech`
(gated; ask for access first), `TwinkStart/KeSpeech` (a copy; the original is by application).

What a row holds as text is looked at here and nowhere else (`as_text`): what is no text is never written out as some.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.data.filters.filtering import Dropped
from lab.data.sample import Audio, Image, Media, Part, Role, Sample, Text, Video

_VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".avi")
_DESCRIBE_IMAGE, _DESCRIBE_VIDEO = Text("Describe the image."), Text("Describe the video.")
_AUDIO = ("audio", "speech", "wav", "file")
_TRANSCRIPTS = ("text", "sentence", "transcription", "transcript", "normalized_text", "raw_transcription", "Text")
_SPEAKERS = ("speaker_id", "speaker", "client_id", "spk_id", "Speaker")
_RECORDINGS = ("id", "utt_id", "segment_id", "file_name", "path")
TURNS = ("messages", "conversations")
PROMPTS = ("prompt", "question", "instruction", "inputs", "query")
ANSWERS = ("response", "answer", "output", "completion", "targets", "target")
_IDS = ("id", "question_id", "video_id", "videoid")
# What a prompt is about: `input` of alpaca's form, `context` of dolly's.
_ABOUT = ("input", "context")
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
class Form:
    """Which columns a row needs (each one of several names), and what is made of it.

    `read(row, root)` gives a sample without id, or raises a `Dropped` for a row that does not fit; `root` is the folder
    of relative paths. The first of `ids` that a row has names its sample, else its number does. `is_video` of a form
    that always holds a video.
    """

    required: tuple[tuple[str, ...], ...]
    read: Callable[[Row, Path], Sample]
    ids: tuple[str, ...] = _IDS
    is_video: bool = False

    def missing(self, present: Sequence[str]) -> list[tuple[str, ...]]:
        """Which of the required columns a data set lacks."""
        return [names for names in self.required if not any(name in present for name in names)]


def _sample(content: Sequence[Part], answer: str, choices: tuple[str, ...] = ()) -> Sample:
    return Sample(id="", content=tuple(content), answer=answer, choices=choices)


def _first(row: Row, names: Sequence[str]) -> Any:
    """What the first of these columns holds that a row has."""
    return next((row[name] for name in names if name in row), None)


def is_null(value: Any) -> bool:
    """Whether a row holds nothing there; NaN is how pandas writes null."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def as_text(value: Any, what: str) -> str:
    """What a row holds as text, a number as it is written, nothing of null; `what` is it, for the reason.

    >>> as_text("a cat", "caption"), as_text(7, "answer"), as_text(float("nan"), "caption")
    ('a cat', '7', '')

    Raises:
        Dropped: it is a list or something else that is no text, or has half a character (a surrogate without its pair).
    """
    if is_null(value):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value in (math.inf, -math.inf):
        raise Dropped(f"{what} that is no text")
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Dropped(f"{what} with half a character") from None
    return text


def as_row(given: Any) -> Row:
    """A row, or that of a line of JSON; a `Dropped` where it is none, or where one stands in a row's place."""
    if isinstance(given, Dropped):
        raise given
    if isinstance(given, bytes) and b"\0" in given:
        raise Dropped("line of UTF-16 where UTF-8 was expected")
    try:
        row = json.loads(given) if isinstance(given, bytes) else given
    except (ValueError, RecursionError):
        raise Dropped("line that is no JSON") from None
    if not isinstance(row, Mapping):
        raise Dropped("line that is no JSON object")
    return row


def _transcribe(row: Row, root: Path) -> Sample:
    speaker = as_text(_first(row, _SPEAKERS), "speaker") or "unknown"
    sound = Audio(_media(_first(row, _AUDIO), root), speaker=speaker)
    return _sample((sound,), as_text(_first(row, _TRANSCRIPTS), "transcript"))


def _pair(row: Row, root: Path) -> Sample:
    asked, answered = _first(row, PROMPTS), _first(row, ANSWERS)
    if is_null(asked) or is_null(answered):
        raise Dropped("a row of another shape")
    prompt, answer = as_text(asked, "prompt"), as_text(answered, "answer")
    about = next((as_text(row[name], name).strip() for name in _ABOUT if row.get(name)), "")
    return _sample((Text("\n".join(filter(None, (prompt.strip(), about)))),), answer.strip())


def _media(value: Any, root: Path, *, suffixes: Sequence[str] = ()) -> Media:
    """What a column holds as bytes, web address or path; a name without suffix gets the one whose file exists."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return value
    name = "" if value == b"" else as_text(value, "name of a sound, image or video")
    if not name:
        raise Dropped("no sound, image or video in the row")
    if "://" in name:
        return name
    path = root / name
    if suffixes and path.suffix.lower() not in suffixes:
        named = [path.with_name(path.name + suffix) for suffix in suffixes]
        return next((candidate for candidate in named if candidate.is_file()), named[0])
    return path


def _video(value: Any, root: Path) -> Video:
    return Video(_media(value, root, suffixes=_VIDEO_SUFFIXES))


def _text(row: Row, column: str) -> str:
    text = as_text(row[column], column).strip()
    if not text:
        raise Dropped(f"empty {column}")
    return text


def _turns(row: Row) -> list[Text]:
    """Perhaps the system's turn, then questions and answers in alternation; a last turn that nobody answers goes."""
    turns = []
    for turn in _first(row, TURNS) or ():
        role = _ROLES.get(str(turn.get("from") or turn.get("role")))
        if role is None:
            raise Dropped("turns that are not questions and answers in alternation")
        turns.append(Text(as_text(turn.get("value") or turn.get("content"), "turn").strip(), role))
    turns = turns[:-1] if turns and turns[-1].role == "user" else turns
    roles = [turn.role for turn in turns if turn.role != "system"]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise Dropped("turns that are not questions and answers in alternation")
    if any(turn.role == "system" for turn in turns[1:]):
        raise Dropped("a system message that is not the first")
    if not all(turn.text for turn in turns):
        raise Dropped("empty turn")
    return turns


def _conversation(row: Row, root: Path) -> Sample:
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
    return _sample(content, turns[-1].text)


def _image_caption(row: Row, root: Path) -> Sample:
    return _sample((Image(_media(row["image"], root)), _DESCRIBE_IMAGE), _text(row, "caption"))


def _sharegpt4video(row: Row, root: Path) -> Sample:
    # A video's captions are of its parts in order; the one of the whole is numbered -1.
    whole = [caption["content"] for caption in row["captions"] or () if str(caption["idx"]) == "-1"]
    if len(whole) != 1:
        raise Dropped("no caption of the whole video")
    return _sample((_video(row["video_path"], root), _DESCRIBE_VIDEO), _text({"caption": whole[0]}, "caption"))


def _webvid(row: Row, root: Path) -> Sample:
    column = "contentUrl" if row.get("contentUrl") else "video"
    return _sample((_video(row.get(column), root), _DESCRIBE_VIDEO), _text(row, "name"))


def _activitynet_qa(row: Row, root: Path) -> Sample:
    # The files are called v_NAME, with one of several suffixes.
    video = _video(f"v_{_text(row, 'video_name')}", root)
    return _sample((video, Text(_text(row, "question"))), _text(row, "answer"))


def _next_qa(row: Row, root: Path) -> Sample:
    content = (_video(row["video"], root), Text(_text(row, "question")))
    answer = _text(row, "answer")
    choices = tuple(as_text(row[f"a{k}"], "choice") for k in range(5) if not is_null(row.get(f"a{k}")))
    if choices:
        if not answer.isdecimal() or int(answer) >= len(choices):
            raise Dropped("an answer that is no number of a choice")
        answer = choices[int(answer)]
    return _sample(content, answer, choices)


def _image_choices(row: Row, root: Path) -> Sample:
    """A list of choices with the number of the right one, or columns A, B, ... with its letter (MMBench)."""
    listed = row.get("choices")
    choices = tuple(as_text(one, "choice") for one in listed or (row[c] for c in "ABCDE" if _is_choice(row.get(c))))
    answer = _text(row, "answer")
    number = int(answer) if answer.isdecimal() else "ABCDE".find(answer) if len(answer) == 1 else -1
    if not 0 <= number < len(choices):
        raise Dropped("an answer that is no number or letter of a choice")
    content = (Image(_media(row["image"], root)), Text(_text(row, "question")))
    return _sample(content, choices[number], choices)


def _is_choice(value: Any) -> bool:
    return not is_null(value) and str(value).strip().lower() not in ("", "nan")


FORMS: Mapping[str, Form] = {
    "transcribe": Form((_AUDIO, _TRANSCRIPTS), _transcribe, ids=_RECORDINGS),
    "messages": Form((TURNS,), _conversation, ids=()),
    "pair": Form((PROMPTS, ANSWERS), _pair, ids=()),
    "conversation": Form((("conversations",),), _conversation),
    "image_caption": Form((("image",), ("caption",)), _image_caption),
    "image_choices": Form((("image",), ("question",), ("answer",)), _image_choices),
    "sharegpt4video": Form((("video_path",), ("captions",)), _sharegpt4video, is_video=True),
    "webvid": Form((("contentUrl", "video"), ("name",)), _webvid, is_video=True),
    "activitynet_qa": Form((("video_name",), ("question",), ("answer",)), _activitynet_qa, is_video=True),
    "next_qa": Form((("video",), ("question",), ("answer",)), _next_qa, is_video=True),
}
