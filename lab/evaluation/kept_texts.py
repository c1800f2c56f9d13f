"""Texts kept on disk, each made once: a run that stops goes on, and a second threshold hears nothing twice.

What makes texts (a recogniser, a language model, an endpoint) has a folder of its own in the cache, known by its
weights and its way of decoding; several processes may share it. Section 3 of the paper for transcripts (speech held
against its text).
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Protocol, TypeVar

import diskcache
from jaxtyping import Float
from numpy import ndarray

from lab.errors import LabError
from lab.paths import cache_dir

FORMAT_VERSION = 3
# Transcribed together, and kept before the next: what a kill loses at most. As many as `listen` holds.
_CHUNK = 64
T = TypeVar("T")


class KeptTexts:
    """What one maker has said: what is on disk is read, the rest is made and kept, each text as it comes.

    Where two processes make one text at the same moment, the first stays and both return it.

    Args:
        kind: the folder in the cache: "answers", "transcripts".
        maker: all that a text depends on but its key.
        what: is kept, for messages.
    """

    def __init__(self, kind: str, *maker: str, what: str) -> None:
        identity = json.dumps([FORMAT_VERSION, *maker])
        self.folder = cache_dir() / kind / hashlib.sha256(identity.encode()).hexdigest()[:32]
        self.num_made = 0
        """Texts that were not on disk, since this was made."""
        self._what = what

    def texts(
        self,
        keys: Sequence[bytes],
        make: Callable[[list[int]], Iterable[tuple[int, str | T]]],
        progress: Callable[[int, int], None] | None = None,
    ) -> list[str | T]:
        """The text under each key, in their order; an empty one is kept as any.

        Args:
            keys: SHA-256 of what the texts answer; a key that stands twice is made once.
            make: is given the places in `keys` of what is missing, and gives each with its text, in any order. What is
                no text (a refusal) is returned and not kept.
            progress: told how many are there, of how many.

        Raises:
            LabError: the folder cannot be read or written; or as `make`, after what it had given was kept.
        """
        if not keys:
            return []
        with self._disk():
            found: dict[bytes, str | T] = {
                key: text for key in set(keys) if (text := self._store.get(key, retry=True)) is not None
            }
        missing = sorted({key: place for place, key in reversed([*enumerate(keys)]) if key not in found}.values())
        done = len(keys) - len(missing)
        if progress is not None:
            progress(done, len(keys))
        for place, text in make(missing) if missing else ():
            found[keys[place]] = self._kept(keys[place], text) if isinstance(text, str) else text
            done += 1
            if progress is not None:
                progress(done, len(keys))
        return [found[key] for key in keys]

    def _kept(self, key: bytes, text: str) -> str:
        self.num_made += 1
        with self._disk():
            return text if self._store.add(key, text, retry=True) else str(self._store.get(key, retry=True))

    @cached_property
    def _store(self) -> diskcache.Cache:
        return diskcache.Cache(str(self.folder), eviction_policy="none")  # else it drops the oldest above 1 GB

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """Nothing of a maker runs in here, so all errors are the disk's."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise LabError(
                f"{self._what} cannot be kept in {self.folder} ({error}); free some disk, or remove the folder if it "
                "is damaged"
            ) from error


class Recognizer(Protocol):
    """What makes transcripts, as `lab.parts.speech_recognizers.SpeechRecognizer`."""

    @property
    def key(self) -> str:
        """Names everything that the transcript of a waveform depends on."""
        ...

    def transcribe(self, waveforms: Sequence[Float[ndarray, " samples"]]) -> Sequence[str]:
        """The transcript of each clip, which does not depend on the others."""
        ...


class KeptTranscripts:
    """A recogniser's transcripts, each clip (known by its samples) transcribed once.

    Args:
        recognizer: makes what is not there; its key is asked once.
        name: of the recogniser, as `load_speech_recognizer` takes it.
    """

    def __init__(self, recognizer: Recognizer, *, name: str) -> None:
        self.kept = KeptTexts("transcripts", name, recognizer.key, what=f"the transcripts of {name!r}")
        self._recognizer, self._name = recognizer, name

    def transcribe(self, waveforms: Sequence[Float[ndarray, " samples"]]) -> list[str]:
        """The transcript of each 16 kHz clip, in their order.

        Raises:
            LabError: a clip that is not mono, or empty (its index is named), as the recogniser, a recogniser that does
                not give one transcript a clip, or as `KeptTexts.texts`.
        """
        for index, clip in enumerate(waveforms):
            if clip.ndim != 1 or not len(clip):
                raise LabError(f"waveform {index} has shape {clip.shape}; expected one channel of samples")

        def make(missing: list[int]) -> Iterator[tuple[int, str]]:
            # From short to long: the recogniser puts clips of one length in a batch.
            order = sorted(missing, key=lambda place: len(waveforms[place]))
            for start in range(0, len(order), _CHUNK):
                chunk = order[start : start + _CHUNK]
                made = list(self._recognizer.transcribe([waveforms[place] for place in chunk]))
                if len(made) != len(chunk):
                    raise LabError(f"recogniser {self._name!r} gave {len(made)} transcripts for {len(chunk)} clips")
                yield from zip(chunk, made, strict=True)

        return self.kept.texts([_audio_sha256(clip) for clip in waveforms], make)


def _audio_sha256(clip: Float[ndarray, " samples"]) -> bytes:
    digest = hashlib.sha256(f"{clip.dtype.str}\n".encode())
    digest.update(clip.tobytes())
    return digest.digest()
