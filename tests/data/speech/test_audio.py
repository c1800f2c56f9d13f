import io
import struct
from contextlib import suppress

import numpy as np
import pytest
import soundfile

from lab.data.sample import Audio, Drawn
from lab.data.speech.audio import change_speed, read_audio, resample
from lab.data.video import read_sound
from lab.errors import LabError
from tests.data.fakes import encoded, tone
from tests.data.films import film


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


@pytest.mark.parametrize("container", ["wav", "flac"])
@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8, 12, 64])
def test_of_any_number_of_channels_the_mean_is_heard(channels, container):
    if container == "flac" and channels > 8:
        pytest.skip("FLAC has 8 channels at most")
    every = np.stack([tone(0.5, hertz=200 + 50 * number) for number in range(channels)], 1)
    samples = read_audio(encoded(every, 16000, "", container))
    np.testing.assert_allclose(samples, every.mean(1), atol=1e-4)


@pytest.mark.parametrize("layout", ["stereo", "5.1", "7.1", "7.1.4"])
def test_the_sound_of_a_film_is_heard_in_any_layout(tmp_path, layout):
    samples = read_sound(film(tmp_path / "a.mkv", sound=tone(1.0, 22050), sound_layout=layout))
    assert samples.size == pytest.approx(16000, abs=750)  # a frame of AAC is 1024 samples, and only whole ones are kept
    assert frequency(samples, 16000) == pytest.approx(440, abs=2)
    assert np.abs(samples).max() == pytest.approx(0.3, abs=0.05)  # AAC cuts what is high of the deep channel


@pytest.mark.parametrize("channels", [2, 6])
@pytest.mark.parametrize("noise", [0.0, 0.0005])
def test_channels_that_cancel_out_are_turned_before_they_are_mixed(channels, noise):
    """A wire that was turned over makes one of two microphones the other's negative: their mean would be silence."""
    signs = np.where(np.arange(channels) % 2, -1.0, 1.0)
    heard = tone()[:, None] * signs + noise * np.random.default_rng(0).standard_normal((8000, channels))
    samples = read_audio(encoded(heard.astype(np.float32), 16000, "", "wav"))
    np.testing.assert_allclose(samples, tone(), atol=0.003)


def test_channels_that_only_differ_are_mixed_as_they_are():
    rng = np.random.default_rng(0)
    for second in (-0.5 * tone(), 0.1 * rng.standard_normal(8000), np.zeros(8000)):
        both = np.stack([tone(), second], 1).astype(np.float32)
        np.testing.assert_allclose(read_audio(encoded(both, 16000, "", "wav")), both.mean(1), atol=1e-4)


@pytest.mark.parametrize(
    "size", [0, 0x7FFFF000, 0x7FFFF000 // 6 * 6, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF - 36, 0xFFFFFFFF]
)
def test_a_wave_file_that_was_written_into_a_pipe_is_read_to_its_end(size):
    data = encoded(tone(), 16000, "", "wav")
    at = data.index(b"data") + 4
    piped = data[:at] + struct.pack("<I", size) + data[at + 4 :]
    np.testing.assert_array_equal(read_audio(piped), read_audio(data))


def test_samples_that_are_no_sound_are_named_and_never_silence():
    for wrong, shown in ((np.nan, "nan"), (np.inf, "inf"), (-np.inf, "inf"), (32768.0, "32768")):
        samples = tone()
        samples[4000] = wrong
        buffer = io.BytesIO()
        soundfile.write(buffer, samples, 16000, format="WAV", subtype="FLOAT")
        message = f"has samples of up to {shown}; expected finite numbers from -1 to 1"
        with pytest.raises(LabError, match=f"a.wav {message}"):
            read_audio(buffer.getvalue(), name="a.wav")
        with pytest.raises(LabError, match=f"the sound {message}"):
            Audio(Drawn(samples.copy, ())).read()


def test_loud_samples_are_clipped():
    buffer = io.BytesIO()
    soundfile.write(buffer, 5 * tone(), 16000, format="WAV", subtype="FLOAT")
    assert np.abs(read_audio(buffer.getvalue())).max() == 1.0


@pytest.mark.parametrize("container", ["wav", "flac", "ogg", "mp3"])
def test_damaged_bytes_are_one_sentence_or_a_sound(container):
    rng = np.random.default_rng(0)
    data = encoded(tone(), 16000, "libmp3lame" if container == "mp3" else "", container)
    for _ in range(100):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 12):
            damaged[place] = rng.integers(0, 256)
        with suppress(LabError):
            assert np.isfinite(read_audio(bytes(damaged), name="clip")).all()


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


@pytest.mark.parametrize("container", ["RF64", "AIFF", "AU", "NIST"])
def test_other_plain_sound_that_is_truncated_is_named(container):
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(), 16000, format=container, subtype="PCM_16")
    data = buffer.getvalue()
    np.testing.assert_allclose(read_audio(data), tone(), atol=1e-4)
    with pytest.raises(LabError, match=r"clip is truncated: .* are there"):
        read_audio(data[: len(data) // 2], name="clip")


@pytest.mark.parametrize("size", [0x7F000000, 0x7FFFF000, 0xFFFFFFFF])
def test_other_plain_sound_that_was_written_into_a_pipe_is_read_to_its_end(size):
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(), 16000, format="AU", subtype="PCM_16")
    data = buffer.getvalue()
    np.testing.assert_array_equal(read_audio(data[:8] + struct.pack(">I", size) + data[12:]), read_audio(data))


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
