"""One sample of any data: content in the order in which a model reads it, and the answer.

Sections 2 and 3 of the paper (image-text, video-text and audio-text pairs, interleaved data, instructions). The parts
of the content are those of a message in transformers' chat templates. Media are read when they are asked for.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from lab.data.images import read_image
from lab.data.media import Drawn, Media, media_file
from lab.data.speech.audio import Clip, read_audio
from lab.data.video.moments import PAPER_SIGHT, Sight
from lab.data.video.reading import VideoFrames, read_video
from lab.errors import LabError, choose

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Text:
    """Words of a turn."""

    text: str
    role: Role = "user"
    type: ClassVar[str] = "text"


@dataclass(frozen=True)
class Audio:
    """A sound, of any file that FFmpeg reads, or a stretch of a prepared corpus; of a video its sound track."""

    source: Media | Clip
    role: Role = "user"
    speaker: str = ""
    type: ClassVar[str] = "audio"

    def read(self) -> Float[ndarray, " samples"]:
        """Its samples, 16 kHz, mono.

        Raises:
            LabError: as `media_file` and `read_audio`.
        """
        if isinstance(self.source, Drawn | Clip):
            drawn: Float[ndarray, " samples"] = self.source.read()
            return drawn
        return read_audio(self.source if isinstance(self.source, bytes) else media_file(self.source))

    @property
    def num_samples(self) -> int:
        """How long it is; it is read to know it, unless it stands in a prepared corpus.

        Raises:
            LabError: as `read`.
        """
        return self.source.num_samples if isinstance(self.source, Clip) else len(self.read())


@dataclass(frozen=True)
class Image:
    """A picture."""

    source: Media
    role: Role = "user"
    type: ClassVar[str] = "image"

    def read(self, sight: Sight = PAPER_SIGHT) -> UInt8[ndarray, "height width 3"]:
        """Its pixels, RGB; a file's own, `sight` is for what is drawn.

        Raises:
            LabError: as `media_file` and `read_image`.
        """
        if isinstance(self.source, Drawn):
            drawn: UInt8[ndarray, "height width 3"] = self.source.read(sight)
            return drawn
        return np.asarray(read_image(self.source if isinstance(self.source, bytes) else media_file(self.source)))


@dataclass(frozen=True)
class Video:
    """A video, of which frames are seen; a file may be a folder of frames."""

    source: Media
    role: Role = "user"
    type: ClassVar[str] = "video"

    def read(self, sight: Sight = PAPER_SIGHT) -> VideoFrames:
        """Its frames and when each is shown.

        Raises:
            LabError: as `media_file` and `read_video`.
        """
        if isinstance(self.source, Drawn):
            drawn: VideoFrames = self.source.read(sight)
            return drawn
        if sight.max_frames == 0:
            nothing = np.zeros((0, 1, 1, 3), dtype=np.uint8)
            return VideoFrames(frames=nothing, seconds=np.zeros(0), duration_seconds=0.0)
        path = media_file(self.source)
        if sight.max_frames > 1:
            return read_video(path, frames_per_second=sight.frames_per_second, max_frames=sight.max_frames)
        # Of first, middle and last frame the middle one: a reader that is asked for one gives the first.
        whole = read_video(path, frames_per_second=1000.0, max_frames=3)
        middle = slice(len(whole.frames) // 2, len(whole.frames) // 2 + 1)
        return replace(whole, frames=whole.frames[middle], seconds=whole.seconds[middle])


Part = Text | Audio | Image | Video
_KINDS: Mapping[str, type[Any]] = {kind.type: kind for kind in (Text, Audio, Image, Video)}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What is given, in the order in which the language model reads it, and the answer.

    A part's `role` says whose turn it belongs to; parts of one role in a row are one turn. Samples of one `group` are
    no independent witnesses (twins of a scene, versions of one sentence); where none is given, a sample is its own.

    Raises:
        LabError: no content, or an answer that is none of the choices.
    """

    id: str
    content: tuple[Part, ...]
    answer: str = ""
    choices: tuple[str, ...] = ()
    task: str = ""
    source: str = ""
    group: str = ""

    def __post_init__(self) -> None:
        if not self.content:
            raise LabError(f"sample {self.id!r} has no content; give it text, a sound, a picture or a video")
        if self.choices and self.answer not in self.choices:
            raise LabError(
                f"sample {self.id!r} has the answer {self.answer!r}, which is none of its choices: "
                f"{', '.join(map(repr, self.choices))}"
            )
        if not self.group:
            object.__setattr__(self, "group", self.id)

    @property
    def asked(self) -> str:
        """All that stands written before the answer, a part a line."""
        return "\n".join(part.text for part in self.content if isinstance(part, Text))

    @property
    def kind(self) -> tuple[str, str]:
        """Its source and task: samples of one kind may stand for each other."""
        return self.source, self.task

    @property
    def sound(self) -> Audio:
        """The one sound of a recording.

        Raises:
            LabError: it has none, or several.
        """
        sounds = [part for part in self.content if isinstance(part, Audio)]
        if len(sounds) != 1:
            raise LabError(f"sample {self.id!r} of {self.source!r} has {len(sounds)} sounds, expected one")
        return sounds[0]

    @property
    def question(self) -> str:
        """What the last turn says in words."""
        return " ".join(part.text for part in self.content[self._last_turn() :] if isinstance(part, Text))

    def asking(self, question: str, answer: str) -> "Sample":
        """The same media and earlier turns, with another question at the last turn's end, and another answer.

        It has no choices, as these belong to the answer that it had.
        """
        at = self._last_turn()
        media = tuple(part for part in self.content[at:] if not isinstance(part, Text))
        asked = Text(question, self.content[-1].role)
        return replace(self, content=(*self.content[:at], *media, asked), answer=answer, choices=())

    def _last_turn(self) -> int:
        """The place of its first part."""
        roles = [part.role for part in self.content]
        return max((at for at in range(1, len(roles)) if roles[at] != roles[at - 1]), default=0)

    def messages(self) -> list[dict[str, Any]]:
        """The sample as chat messages, the answer last, where there is one."""
        told: list[dict[str, Any]] = []
        for role, parts in groupby(self.content, key=lambda part: part.role):
            told.append({"role": role, "content": [_entry(part) for part in parts]})
        if self.answer:
            told.append({"role": "assistant", "content": [{"type": Text.type, Text.type: self.answer}]})
        return told


