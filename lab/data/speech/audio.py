"""Audio files and bytes, of any container and codec that FFmpeg reads, as float32 mono samples in [-1, 1]."""

import io
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soundfile
from jaxtyping import Float
from numpy import ndarray
from scipy.signal import resample_poly

from lab.errors import LabError, reason

SAMPLING_RATE = 16000
PCM_SCALE = 32768.0
# Who writes WAV into a pipe does not know its size: FFmpeg says 0xffffffff, SoX 0x7ffff000 rounded to whole samples,
# of AIFF 0x7f000000.
_UNKNOWN_SIZE = 0x7F000000
_TELL_LENGTH = ("aiff", "au", "nistsphere")
# A sum of channels or a lossy codec passes 1 by little; samples that count to 32768 are another scale.
_MAX_PEAK = 10.0
# Of the energies of two mixes: 20 dB.
_CANCELLED = 100.0


@dataclass(frozen=True)
class Clip:
    """A stretch of the file in which a prepared corpus keeps all its sounds: 16 bits a sample, 16 kHz, mono."""

    file: Path
    start: int
    num_samples: int

    def read(self) -> Float[ndarray, " samples"]:
        """Its samples, float32."""
        try:
            found = np.fromfile(self.file, dtype="<i2", count=self.num_samples, offset=2 * self.start)
        except OSError as error:
            raise LabError(
                f"{self.file} cannot be read: {error.strerror or error}; prepare its corpus again"
            ) from error
        if len(found) < self.num_samples:
            raise LabError(f"{self.file} is cut off; delete its folder to prepare the corpus again")
        return found.astype(np.float32) / np.float32(PCM_SCALE)


def read_audio(
    source: Path | bytes, *, name: str | None = None, format: str | None = None
) -> Float[ndarray, " samples"]:
    """Decode, mix to mono and resample to 16 kHz.

    The mix is the mean of the channels, however many there are. Where they cancel out (one wire of a stereo pair was
    turned over), it is the mean with every second channel turned: where that has 100 times the energy (20 dB).

    `name` stands for the audio in messages (a path names itself); `format` is FFmpeg's name of a container that
    cannot be told from its bytes (`"g722"`).

    Raises:
        LabError: missing, empty, truncated or broken, not audio, without samples, or with samples that are not finite
            or far outside [-1, 1]. What does not have its length in the header, such as MP3, can lose whole frames at
            its end unseen, and so can CAF and Wave64.
    """
    name = name or ("audio bytes" if isinstance(source, bytes) else str(source))
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
    except OSError as error:
        raise LabError(f"{name} cannot be read: {error.strerror or error}; expected an audio file") from error
    if not data:
        raise LabError(f"{name} is empty; expected an audio file")
    _refuse_truncated_wave(data, name)
    if format is None and name.endswith((".g722", ".G722")):
        format = "g722"
    try:
        with av.open(io.BytesIO(data), mode="r", format=format) as container:
            if not container.streams.audio:
                raise LabError(f"{name} holds no audio stream; expected an audio file")
            return decode_audio(container, container.streams.audio[0], name=name)
    except LabError:
        raise
    except Exception as error:  # of broken bytes PyAV raises more than FFmpeg's errors
        raise LabError(f"{name} is not audio that can be read ({reason(error)})") from error


def decode_audio(
    container: av.container.InputContainer, stream: av.AudioStream, *, name: str
) -> Float[ndarray, " samples"]:
    """Decode one stream of an open container, from where it stands, as `read_audio` does with a whole file."""
    if stream.codec_context is None:
        raise LabError(f"{name} has sound that is coded in a way that FFmpeg does not know")
    # These headers say how long the audio is, unless it was written into a pipe; else FFmpeg mostly guesses from the
    # size of the file.
    declared = None
    if (stream.codec.name == "flac" or container.format.name in _TELL_LENGTH) and stream.duration and stream.time_base:
        declared = float(stream.duration * stream.time_base)
        if declared * (stream.codec_context.bit_rate or 0) / 8 >= 0.99 * _UNKNOWN_SIZE:
            declared = None
    # FFmpeg mixes stereo to mono by 0.71, not by half, which clips; so the channels stay and are mixed here. One beside
    # the other: of 8 and more channels apart, PyAV reads planes that are not there.
    resampler = av.AudioResampler(format="flt", rate=SAMPLING_RATE)
    blocks: list[ndarray] = []
    seconds = 0.0
    try:
        for frame in container.decode(stream):
            seconds += frame.samples / frame.sample_rate
            blocks.extend(map(_mixes, resampler.resample(frame)))
        blocks.extend(map(_mixes, resampler.resample(None)))
        mixes = np.concatenate(blocks, axis=1) if blocks else np.zeros((1, 0), np.float32)
    except Exception as error:  # as in `read_audio`
        raise LabError(f"{name} is truncated or broken after {seconds:.2f} seconds ({reason(error)})") from error
    if not mixes.size:
        raise LabError(f"{name} holds zero audio samples")
    if declared is not None and seconds < 0.99 * declared:
        raise LabError(f"{name} is truncated: {seconds:.2f} of {declared:.2f} seconds are there")
    plain, turned = (float(np.vdot(mixes[at], mixes[at])) for at in (0, -1))
    samples = checked(mixes[-1 if turned > _CANCELLED * plain else 0], name)
    return np.clip(samples.astype(np.float32, copy=False), -1.0, 1.0)


