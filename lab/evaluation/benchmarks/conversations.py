"""What a model is asked: turns of text, pictures, videos and sound, and what talks (section 4 of the paper)."""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from lab.errors import LabError

MediaKind = Literal["image", "video", "audio"]


@dataclass(frozen=True)
class Medium:
    """A picture, a video or a sound that goes with a text: a file, or its bytes."""

    kind: MediaKind
    content: Path | bytes

    def read(self) -> bytes:
        """All of it.

        Raises:
            LabError: the file cannot be read.
        """
        with self._opened() as file:
            return file.read()

    @property
    def sha256(self) -> str:
        """Hash the content, without reading a file whole.

        Raises:
            LabError: the file cannot be read.
        """
        with self._opened() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @contextmanager
    def _opened(self) -> Iterator[io.BufferedIOBase]:
        try:
            with io.BytesIO(self.content) if isinstance(self.content, bytes) else self.content.open("rb") as file:
                yield file
        except OSError as error:
            raise LabError(f"{self.kind} {self.content!s} cannot be read ({error.strerror or error})") from error


@dataclass(frozen=True)
class Turn:
    """One thing said; its media stand before its text."""

    role: Literal["system", "user", "assistant"]
    text: str
    media: tuple[Medium, ...] = ()


Conversation = tuple[Turn, ...]


def asked(text: str, media: Sequence[Medium] = ()) -> Conversation:
    """A conversation of one question."""
    return (Turn("user", text, tuple(media)),)


def identity_of(conversation: Conversation) -> str:
    """Everything of a conversation that a reply depends on, as text."""
    return json.dumps([[turn.role, turn.text, [m.sha256 for m in turn.media]] for turn in conversation])


@dataclass(frozen=True)
class Refused:
    """In place of a reply: the model would not take this one conversation, and would not the next time either."""

    why: str


class TextModel(Protocol):
    """What replies to conversations: a local language model or an endpoint."""

    @property
    def key(self) -> str:
        """Names everything that a reply depends on but the conversation: weights, decoding, precision."""
        ...

    def reply(self, conversations: Sequence[Conversation]) -> Iterator[tuple[int, str | Refused]]:
        """Reply to each, in any order, with its index; which ones are asked together changes no reply.

        Raises:
            LabError: the model cannot be asked; what it has replied before that has been given.
        """
        ...
