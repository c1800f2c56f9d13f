"""Planted sounds: what each measure is to find is known from how they are made."""

import numpy as np
import pytest

from lab.data.filters import sound_filters
from lab.data.filters.filtering import Filtered
from lab.data.filters.sound_filters import (
    SOUND_MEASURES,
    bandwidth,
    clipped_share,
    judge_sounds,
    num_speakers,
    signal_to_noise,
    speaker_embeddings,
    speakers,
    voice_share,
)
from lab.data.sample import Audio, Drawn, Sample, Text
from lab.errors import LabError
from lab.training.sample_filters import SAMPLE_FILTERS
from standins.speech import espeak
from tests.data.fakes import tone

RATE = 16000
SENTENCES = (
    "where is the large red ball and who has taken the small green box",
    "the quick brown fox jumps over the lazy dog in the evening sun",
)


def noise(seconds: float, power: float = 0.01) -> np.ndarray:
    drawn = np.random.default_rng(0).standard_normal(round(seconds * RATE))
    return (drawn * np.sqrt(power)).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def music() -> np.ndarray:
    beat = np.arange(3 * RATE) / RATE % 0.5 < 0.25
    return sum(tone(3.0, hertz=hertz) for hertz in (440, 554, 659)) / 3 * beat.astype(np.float32)


def sample(id: str, *sounds: np.ndarray) -> Sample:
    return Sample(id=id, content=(Text("what is said?"), *(Audio(Drawn(lambda s=s: s, ())) for s in sounds)))


def judged(name: str, samples: list[Sample]) -> Filtered:
    return judge_sounds(name, samples, SOUND_MEASURES[name].value)


def half_spoken(sound: np.ndarray) -> np.ndarray:
    return np.arange(len(sound)) >= len(sound) // 2


@pytest.mark.parametrize("decibels", [0, 10, 30])
def test_noise_under_a_voice_is_measured_to_a_decibel(monkeypatch, decibels):
    monkeypatch.setattr(sound_filters, "spoken", half_spoken)
    voice = np.concatenate([silence(1.0), tone(1.0)])
    power = float(np.mean(tone(1.0) ** 2)) / 10 ** (decibels / 10)
    assert signal_to_noise(voice + noise(2.0, power)) == pytest.approx(decibels, abs=1.0)


def test_what_nobody_speaks_in_has_no_signal(monkeypatch):
    monkeypatch.setattr(sound_filters, "spoken", lambda sound: np.zeros(len(sound), bool))
    assert np.isnan(signal_to_noise(noise(1.0)))
    assert judged("snr", [sample("a", noise(1.0))]).dropped == {"no speech": 1}


def test_samples_at_either_rail_are_clipped():
    sound = np.array([0.0, 1.0, -1.0, 0.5] * RATE, np.float32)
    assert clipped_share(sound) == 0.5
    loud = np.clip(20 * tone(1.0), -1, 1)
    assert judged("clipping", [sample("loud", loud), sample("soft", tone(1.0))]).dropped == {"clipped": 1}


def test_the_band_ends_where_the_sound_was_cut_off():
    wide = noise(2.0)
    spectrum = np.fft.rfft(wide)
    spectrum[2 * 3000 :] = 0  # two seconds: a bin is half a hertz
    narrow = np.fft.irfft(spectrum).astype(np.float32)
    assert bandwidth(wide) == 8000
    assert bandwidth(narrow) == pytest.approx(3000, abs=200)
    assert bandwidth(silence(1.0)) == 0
    assert judged("bandwidth", [sample("a", wide), sample("b", narrow)]).dropped == {"narrow band": 1}


def test_all_sounds_of_a_sample_have_to_pass_and_what_is_no_sound_stays():
    def gone() -> np.ndarray:
        raise LabError("gone")

    lost = Sample(id="lost", content=(Audio(Drawn(gone, ())),))
    loud = np.clip(20 * tone(1.0), -1, 1)
    both = sample("both", tone(1.0), loud)
    found = judged("clipping", [both, sample("text"), lost, sample("short", silence(0.05))])
    assert list(found.keep) == [False, True, False, False]
    assert found.dropped == {"clipped": 1, "audio that cannot be read": 2}


def test_windows_that_sound_alike_are_one_speaker(monkeypatch):
    one, other = np.eye(2, 256)
    monkeypatch.setattr(sound_filters, "speaker_embeddings", lambda sound: np.array([one, one, other, one, other]))
    found = speakers(silence(1.0))
    assert found[0] == found[1] == found[3] != found[2] == found[4]
    assert judged("speakers", [sample("a", silence(1.0))]).dropped == {"too many speakers": 1}
    monkeypatch.setattr(sound_filters, "speaker_embeddings", lambda sound: np.empty((0, 256)))
    assert judged("speakers", [sample("a", silence(1.0))]).dropped == {"no speech": 1}


def test_every_measure_is_a_filter_of_samples():
    assert SOUND_MEASURES.keys() <= SAMPLE_FILTERS.keys()


@pytest.mark.slow
@pytest.mark.usefixtures("shared_packages")
def test_silero_hears_speech_and_neither_noise_nor_music_nor_silence():
    voice = np.concatenate([silence(0.5), espeak.synthesize(SENTENCES[0], "en-us+m1"), silence(0.5)])
    mostly_silent = np.concatenate([voice, silence(30.0)])
    assert voice_share(voice) > 0.7
    events = [sample(name, made) for name, made in (("n", noise(2.0)), ("m", music()), ("s", silence(2.0)))]
    found = judged("voice", [sample("said", voice), *events, sample("little", mostly_silent)])
    assert list(found.keep) == [True, False, False, False, False]
    assert found.dropped == {"no speech": 3, "too little speech": 1}
    power = float(np.mean(voice**2)) / 10
    noisy = sample("noisy", voice + noise(len(voice) / RATE, power))
    assert list(judged("snr", [sample("said", voice), noisy]).keep) == [True, False]


@pytest.mark.slow
@pytest.mark.usefixtures("shared_packages")
def test_two_voices_one_after_the_other_are_two_speakers():
    a, b = (espeak.synthesize(SENTENCES[0], voice) for voice in ("en-us+m1", "en-us+f3"))
    again = espeak.synthesize(SENTENCES[1], "en-us+m1")
    assert np.allclose(np.linalg.norm(speaker_embeddings(a), axis=1), 1.0, atol=1e-5)
    assert (num_speakers(np.concatenate([a, again])), num_speakers(np.concatenate([a, b]))) == (1, 2)
