"""Transcripts kept on disk, each clip heard once: a second threshold hears nothing twice (paper, section 3)."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from numpy import ndarray

from lab.data.kept import Kept
from lab.errors import LabError

if TYPE_CHECKING:
    from lab.parts.audio_encoders import SpeechRecognizer

# Transcribed together, and kept before the next: what a kill loses at most. As many as `listen` holds.
_CHUNK = 64


class KeptTranscripts:
    """The transcripts of a recogniser called `name`, each clip (known by its samples) transcribed once."""

    def __init__(self, recognizer: "SpeechRecognizer", *, name: str) -> None:
        self.kept = Kept("transcripts", name, recognizer.key, what=f"the transcripts of {name!r}")
        self._recognizer = recognizer

    def transcribe(self, waveforms: Sequence[Float[ndarray, " samples"]]) -> list[str]:
        """The transcript of each 16 kHz clip, in their order.

        Raises:
            LabError: a clip that is not mono, or empty (its index is named), as the recogniser, or as `Kept.values`.
        """
        for index, clip in enumerate(waveforms):
            if clip.ndim != 1 or not len(clip):
                raise LabError(f"waveform {index} has shape {clip.shape}; expected one channel of samples")

        def make(missing: list[int]) -> Iterator[tuple[int, str]]:
            # From short to long: the recogniser puts clips of one length in a batch.
            order = sorted(missing, key=lambda place: len(waveforms[place]))
            for start in range(0, len(order), _CHUNK):
                chunk = order[start : start + _CHUNK]
                heard = self._recognizer.transcribe([waveforms[place] for place in chunk])
                yield from zip(chunk, heard, strict=True)

        keys = [hashlib.sha256(f"{clip.dtype.str}\n".encode() + clip.tobytes()).digest() for clip in waveforms]
        return self.kept.values(keys, make)
