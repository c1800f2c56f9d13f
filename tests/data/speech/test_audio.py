import numpy as np
import pytest

from lab.data.speech.audio import change_speed, read_audio, resample
from lab.errors import LabError
from tests.data.fakes import encoded, tone


def frequency(samples: np.ndarray, rate: int) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax() * rate / samples.size)


@pytest.mark.parametrize(
    ("codec", "container", "rate"),
    [
        ("", "wav", 16000),
        ("", "flac", 16000),
        ("", "ogg", 16000),
        ("libmp3lame", "mp3", 16000),
        ("g722", "g722", 16000),
    ],
)
def test_every_container_gives_the_same_tone(tmp_path, codec, container, rate):
    path = tmp_path / f"tone.{container}"
    path.write_bytes(encoded(tone(1.0, rate), rate, codec, container))
    samples = read_audio(path)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert samples.size == pytest.approx(16000, abs=1500)
    assert frequency(samples, 16000) == pytest.approx(440, abs=5)
    assert np.abs(samples).max() == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100])
def test_other_rates_are_resampled_and_the_pitch_stays(rate):
    samples = read_audio(encoded(tone(1.0, rate), rate, "", "wav"))
    assert samples.size == pytest.approx(16000, abs=32)
    assert frequency(samples, 16000) == pytest.approx(440, abs=2)


def test_stereo_becomes_the_mean_of_its_channels():
    left = tone(0.5)
    samples = read_audio(encoded(np.stack([left, np.zeros_like(left)], 1), 16000, "", "wav"))
    assert np.abs(samples).max() == pytest.approx(0.15, abs=0.02)


def test_an_empty_file_is_named(tmp_path):
    path = tmp_path / "empty.wav"
    path.touch()
    with pytest.raises(LabError, match=r"empty.wav is empty"):
        read_audio(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(LabError, match=r"gone.wav cannot be read: No such file"):
        read_audio(tmp_path / "gone.wav")


def test_what_is_not_audio_is_named(tmp_path):
    path = tmp_path / "text.wav"
    path.write_bytes(b"this is a letter, not a sound. " * 40)
    with pytest.raises(LabError, match=r"text.wav is not audio"):
        read_audio(path)


@pytest.mark.parametrize(("container", "kept"), [("wav", 0.5), ("flac", 0.5), ("wav", 0.001)])
def test_a_truncated_file_is_named(container, kept):
    noise = np.random.default_rng(0).normal(0, 0.1, 32000).astype(np.float32)
    data = encoded(noise, 16000, "", container)
    with pytest.raises(LabError, match=r"clip\..* is (truncated|not audio)"):
        read_audio(data[: max(40, int(len(data) * kept))], name=f"clip.{container}")


def test_a_file_with_zero_samples_is_named():
    with pytest.raises(LabError, match=r"silence.wav (holds zero audio samples|is not audio)"):
        read_audio(encoded(np.zeros(0, np.float32), 16000, "", "wav"), name="silence.wav")


def test_resample_keeps_pitch_and_length():
    samples = resample(tone(1.0, 22050), 22050)
    assert samples.dtype == np.float32
    assert samples.size == pytest.approx(16000, abs=1)
    assert frequency(samples, 16000) == pytest.approx(440, abs=2)


def test_resample_at_the_same_rate_changes_nothing():
    np.testing.assert_array_equal(resample(tone(), 16000, 16000), tone())


@pytest.mark.parametrize("speed", [0.9, 1.1, 2.0])
def test_faster_audio_is_shorter_by_that_factor(speed):
    assert len(change_speed(tone(0.5), speed)) == pytest.approx(8000 / speed, abs=1.0)


def test_double_speed_takes_every_second_sample():
    faster = change_speed(np.arange(9, dtype=np.float32), 2.0)
    assert faster.dtype == np.float32
    assert faster.tolist() == [0, 2, 4, 6]


def test_speed_moves_the_pitch_with_it():
    slow = change_speed(tone(1.0, hertz=400), 0.5)
    peak = np.abs(np.fft.rfft(slow)).argmax() * 16000 / len(slow)
    assert peak == pytest.approx(200, abs=1)


def test_speed_one_is_the_recording_itself():
    samples = np.ones(5, dtype=np.float32)
    assert change_speed(samples, 1.0) is samples


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_speed_that_is_not_positive_is_refused(speed):
    with pytest.raises(LabError, match=f"speed is {speed}, expected a positive number"):
        change_speed(tone(), speed)
