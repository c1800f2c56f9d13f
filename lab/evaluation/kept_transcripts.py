"""Transcripts kept on disk, each clip transcribed once: a second threshold or a killed run hears nothing twice.

Section 3 of the paper (speech held against its text). A clip is known by the SHA-256 of its samples; each recogniser,
known by its name and by its key (weights, language, way of decoding), has a file of its own in the cache.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Protocol

from jaxtyping import Float
from numpy import ndarray

from lab.errors import LabError
from lab.evaluation.kept_texts import KeptTexts
from lab.paths import cache_dir

FORMAT_VERSION = 2
# Kept together, whole or not at all: what a kill loses at most. As many as `listen` holds.
_CHUNK = 64


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
        name: of the recogniser, as `load_speech_recognizer` takes it.
    """

    def __init__(self, recognizer: Recognizer, *, name: str) -> None:
        identity = json.dumps([FORMAT_VERSION, name, recognizer.key])
        self.path = cache_dir() / "transcripts" / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.sqlite"
        self.num_transcribed = 0
        """Clips that were not in the cache, since this was made."""
        self._recognizer = recognizer
        self._name = name
        self._texts = KeptTexts(self.path, what=f"the transcripts of {name!r}")

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
        found = self._texts.read(keys)
        missing = {key: clip for key, clip in zip(keys, waveforms, strict=True) if key not in found}
        # From short to long: the recogniser puts clips of one length in a batch.
        order = sorted(missing, key=lambda key: len(missing[key]))
        for start in range(0, len(order), _CHUNK):
            chunk = order[start : start + _CHUNK]
            made = self._made([missing[key] for key in chunk])
            found |= self._texts.keep(list(zip(chunk, made, strict=True)))
        return [found[key] for key in keys]

    def _made(self, clips: list[Float[ndarray, " samples"]]) -> list[str]:
        made = list(self._recognizer.transcribe(clips))
        if len(made) != len(clips):
            raise LabError(f"recogniser {self._name!r} gave {len(made)} transcripts for {len(clips)} clips")
        self.num_transcribed += len(clips)
        return made


def _audio_sha256(clip: Float[ndarray, " samples"]) -> bytes:
    digest = hashlib.sha256(f"{clip.dtype.str}\n".encode())
    digest.update(clip.tobytes())
    return digest.digest()
