"""What is measured of a sound with speech, by which samples stay or go (paper, section 2.1), one number a sound.

Voice activity is silero-vad's, speakers are told apart by Resemblyzer's voice encoder and scikit-learn; both weights
stand in pinned packages. DNSMOS and its like are left out: no package holds their weights.
"""

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.signal import welch
from sklearn.cluster import AgglomerativeClustering
from torch import nn

from lab.data.fetch import fetch
from lab.data.filters.filtering import Filtered, first_reason
from lab.data.filters.speech_agreement import MIN_SECONDS, UNREADABLE
from lab.data.sample import Audio, Sample
from lab.data.speech.audio import SAMPLING_RATE
from lab.errors import LabError, TryAgain

SILERO, RESEMBLYZER = "silero-vad", "resemblyzer"
NO_SPEECH = "no speech"
_RAIL = 0.999
_FRAME = SAMPLING_RATE // 50  # 20 ms
_BAND_DECIBELS = 60
# A cosine distance, ours: a larger one takes two people for one more often, a smaller one one person for two.
_SPEAKER_DISTANCE = 0.32
_WINDOW, _STEP, _HOP, _FFT, _LOUDNESS = 160, 80, 160, 400, 10 ** (-30 / 20)  # Resemblyzer's: 1.6 s of 10 ms frames
Sound = Float[ndarray, " samples"]
Values = Float[ndarray, " samples"]


@cache
def _silero() -> tuple[Any, Any]:
    """Silero's own functions, and the model; its package sets the threads of the whole process when it is imported."""
    folder = fetch(SILERO) / "silero_vad"
    spec = importlib.util.spec_from_file_location("silero_vad_utils", folder / "utils_vad.py")
    assert spec is not None
    assert spec.loader is not None
    functions = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(functions)
    return functions, functions.init_jit_model(str(folder / "data" / "silero_vad.jit"))


def spoken(sound: Sound) -> Bool[ndarray, " samples"]:
    """Where somebody speaks in a sound of 16 kHz, by silero-vad with its own thresholds."""
    functions, model = _silero()
    found = np.zeros(len(sound), dtype=bool)
    with torch.no_grad():
        for span in functions.get_speech_timestamps(torch.from_numpy(np.array(sound)), model):
            found[span["start"] : span["end"]] = True
    return found


def voice_share(sound: Sound) -> float:
    """The share of a sound in which somebody speaks, from 0 to 1; 0 of noise, music and silence."""
    return float(spoken(sound).mean())


