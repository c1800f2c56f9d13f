import errno
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lab.data.speech import features as module
from lab.data.speech.corpora import Corpus, Utterance, prepare
from lab.data.speech.features import change_speed, mean_and_std, store_features
from lab.data.speech.recordings import Recording
from lab.errors import LabError
from lab.paths import cache_dir
from tests.data.fakes import reading

SAMPLES_A_FRAME = 320
HIDDEN_SIZE = 3
# Not in order of length, and none a multiple of a frame.
SECONDS = [0.91, 0.33, 1.27, 0.52, 0.71]


class Encoder:
    """Cuts samples into frames of 20 ms; three statistics of each. Counts its calls."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def __call__(self, clips: list[np.ndarray]) -> list[np.ndarray]:
        self.calls.append([len(clip) for clip in clips])
        return [self.frames(clip) for clip in clips]

    @staticmethod
    def frames(clip: np.ndarray) -> np.ndarray:
        windows = clip[: len(clip) // SAMPLES_A_FRAME * SAMPLES_A_FRAME].reshape(-1, SAMPLES_A_FRAME)
        return np.stack([windows.mean(1), windows.std(1), windows.max(1)], axis=1).astype(np.float32)


@pytest.fixture
def make_corpus(tmp_path: Path) -> Callable[..., Corpus]:
    def make(seed: int = 0) -> Corpus:
        rng = np.random.default_rng(seed)
        recordings = [
            Recording(
                id=f"clip{i}",
                text=f"sentence number {'abcde'[i]}",
                speaker="someone",
                audio=partial(np.clip, rng.normal(0, 0.1, round(seconds * 16000)).astype(np.float32), -1, 1),
            )
            for i, seconds in enumerate(SECONDS)
        ]
        folder = tmp_path / f"corpus{seed}"
        prepare("fake:set/x", reading(recordings), folder, options={})
        return Corpus(folder=folder)

    return make


@pytest.fixture
def corpus(make_corpus: Callable[..., Corpus]) -> Corpus:
    return make_corpus()


def stores() -> list[Path]:
    return sorted(path for path in (cache_dir() / "features").iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize("chunk", [512, 2, 1])
def test_store_gives_what_the_encoder_gave_in_half_precision(corpus, monkeypatch, chunk):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    store = store_features(corpus, Encoder(), encoder_key="k")
    assert len(corpus.utterances) == len(SECONDS)
    for utterance in corpus.utterances:
        expected = Encoder.frames(corpus.audio(utterance)).astype(np.float16)
        found = store.features(utterance)
        assert found.dtype == np.float16
        assert store.num_frames(utterance) == len(expected) == utterance.num_samples // SAMPLES_A_FRAME
        np.testing.assert_array_equal(found, expected)
    assert store.hidden_size == HIDDEN_SIZE


def test_features_are_a_read_only_view_of_the_file(corpus):
    store = store_features(corpus, Encoder(), encoder_key="k")
    frames = store.features(corpus.utterances[0])
    assert isinstance(frames, np.memmap)
    assert not frames.flags.writeable


def test_store_is_computed_once(corpus):
    encoder = Encoder()
    store_features(corpus, encoder, encoder_key="k")
    assert len(encoder.calls) == 1
    store_features(corpus, encoder, encoder_key="k")
    assert len(encoder.calls) == 1


def test_encoder_sees_neighbours_in_length(corpus, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 2)
    encoder = Encoder()
    done = []
    store_features(corpus, encoder, encoder_key="k", progress=lambda *counts: done.append(counts))
    shortest_first = sorted(utterance.num_samples for utterance in corpus.utterances)
    assert encoder.calls == [shortest_first[:2], shortest_first[2:4], shortest_first[4:]]
    assert done == [(2, 5), (4, 5), (5, 5)]


def test_encoder_speed_corpus_and_utterances_each_have_a_store_of_their_own(make_corpus):
    corpus = make_corpus()
    encoder = Encoder()
    store_features(corpus, encoder, encoder_key="k")
    store_features(corpus, encoder, encoder_key="other")
    store_features(corpus, encoder, encoder_key="k", speed=1.1)
    store_features(corpus, encoder, encoder_key="k", utterances=corpus.utterances[:2])
    store_features(corpus, encoder, encoder_key="k", utterances=corpus.utterances[1::-1])
    store_features(make_corpus(seed=1), encoder, encoder_key="k")
    assert len(encoder.calls) == 6
    assert len(stores()) == 6


@pytest.mark.parametrize("speed", [0.9, 1.1, 2.0])
def test_faster_audio_is_shorter_by_that_factor(corpus, speed):
    encoder = Encoder()
    store_features(corpus, encoder, encoder_key="k", speed=speed)
    expected = sorted(utterance.num_samples / speed for utterance in corpus.utterances)
    assert encoder.calls[0] == pytest.approx(expected, abs=1.0)


def test_double_speed_takes_every_second_sample():
    samples = np.arange(9, dtype=np.float32)
    faster = change_speed(samples, 2.0)
    assert faster.dtype == np.float32
    assert faster.tolist() == [0, 2, 4, 6]


def test_speed_moves_the_pitch_with_it():
    time = np.arange(16000) / 16000
    slow = change_speed(np.sin(2 * np.pi * 400 * time).astype(np.float32), 0.5)
    peak = np.abs(np.fft.rfft(slow)).argmax() * 16000 / len(slow)
    assert peak == pytest.approx(200, abs=1)


def test_speed_one_is_the_recording_itself():
    samples = np.ones(5, dtype=np.float32)
    assert change_speed(samples, 1.0) is samples


@pytest.mark.parametrize("part", ["part-0.f16", "features.f16", "offsets.npy", "manifest.json"])
def test_full_disk_is_one_sentence_and_leaves_nothing(corpus, monkeypatch, part):
    plain_open = Path.open

    def full(self, *arguments, **options):
        if self.name == part:
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain_open(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    monkeypatch.setattr(Path, "write_bytes", lambda self, data: full(self, "wb").write(data))
    monkeypatch.setattr(Path, "write_text", lambda self, data, encoding: full(self, "w", encoding=encoding).write(data))
    with pytest.raises(LabError, match=r"no space is left for the features of corpus 'fake:set/x' in .*features"):
        store_features(corpus, Encoder(), encoder_key="k")
    assert stores() == []


def test_other_errors_of_the_disk_keep_their_traceback(corpus, monkeypatch):
    def broken(folder, *arguments):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(module, "_write", broken)
    with pytest.raises(OSError, match="Input/output error"):
        store_features(corpus, Encoder(), encoder_key="k")


def test_store_left_unfinished_is_not_opened(corpus):
    def interrupted(clips):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store_features(corpus, interrupted, encoder_key="k")
    assert stores() == []
    # And one whose process was killed, so that nobody tidied up behind it.
    left = cache_dir() / "features" / ".part-killed" / "store"
    left.mkdir(parents=True)
    (left / "features.f16").write_bytes(b"\0" * 6)
    encoder = Encoder()
    store = store_features(corpus, encoder, encoder_key="k")
    assert len(encoder.calls) == 1
    assert store.features(corpus.utterances[0]).any()


def test_no_utterances_are_refused(corpus):
    with pytest.raises(LabError, match=r"not 0 of corpus 'fake:set/x' and 1\.0"):
        store_features(corpus, Encoder(), encoder_key="k", utterances=[])


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_speed_that_is_not_positive_is_refused(corpus, speed):
    with pytest.raises(LabError, match=f"a positive speed, not 5 of corpus 'fake:set/x' and {speed}"):
        store_features(corpus, Encoder(), encoder_key="k", speed=speed)


def test_mean_and_std_are_those_of_all_frames_together(corpus):
    store = store_features(corpus, Encoder(), encoder_key="k")
    frames = np.concatenate([store.features(u) for u in corpus.utterances]).astype(np.float64)
    mean, std = mean_and_std(store, corpus.utterances)
    np.testing.assert_allclose(mean, frames.mean(0), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(std, np.maximum(frames.std(0), 1e-4), rtol=1e-2)


def test_mean_and_std_stop_behind_the_utterance_that_fills_the_frames(corpus):
    store = store_features(corpus, Encoder(), encoder_key="k")
    first: list[Utterance] = corpus.utterances[:1]
    enough = mean_and_std(store, corpus.utterances, max_frames=1)
    np.testing.assert_array_equal(enough[0], mean_and_std(store, first)[0])
