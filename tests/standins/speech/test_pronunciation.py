import numpy as np
import pytest

from standins.models.character_model import NUM_PHONEMES, Pronunciation, pronounce, stack_frames
from standins.speech.espeak import PHONEMES, VOWELS, WORD_BOUNDARY, phonemes

SENTENCE = "the quick brown fox jumps over the lazy dog"


def spoken(*, seed: int = 0, error_rate: float = 0.0, variation: float = 1.0, sentence: str = SENTENCE) -> np.ndarray:
    return Pronunciation.of(sentence).frames(np.random.default_rng(seed), error_rate=error_rate, variation=variation)


def heard(frames: np.ndarray) -> list[str]:
    """Phonemes in order, repeats of a frame merged."""
    best = frames.argmax(1)
    return [PHONEMES[b] for i, b in enumerate(best) if i == 0 or b != best[i - 1]]


def test_a_pronunciation_holds_the_phonemes_of_its_sentence():
    assert [PHONEMES[i] for i in Pronunciation.of(SENTENCE).indices] == list(phonemes(SENTENCE))


def test_frames_have_a_channel_a_phoneme_and_repeat_with_their_seed():
    frames = spoken(seed=4, error_rate=0.3)
    assert frames.dtype == np.float32
    assert frames.shape[1] == NUM_PHONEMES == len(PHONEMES)
    np.testing.assert_array_equal(frames, spoken(seed=4, error_rate=0.3))
    assert len(spoken(seed=5, error_rate=0.3)) != len(frames)


def test_without_errors_or_variation_the_phonemes_can_be_read_off():
    expected = [p for p in phonemes(SENTENCE) if p != WORD_BOUNDARY]
    merged = [p for i, p in enumerate(expected) if i == 0 or p != expected[i - 1]]
    assert heard(spoken(variation=0.0)) == merged


def test_without_variation_a_vowel_lasts_five_frames_and_a_consonant_four():
    sounds = [p for p in phonemes(SENTENCE) if p != WORD_BOUNDARY]
    # 92 and 74 ms in frames of 20 ms, rounded.
    assert len(spoken(variation=0.0)) == sum(5 if p in VOWELS else 4 for p in sounds)


def test_tempo_differs_between_tellings_by_the_range_of_a_speaker():
    plain = len(spoken(variation=0.0))
    lengths = [len(spoken(seed=seed)) / plain for seed in range(200)]
    assert 0.55 < min(lengths) < 0.85
    assert 1.2 < max(lengths) < 1.75


@pytest.mark.parametrize("error_rate", [0.2, 0.6])
def test_three_fifths_of_the_errors_are_substitutions(error_rate):
    """A phoneme is substituted with probability 0.6 * error_rate, in 1 of 40 cases by itself."""
    vowels = Pronunciation(np.full(4000, PHONEMES.index("a")))
    frames = vowels.frames(np.random.default_rng(0), error_rate=error_rate, variation=0.0)
    # Each phoneme is 5 frames, a shortened one 2.5 on average: the fewer frames, the larger the share of the others.
    substituted, shortened = 0.6 * error_rate * (1 - 1 / (NUM_PHONEMES - 1)), 0.4 * error_rate
    clean = frames.argmax(1) == PHONEMES.index("a")
    assert 1 - clean.mean() == pytest.approx(substituted / (1 - shortened / 2), abs=0.05)
    assert len(frames) == pytest.approx(4000 * 5 * (1 - shortened / 2), rel=0.02)


def test_a_phoneme_runs_into_its_neighbours():
    rng = np.random.default_rng(0)
    frames = Pronunciation(np.array([1, 20])).frames(rng, error_rate=0.0, variation=0.0)
    # Noise is 0.02; inside a phoneme a frame is 1 (half of itself, a quarter of each neighbour), at its edge 3/4.
    assert frames[2, 1] == pytest.approx(1.0, abs=0.1)
    assert frames[4, 1] == pytest.approx(0.75, abs=0.1)
    assert frames[4, 20] == pytest.approx(0.25, abs=0.1)


@pytest.mark.parametrize("indices", [[], [PHONEMES.index(WORD_BOUNDARY)]])
def test_silence_is_a_frame_of_the_boundary(indices):
    silent = Pronunciation(np.array(indices, dtype=np.int64))
    frames = silent.frames(np.random.default_rng(0), error_rate=0.0, variation=0.0)
    assert frames.shape == (1, NUM_PHONEMES)
    assert frames.argmax() == PHONEMES.index(WORD_BOUNDARY)


def test_stacking_of_a_worked_example():
    frames = np.arange(1, 6, dtype=np.float32)[:, None] * [1, 10]
    assert stack_frames(frames, 2).tolist() == [[1, 10, 2, 20], [3, 30, 4, 40], [5, 50, 0, 0]]
    assert stack_frames(frames, 2, offset=1).tolist() == [[0, 0, 1, 10], [2, 20, 3, 30], [4, 40, 5, 50]]


@pytest.mark.parametrize("rate", [1, 2, 4, 8])
@pytest.mark.parametrize("num_frames", [1, 7, 8, 9])
def test_stacking_keeps_every_frame_once_and_in_order(rate, num_frames):
    frames = np.arange(1, num_frames + 1, dtype=np.float32)[:, None]
    for offset in range(rate):
        stacked = stack_frames(frames, rate, offset=offset)
        assert stacked.shape == (-(-(num_frames + offset) // rate), rate)
        np.testing.assert_array_equal(stacked[stacked > 0], frames[:, 0])
        assert stacked.ravel()[offset] == 1


def test_each_distinct_sentence_is_pronounced_once():
    found = pronounce(["a cat", "a dog", "a cat"])
    assert list(found) == ["a cat", "a dog"]
    np.testing.assert_array_equal(found["a dog"].indices, Pronunciation.of("a dog").indices)