def signal_to_noise(sound: Sound) -> float:
    """Power of speech over noise, dB: the noise is the tenth of 20 ms frames that are quietest; NaN without speech."""
    where = spoken(sound)
    if not where.any():
        return math.nan
    power = np.square(sound.astype(np.float64))
    noise = float(np.quantile(power[: len(power) // _FRAME * _FRAME].reshape(-1, _FRAME).mean(1), 0.1)) + 1e-12
    return 10 * math.log10(max(float(power[where].mean()) - noise, 1e-12) / noise)


def clipped_share(sound: Sound) -> float:
    """The share of samples at either end of the scale, from 0 to 1."""
    return float((np.abs(sound) >= _RAIL).mean())


def bandwidth(sound: Sound) -> float:
    """The highest frequency, Hz, whose mean power lies within 60 dB of the strongest one's; 0 of silence.

    The frequency below which 99% of the energy lies tells little: of clean speech at 16 kHz it is often 1 kHz.
    """
    frequencies, power = welch(sound, SAMPLING_RATE, nperseg=min(512, len(sound)))
    heard = np.flatnonzero(power > power.max() * 10 ** (-_BAND_DECIBELS / 10))
    return float(frequencies[heard[-1]]) if len(heard) else 0.0


@cache
def _voice_encoder() -> nn.ModuleDict:
    """Resemblyzer's network: an LSTM over 40 mel bins, and a linear layer over its last state."""
    layers = nn.ModuleDict({"lstm": nn.LSTM(40, 256, 3, batch_first=True), "linear": nn.Linear(256, 256)})
    weights = torch.load(fetch(RESEMBLYZER) / "resemblyzer" / "pretrained.pt", map_location="cpu", weights_only=True)
    layers.load_state_dict({name: value for name, value in weights["model_state"].items() if "similarity" not in name})
    return layers.requires_grad_(False).eval()


def speaker_embeddings(sound: Sound) -> Float[ndarray, "windows 256"]:
    """Who speaks in each 1.6 s of what is spoken, every 0.8 s: vectors of length 1; what is shorter is padded."""
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    said = sound[spoken(sound)]
    if not len(said):
        return np.empty((0, 256), np.float32)
    said = said * max(1.0, _LOUDNESS / (float(np.sqrt(np.mean(said**2))) + 1e-9))
    said = np.pad(said, (0, max(0, _WINDOW * _HOP - len(said))))
    bank: dict[str, Any] = {"num_frequency_bins": _FFT // 2 + 1, "num_mel_filters": 40, "sampling_rate": SAMPLING_RATE}
    filters = mel_filter_bank(**bank, min_frequency=0, max_frequency=8000, norm="slaney", mel_scale="slaney")
    hann = window_function(_FFT, "hann")
    mel = spectrogram(said, hann, _FFT, _HOP, power=2.0, mel_filters=filters, pad_mode="constant").T
    windows = np.stack([mel[at : at + _WINDOW] for at in range(0, len(mel) - _WINDOW + 1, _STEP)])
    layers = _voice_encoder()
    _, (hidden, _) = layers["lstm"](torch.from_numpy(windows).float())
    embedded: Float[ndarray, "windows 256"] = nn.functional.normalize(layers["linear"](hidden[-1]).relu()).numpy()
    return embedded


def speakers(sound: Sound) -> Float[ndarray, " windows"]:
    """The number of the speaker of each window of `speaker_embeddings`, by average linkage of cosine distances."""
    embedded = speaker_embeddings(sound)
    if len(embedded) < 2:
        return np.zeros(len(embedded))
    clusters = AgglomerativeClustering(
        n_clusters=None, distance_threshold=_SPEAKER_DISTANCE, metric="cosine", linkage="average"
    )
    return np.asarray(clusters.fit_predict(embedded))


def num_speakers(sound: Sound) -> float:
    """How many people speak; 0 without speech."""
    return float(len(np.unique(speakers(sound))))


@dataclass(frozen=True, kw_only=True)
class SoundMeasure:
    """A number of a sound, the threshold where a source names none, and why sounds go by their numbers and it.

    `most` is the greatest threshold that there is, `packages` are those whose models measure.
    """

    of: Callable[[Sound], float]
    value: float
    goes: Callable[[Values, float], Mapping[str, Bool[ndarray, " samples"]]]
    most: float = math.inf
    packages: tuple[str, ...] = ()


SOUND_MEASURES: dict[str, SoundMeasure] = {
    # A share of the sound.
    "voice": SoundMeasure(
        of=voice_share,
        value=0.3,
        goes=lambda found, least: {NO_SPEECH: found == 0, "too little speech": found < least},
        most=1.0,
        packages=(SILERO,),
    ),
    "speakers": SoundMeasure(
        of=num_speakers,
        value=1.0,
        goes=lambda found, most: {NO_SPEECH: found == 0, "too many speakers": found > most},
        packages=(SILERO, RESEMBLYZER),
    ),
    # dB
    "snr": SoundMeasure(
        of=signal_to_noise,
        value=15.0,
        goes=lambda found, least: {NO_SPEECH: np.isnan(found), "noisy": found < least},
        packages=(SILERO,),
    ),
    # A share of the samples.
    "clipping": SoundMeasure(
        of=clipped_share, value=0.001, goes=lambda found, most: {"clipped": found > most}, most=1.0
    ),
    # Hz; a telephone ends at 3,400.
    "bandwidth": SoundMeasure(
        of=bandwidth, value=4000.0, goes=lambda found, least: {"narrow band": found < least}, most=SAMPLING_RATE / 2
    ),
}
"""What is measured of sounds, by name."""


def judge_sounds(name: str, samples: Sequence[Sample], value: float) -> Filtered:
    """Why samples go by what is measured of their sounds: of several, all have to pass; one without any stays.

    A sound that cannot be read, or is shorter than 0.1 s, is counted as such.
    """
    measure = SOUND_MEASURES[name]
    reasons: list[str | None] = []
    for sample in samples:
        why = (_why(measure, part, value) for part in sample.content if isinstance(part, Audio))
        reasons.append(next(filter(None, why), None))
    return Filtered([one.id for one in samples], reasons, name=name, parameters={"value": value})


def _why(measure: SoundMeasure, part: Audio, value: float) -> str | None:
    try:
        sound = part.read()
    except TryAgain:
        raise
    except LabError:
        return UNREADABLE
    if len(sound) < MIN_SECONDS * SAMPLING_RATE:
        return UNREADABLE
    reason: str | None = first_reason(measure.goes(np.array([measure.of(sound)]), value))[0]
    return reason
