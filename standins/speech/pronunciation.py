"""Sentences as noisy pronunciations: phonemes stretched to 20 ms frames, with the errors that a recogniser would make.

What the character language model learns to read before it hears any speech (ours; the paper starts from an LLM that
has read trillions of tokens). Axes: `frames` (20 ms each), `phonemes` (one channel a phoneme of eSpeak NG).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from standins.speech.espeak import PHONEMES, VOWELS, WORD_BOUNDARY, phonemes

NUM_PHONEMES = len(PHONEMES)
_INDEX = {phoneme: i for i, phoneme in enumerate(PHONEMES)}
_IS_VOWEL = np.array([phoneme in VOWELS for phoneme in PHONEMES])
_BOUNDARY = _INDEX[WORD_BOUNDARY]

# Mean frames of a vowel and of a consonant (92 and 74 ms), and how far they scatter (log-normal).
_VOWEL_FRAMES, _CONSONANT_FRAMES, _SCATTER = 4.6, 3.7, 0.35
# A speaker is up to this much faster or slower than the mean.
_SLOWEST, _FASTEST = 1.35, 0.7
# Most word boundaries are not heard; a pause lasts up to 8 frames.
_UNHEARD_BOUNDARIES, _LONGEST_PAUSE = 0.6, 8.0
_SUBSTITUTED_SHARE = 0.6


@dataclass(frozen=True)
class Pronunciation:
    """The phonemes of a sentence as indices into `PHONEMES`."""

    indices: ndarray

    @classmethod
    def of(cls, sentence: str) -> "Pronunciation":
        """Look up a sentence's phonemes (General American)."""
        return cls(np.array([_INDEX[phoneme] for phoneme in phonemes(sentence)], dtype=np.int64))

    def frames(
        self, rng: np.random.Generator, *, error_rate: float, variation: float = 1.0
    ) -> Float[ndarray, "frames phonemes"]:
        """Say it once: each phoneme lasts some frames, runs into its neighbours, and is now and then misheard.

        Of `error_rate` (0 to 1), three fifths are substitutions and the rest phonemes cut short or lost. `variation`
        (0 to 1) scales how far tempo, lengths and pauses differ from one telling to the next.
        """
        heard = self.indices.copy()
        count = len(heard)
        tempo = 1 + variation * (rng.uniform(_FASTEST, _SLOWEST) - 1)
        mean = np.where(_IS_VOWEL[heard], _VOWEL_FRAMES, _CONSONANT_FRAMES)
        frames = mean * tempo * np.exp(_SCATTER * variation * rng.standard_normal(count))
        boundary = heard == _BOUNDARY
        pauses = rng.uniform(1, _LONGEST_PAUSE, count) * (rng.random(count) >= _UNHEARD_BOUNDARIES)
        frames[boundary] = pauses[boundary] * variation
        luck = rng.random(count)
        substituted = luck < error_rate * _SUBSTITUTED_SHARE
        heard[substituted] = rng.integers(1, NUM_PHONEMES, int(substituted.sum()))
        shortened = (luck < error_rate) & ~substituted
        frames[shortened] *= rng.random(int(shortened.sum()))
        lengths = np.maximum(np.round(frames), np.where(boundary | shortened, 0, 1)).astype(np.int64)
        sequence = np.repeat(heard, lengths)
        if len(sequence) == 0:
            sequence = np.array([_BOUNDARY])
        one_hot = np.zeros((len(sequence), NUM_PHONEMES), dtype=np.float32)
        one_hot[np.arange(len(sequence)), sequence] = 1
        blurred = one_hot.copy()
        blurred[1:] += 0.5 * one_hot[:-1]
        blurred[:-1] += 0.5 * one_hot[1:]
        noise = np.float32(0.02 + 0.15 * error_rate)
        return blurred / 2 + noise * rng.standard_normal(blurred.shape, dtype=np.float32)


def stack_frames(
    frames: Float[ndarray, "frames channels"], rate: int, *, offset: int = 0
) -> Float[ndarray, "windows stacked"]:
    """Lay `rate` frames side by side, the first window beginning `offset` frames before the audio; ends are zeros.

    Five frames 0..4 at rate 2 and offset 1 give the windows (. 0) (1 2) (3 4).
    """
    num_windows = -(-(len(frames) + offset) // rate)
    padded = np.zeros((num_windows * rate, frames.shape[1]), dtype=np.float32)
    padded[offset : offset + len(frames)] = frames
    return padded.reshape(num_windows, -1)


def pronounce(sentences: Sequence[str]) -> dict[str, Pronunciation]:
    """The pronunciation of each distinct sentence."""
    return {sentence: Pronunciation.of(sentence) for sentence in dict.fromkeys(sentences)}
