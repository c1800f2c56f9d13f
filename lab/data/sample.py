"""One sample of any data: content in the order in which a model reads it, and the answer.

Sections 2 and 3 of the paper (image-text, video-text and audio-text pairs, interleaved data, instructions). The parts
of the content are those of a message in transformers' chat templates. Media are read when they are asked for.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from lab.data.fetch import files_hashes
from lab.data.images import png, read_image
from lab.data.speech.audio import Clip, checked, encoded, read_audio
from lab.data.video import PAPER_SIGHT, Sight, VideoFrames, read_video, write_frames
from lab.errors import LabError, TryAgain, first_line
from lab.paths import cache_dir, make_folder, media_dir, write_whole

TRANSCRIBE = "transcribe"
"""The task of a sample whose answer is what is said in it."""
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Drawn:
    """Media that are made each time they are read: a scene, a page of text, a sentence that a voice says.

    `draw` is called with `given`, and of what is seen with the `Sight` after it.
    """

    draw: Callable[..., Any]
    given: tuple[Any, ...]

    def read(self, *sight: Any) -> Any:
        """What `draw` makes."""
        return self.draw(*self.given, *sight)


Media = Path | bytes | str | Drawn
"""A file, a file's bytes, a web address, or what is drawn."""


def media_file(media: Path | bytes | str) -> Path:
    """A path to a picture, sound or video; bytes and what a web address leads to are kept in the cache, once.

    Raises:
        TryAgain: the address cannot be read now, as the network or the server fails.
        LabError: there is no such file, what is named can be no file, or the address cannot be read.
    """
    if isinstance(media, Path):
        try:
            there = media.exists()
        except OSError as error:  # a name that is too long is a file's content, or a folder is closed
            raise LabError(
                f"{str(media)[:80]} cannot be read: {error.strerror}; expected the path of a file"
            ) from error
        if not there:
            unpacked = f"; expected the data set's unpacked files in its folder under {media_dir()} (OMNI_LAB_MEDIA)"
            raise LabError(f"{media} is not there{unpacked if media.is_relative_to(media_dir()) else ''}")
        return media
    key = media if isinstance(media, bytes) else media.encode()
    suffix = "" if isinstance(media, bytes) else Path(media.partition("?")[0]).suffix[:10]  # else no name of a file
    path = cache_dir() / "media" / f"{hashlib.sha256(key).hexdigest()}{suffix}"
    if not path.exists():
        write_whole(path, media if isinstance(media, bytes) else _downloaded(media))
    return path


def _downloaded(address: str) -> bytes:
    from datasets.utils.file_utils import xopen

    try:
        with xopen(address, "rb") as file:
            return bytes(file.read())
    except Exception as error:  # whatever the network raises
        told = f"{address} cannot be read: {first_line(error)}; check the network and the address"
        raise (LabError(told) if _lasts(error) else TryAgain(f"{told}, and try again")) from error


def _lasts(error: BaseException) -> bool:
    """Whether an address will not be read another time either: it is not there, or not for us."""
    while error.__cause__ is not None:  # fsspec says of every error that the file is not there
        error = error.__cause__
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return 400 <= status < 500 and status not in (408, 425, 429)
    return isinstance(error, FileNotFoundError | PermissionError | ValueError)


@dataclass(frozen=True)
class Text:
    """Words of a turn."""

    text: str
    role: Role = "user"
    type: ClassVar[str] = "text"


@dataclass(frozen=True)
class Audio:
    """A sound, of any file that FFmpeg reads, or a stretch of a prepared corpus; of a video its sound track.

    `text` is what a voice was given to say, where one was.
    """

    source: Media | Clip
    role: Role = "user"
    speaker: str = ""
    text: str = ""
    type: ClassVar[str] = "audio"

    def read(self) -> Float[ndarray, " samples"]:
        """Its samples, 16 kHz, mono."""
        if isinstance(self.source, Drawn | Clip):
            return checked(self.source.read(), "the sound")
        return read_audio(self.source if isinstance(self.source, bytes) else media_file(self.source))

    @property
    def num_samples(self) -> int:
        """How long it is; it is read to know it, of what is said once, unless it stands in a prepared corpus."""
        if isinstance(self.source, Clip):
            return self.source.num_samples
        return _drawn_samples(self) if isinstance(self.source, Drawn) else len(self.read())


@lru_cache(maxsize=100_000)
def _drawn_samples(sound: Audio) -> int:
    return len(sound.read())


