"""Transcripts kept on disk, each clip transcribed once: a second threshold or a killed run hears nothing twice.

Section 3 of the paper (speech held against its text). A clip is known by the SHA-256 of its samples; each recogniser,
known by its name and by its key (weights, language, way of decoding), has a file of its own in the cache.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Protocol

from filelock import FileLock
from jaxtyping import Float
from numpy import ndarray

from lab.errors import LabError
from lab.paths import cache_dir

FORMAT_VERSION = 1
# Kept together, whole or not at all: what a kill loses at most. As many as `listen` holds.
_CHUNK = 64
# Another process holds the file for one chunk's lines only.
_WAIT_SECONDS = 600
_TABLE = "CREATE TABLE IF NOT EXISTS transcripts (audio BLOB PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID"


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
    """A recogniser's transcripts: what the cache has is read, the rest is transcribed and kept.

    Several processes may share the file. Where two transcribe one clip at the same moment, the first transcript stays
    and both return it.

    Args:
        recognizer: makes what is not there; its key is asked once.
        name: of the recogniser, as `open_speech_recognizer` takes it.
    """

    def __init__(self, recognizer: Recognizer, *, name: str) -> None:
        identity = json.dumps([FORMAT_VERSION, name, recognizer.key])
        self.path = cache_dir() / "transcripts" / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.sqlite"
        self.num_transcribed = 0
        """Clips that were not in the cache, since this was made."""
        self._recognizer = recognizer
        self._name = name

    def transcribe(self, waveforms: Sequence[Float[ndarray, " samples"]]) -> list[str]:
        """The transcript of each 16 kHz clip, in their order; an empty one is kept as any.

        Raises:
            LabError: a clip that is not mono, or empty (its index is named), as the recogniser, a recogniser that does
                not give one transcript a clip, or a cache that cannot be read or written.
        """
        for index, clip in enumerate(waveforms):
            if clip.ndim != 1 or not len(clip):
                raise LabError(f"waveform {index} has shape {clip.shape}; expected one channel of samples")
        if not waveforms:
            return []
        keys = [_audio_sha256(clip) for clip in waveforms]
        with self._opened() as store:
            found = _read(store, keys)
        missing = {key: clip for key, clip in zip(keys, waveforms, strict=True) if key not in found}
        # From short to long: the recogniser puts clips of one length in a batch.
        order = sorted(missing, key=lambda key: len(missing[key]))
        for start in range(0, len(order), _CHUNK):
            chunk = order[start : start + _CHUNK]
            made = self._made([missing[key] for key in chunk])
            with self._opened() as store:
                with store:
                    lines = zip(chunk, made, strict=True)
                    store.executemany("INSERT OR IGNORE INTO transcripts VALUES (?, ?)", lines)
                found |= _read(store, chunk)
        return [found[key] for key in keys]

    def _made(self, clips: list[Float[ndarray, " samples"]]) -> list[str]:
        made = list(self._recognizer.transcribe(clips))
        if len(made) != len(clips):
            raise LabError(f"recogniser {self._name!r} gave {len(made)} transcripts for {len(clips)} clips")
        self.num_transcribed += len(clips)
        return made

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The file, closed again behind; nothing of the recogniser's runs in here, so all errors are the file's."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # SQLite does not wait for who turns the journal over at the same moment.
            with FileLock(f"{self.path}.lock"):
                store = sqlite3.connect(self.path, timeout=_WAIT_SECONDS)
                try:
                    store.execute("PRAGMA journal_mode = WAL")
                    store.execute(_TABLE)
                except sqlite3.Error:
                    store.close()
                    raise
            with closing(store):
                yield store
        except (OSError, sqlite3.Error) as error:
            raise LabError(
                f"the transcripts of {self._name!r} cannot be kept in {self.path} ({error}); free some disk, or remove "
                "the file if it is damaged"
            ) from error


def _audio_sha256(clip: Float[ndarray, " samples"]) -> bytes:
    digest = hashlib.sha256(f"{clip.dtype.str}\n".encode())
    digest.update(clip.tobytes())
    return digest.digest()


def _read(store: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, str]:
    """Of these clips, those that are there."""
    found = {}
    for key in dict.fromkeys(keys):
        line = store.execute("SELECT text FROM transcripts WHERE audio = ?", (key,)).fetchone()
        if line is not None:
            found[key] = line[0]
    return found
