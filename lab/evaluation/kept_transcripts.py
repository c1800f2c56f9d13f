"""Transcripts kept on disk, each clip heard once: a second threshold hears nothing twice (paper, section 3)."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Protocol

from jaxtyping import Float
from numpy import ndarray

from lab.data.kept import Kept
from lab.errors import LabError

# Transcribed together, and kept before the next: what a kill loses at most. As many as `listen` holds.
_CHUNK = 64


class Recognizer(Protocol):
    """What makes transcripts, as `lab.parts.audio_encoders.SpeechRecognizer`."""

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
        self.kept = Kept("transcripts", name, recognizer.key, what=f"the transcripts of {name!r}")
        self._recognizer, self._name = recognizer, name

    def transcribe(self, waveforms: Sequence[Float[ndarray, " samples"]]) -> list[str]:
        """The transcript of each 16 kHz clip, in their order.

        Raises:
            LabError: a clip that is not mono, or empty (its index is named), as the recogniser, a recogniser that does
                not give one transcript a clip, or as `Kept.values`.
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

        return self.kept.values([_audio_sha256(clip) for clip in waveforms], make)


def _audio_sha256(clip: Float[ndarray, " samples"]) -> bytes:
    digest = hashlib.sha256(f"{clip.dtype.str}\n".encode())
    digest.update(clip.tobytes())
    return digest.digest()
