"""One sample of any data: content in the order in which a model reads it, and the answer.

Sections 2 and 3 of the paper (image-text, video-text and audio-text pairs, interleaved data, instructions). The parts
of the content are those of a message in transformers' chat templates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from lab.data.images import read_image
from lab.data.speech.audio import read_audio
from lab.data.video import reading
from lab.errors import LabError, choose

Role = Literal["system", "user", "assistant"]
Media = Path | bytes


@dataclass(frozen=True)
class Text:
    """Words of a turn."""

    text: str
    role: Role = "user"
    type: ClassVar[str] = "text"


@dataclass(frozen=True)
class Audio:
    """A sound, of any file that FFmpeg reads."""

    source: Media
    role: Role = "user"
    type: ClassVar[str] = "audio"

    def read(self) -> Float[ndarray, " samples"]:
        """Its samples, 16 kHz, mono.

        Raises:
            LabError: as `read_audio`.
        """
        return read_audio(self.source)


@dataclass(frozen=True)
class Image:
    """A picture."""

    source: Media
    role: Role = "user"
    type: ClassVar[str] = "image"

    def read(self) -> UInt8[ndarray, "height width 3"]:
        """Its pixels, RGB.

        Raises:
            LabError: as `read_image`.
        """
        return np.asarray(read_image(self.source))


@dataclass(frozen=True)
class Video:
    """A video, of which frames are seen; a file, or a folder of frames."""

    source: Path
    role: Role = "user"
    type: ClassVar[str] = "video"

    def read(self, **options: Any) -> reading.Video:
        """Its frames and when each is shown; options as in `read_video`.

        Raises:
            LabError: as `read_video`.
        """
        return reading.read_video(self.source, **options)


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

    def messages(self) -> list[dict[str, Any]]:
        """The sample as chat messages, the answer last, where there is one."""
        told: list[dict[str, Any]] = []
        for role, parts in groupby(self.content, key=lambda part: part.role):
            content = [{"type": part.type, part.type: _inside(part)} for part in parts]
            told.append({"role": role, "content": content})
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


def _inside(part: Part) -> Any:
    return part.text if isinstance(part, Text) else part.source if isinstance(part.source, bytes) else str(part.source)


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
        found.append(kind(Path(inside) if kind is not Text and isinstance(inside, str) else inside, role))
    return found