def _mixes(block: av.AudioFrame) -> Float[ndarray, "mixes samples"]:
    """The mean of a block's channels, and where there are several, that with every second one turned over."""
    channels = block.to_ndarray().reshape(-1, block.layout.nb_channels)
    if channels.shape[1] == 1:
        return channels.T
    turned = channels * np.where(np.arange(channels.shape[1]) % 2, -1, 1).astype(np.float32)
    return np.stack([channels.mean(1), turned.mean(1)])


def checked(samples: Float[ndarray, " samples"], name: str) -> Float[ndarray, " samples"]:
    """The same samples; a LabError where one is not a finite number, or they are of another scale."""
    peak = float(np.abs(samples).max(initial=0.0))
    if not peak <= _MAX_PEAK:
        raise LabError(f"{name} has samples of up to {peak:g}; expected finite numbers from -1 to 1")
    return samples


def _refuse_truncated_wave(data: bytes, name: str) -> None:
    """FFmpeg silently shortens a WAV file whose data chunk is longer than the file, so its header is read here.

    Of a RIFF above 4 GB (RF64, BW64) the size stands in a chunk of its own before all others.
    """
    if data[:4] not in (b"RIFF", b"RF64", b"BW64") or data[8:12] != b"WAVE":
        return
    large = struct.unpack_from("<Q", data, 28)[0] if data[12:16] == b"ds64" and len(data) >= 36 else 0
    position = 12
    while position + 8 <= len(data):
        chunk, size = struct.unpack_from("<4sI", data, position)
        if chunk == b"data":
            present = len(data) - position - 8
            size, is_known = (large, True) if large and size == 0xFFFFFFFF else (size, size < _UNKNOWN_SIZE)
            if is_known and present < size:
                raise LabError(f"{name} is truncated: {present} of {size} bytes of audio are there")
            return
        position += 8 + size + size % 2
    raise LabError(f"{name} is truncated: a WAV file without a data chunk")


def encoded(samples: Float[ndarray, " samples"]) -> tuple[str, bytes]:
    """A file's ending and bytes that read as these samples of 16 kHz: FLAC, or WAV where 16 bits would lose some."""
    steps = samples.astype(np.float32) * np.float32(PCM_SCALE)
    fits = np.array_equal(np.clip(np.rint(steps), -PCM_SCALE, PCM_SCALE - 1), steps)
    kind, values, subtype = ("FLAC", steps.astype(np.int16), "PCM_16") if fits else ("WAV", samples, "FLOAT")
    buffer = io.BytesIO()
    soundfile.write(buffer, values, SAMPLING_RATE, format=kind, subtype=subtype)
    return f".{kind.lower()}", buffer.getvalue()


def resample(
    samples: Float[ndarray, " samples"], from_rate: int, to_rate: int = SAMPLING_RATE
) -> Float[ndarray, " resampled"]:
    """Resample float32 mono samples by a polyphase filter; a third of the cost of FFmpeg's resampler on short clips."""
    if from_rate == to_rate or not samples.size:
        return samples.astype(np.float32, copy=False)
    common = math.gcd(from_rate, to_rate)
    resampled = resample_poly(samples.astype(np.float32, copy=False), to_rate // common, from_rate // common)
    return np.clip(resampled, -1.0, 1.0)


def change_speed(samples: Float[ndarray, " samples"], speed: float) -> Float[ndarray, " faster"]:
    """Play faster (speed > 1) or slower, pitch with it, by linear interpolation: the usual speed perturbation.

    Ko et al. 2015, "Audio augmentation for speech recognition", is where factors of 0.9 and 1.1 come from.
    """
    if not 0 < speed < math.inf:
        raise LabError(f"speed is {speed}, expected a positive number")
    if speed == 1.0:
        return samples
    positions = np.arange(0, len(samples) - 1, speed)
    return np.interp(positions, np.arange(len(samples)), samples).astype(np.float32)