@dataclass(frozen=True)
class Image:
    """A picture."""

    source: Media
    role: Role = "user"
    type: ClassVar[str] = "image"

    def read(self, sight: Sight = PAPER_SIGHT) -> UInt8[ndarray, "height width 3"]:
        """Its pixels, RGB; a file's own, `sight` is for what is drawn."""
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
        """Its frames and when each is shown."""
        if isinstance(self.source, Drawn):
            drawn: VideoFrames = self.source.read(sight)
            return drawn
        return read_video(media_file(self.source), sight)


Part = Text | Audio | Image | Video


def kept_media(part: Audio | Image | Video, sight: Sight) -> str:
    """Where a part's media lie: a file's whole path, a web address, or a path in the cache, as of its folder.

    What is drawn (for `sight`), a stretch of a prepared corpus and bytes are written into the cache without loss, once,
    under a hash of what is in them: sounds as `encoded` does, a picture as PNG, a video as a folder of such frames.

    Raises:
        LabError: there is no such file, what is drawn cannot be, or a video of which nothing is seen.
    """
    if isinstance(part.source, str):
        return part.source
    if isinstance(part.source, Path):
        return str(media_file(part.source).absolute())
    if isinstance(part.source, bytes):
        return media_file(part.source).relative_to(cache_dir()).as_posix()
    made = part.read() if isinstance(part, Audio) else part.read(sight)
    arrays = (made.frames, made.seconds, np.array(made.duration_seconds)) if isinstance(made, VideoFrames) else (made,)
    digest = hashlib.sha256(part.type.encode())
    for values in arrays:
        digest.update(f"{values.dtype} {values.shape}".encode() + np.ascontiguousarray(values).tobytes())
    path = cache_dir() / "media" / digest.hexdigest()
    if isinstance(made, VideoFrames):
        if not len(made.frames):
            raise LabError(f"of a video nothing is seen at {sight}; expected max_frames of at least 1")
        make_folder(path, partial(write_frames, made))
    else:
        suffix, content = encoded(made) if isinstance(part, Audio) else (".png", png(made))
        path = path.with_suffix(suffix)
        if not path.exists():
            write_whole(path, content)
    return path.relative_to(cache_dir()).as_posix()


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
        """The one sound of a recording."""
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


def each_answer(conversation: Sample) -> Iterator[Sample]:
    """One sample for each answer of a conversation, given all that was said before it; they are one group."""
    turn = 0
    for place, part in enumerate(conversation.content):
        if isinstance(part, Text) and part.role == "assistant":
            before = conversation.content[:place]
            yield replace(conversation, id=f"{conversation.id}-{turn}", content=before, answer=part.text, choices=())
            turn += 1
    yield replace(conversation, id=f"{conversation.id}-{turn}")


class UniqueIds:
    """The ids of a source in their order, with a number after one that was there before.

    FLEURS names a sentence, which several people read; each of their recordings is a sample.

    >>> list(map(UniqueIds("#"), ["7", "8", "7", "7#2"]))
    ['7', '8', '7#2', '7#2#2']
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._times: Counter[str] = Counter()
        self._given: set[str] = set()

    def __call__(self, id: str) -> str:
        """The next one."""
        named = id
        while named in self._given:
            self._times[id] += 1
            named = f"{id}{self._mark}{self._times[id] + 1}"
        self._given.add(named)
        return named


def samples_sha256(samples: Iterable[Sample]) -> str:
    """SHA-256 over all that the samples say and show, in their order.

    Files count by what is in them, wherever they lie; web addresses and what is not there by name, what is drawn by its
    sample's id.
    """
    digest, samples = hashlib.sha256(), list(samples)
    shown = [part.source for one in samples for part in one.content if not isinstance(part, Text)]
    of_source = {source: _files(source) for source in {one for one in shown if isinstance(one, Path)}}
    files = sorted({path for found in of_source.values() for path in found})
    of_file = dict(zip(files, files_hashes(files), strict=True)) if files else {}
    hashes = {source: " ".join(of_file[path] for path in found) for source, found in of_source.items()}
    for one in samples:
        content = [(part.type, part.role, _named(part, hashes)) for part in one.content]
        facts = (one.id, content, one.answer, one.choices, one.task, one.source, one.group)
        digest.update(repr(facts).encode())
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    """The file, or those of a video that is a folder of frames; none where they are not there or cannot be read."""
    return [found for found in sorted([path, *path.rglob("*")]) if found.is_file() and os.access(found, os.R_OK)]


def _named(part: Part, hashes: Mapping[Path, str]) -> str:
    if isinstance(part, Text):
        return part.text
    if isinstance(part.source, bytes):
        return hashlib.sha256(part.source).hexdigest()
    if isinstance(part.source, Path) and hashes[part.source]:
        return hashes[part.source]
    return "" if isinstance(part.source, Drawn | Clip) else str(part.source)