def sample_of_messages(messages: Sequence[Mapping[str, Any]], *, id: str, **facts: Any) -> Sample:
    """A sample from chat messages, the last of which, where it is the assistant's, is the answer.

    Args:
        messages: each with `role` and `content`, which is a text or a list of parts by `type`.
        id: the sample's.
        facts: its others.

    Raises:
        LabError: an unknown role or type of part, two messages of one role in a row, or an answer that is no text.
    """
    roles = [str(message.get("role")) for message in messages]
    for role in roles:
        choose(dict.fromkeys(get_args(Role)), role, f"role in sample {id!r}:")
    if twice := [one for one, other in pairwise(roles) if one == other]:
        raise LabError(f"sample {id!r} has two messages of the {twice[0]} in a row; join them")
    turns = [_parts(id, message) for message in messages]
    answer = ""
    if roles and roles[-1] == "assistant":
        said = turns.pop()
        if len(said) != 1 or not isinstance(said[0], Text):
            raise LabError(f"the answer of sample {id!r} is not one text")
        answer = said[0].text
    return Sample(id=id, content=tuple(part for turn in turns for part in turn), answer=answer, **facts)


def each_answer(conversation: Sample) -> Iterator[Sample]:
    """One sample for each answer of a conversation, given all that was said before it; they are one group."""
    turn = 0
    for place, part in enumerate(conversation.content):
        if isinstance(part, Text) and part.role == "assistant":
            before = conversation.content[:place]
            yield replace(conversation, id=f"{conversation.id}-{turn}", content=before, answer=part.text, choices=())
            turn += 1
    yield replace(conversation, id=f"{conversation.id}-{turn}")


def samples_sha256(samples: Iterable[Sample]) -> str:
    """SHA-256 over all that the samples say, in their order; files and addresses by name, what is drawn by its id."""
    digest = hashlib.sha256()
    for one in samples:
        content = [(part.type, part.role, _named(part)) for part in one.content]
        facts = (one.id, content, one.answer, one.choices, one.task, one.source, one.group)
        digest.update(repr(facts).encode())
    return digest.hexdigest()


def _named(part: Part) -> str:
    if isinstance(part, Text):
        return part.text
    if isinstance(part.source, bytes):
        return hashlib.sha256(part.source).hexdigest()
    return "" if isinstance(part.source, Drawn | Clip) else str(part.source)


def _entry(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": part.type, part.type: part.text}
    inside = str(part.source) if isinstance(part.source, Path) else part.source
    speaker = {"speaker": part.speaker} if isinstance(part, Audio) and part.speaker else {}
    return {"type": part.type, part.type: inside, **speaker}


def _parts(id: str, message: Mapping[str, Any]) -> list[Part]:
    role, content = message["role"], message.get("content")
    if isinstance(content, str):
        return [Text(content, role)]
    found: list[Part] = []
    for entry in content or ():
        kind = choose(_KINDS, str(entry.get("type")), f"type of content in sample {id!r}:")
        inside = entry.get(kind.type)
        if inside is None:
            raise LabError(f"a part of sample {id!r} of type {kind.type!r} has no {kind.type!r} in it")
        is_path = kind is not Text and isinstance(inside, str) and "://" not in inside
        speaker = {"speaker": entry["speaker"]} if kind is Audio and "speaker" in entry else {}
        found.append(kind(Path(inside) if is_path else inside, role, **speaker))
    return found
