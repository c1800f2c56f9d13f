"""Whisper's encoder as the source of audio frames (the paper's section 3.1; Whisper-large-v3 there).

Axes: `batch`, `mels` (mel bins), `mel_frames` (10 ms each), `frames` (encoder frames, 20 ms each), `hidden_size`.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    PreTrainedTokenizerBase,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperModel,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from lab.errors import LabError
from lab.parts.weights import weights_sha256

Window = Literal["padded", "cropped"]

MEL_FRAMES_PER_FRAME = 2  # the stride of Whisper's second convolution
MARGIN_FRAMES = 25
FEATURES_VERSION = 1  # part of every key: raise it when the same weights and audio would give other features


class AudioEncoder(nn.Module):
    """Whisper's front end and encoder: 16 kHz waveforms in, 50 frames a second out.

    `window` says what stands after a clip shorter than 30 s: `padded` is silence up to 30 s, as in the paper; `cropped`
    is `margin_frames` of silence and a position table cut to match, which is many times faster and not quite the same
    (attention no longer sees the rest of the silence). Either way only the clip's own frames are returned, and a clip's
    features do not depend on what else stands in its batch.

    Args:
        whisper: transformers' Whisper encoder.
        feature_extractor: its log-mel front end.
        window: `padded` or `cropped`.
        margin_frames: frames of silence after a cropped clip, at least 1: it keeps the reflection with which the
            spectrogram begins and ends out of the audio, and gives the encoder the silence it was trained to find.

    Raises:
        LabError: the front end has another number of mel bins than the encoder, or an argument is out of range.
    """

    # Sinusoids, which Whisper's own training leaves as they are.
    never_trained = ("whisper.embed_positions",)

    def __init__(
        self,
        *,
        whisper: WhisperEncoder,
        feature_extractor: WhisperFeatureExtractor,
        window: Window,
        margin_frames: int = MARGIN_FRAMES,
    ) -> None:
        super().__init__()
        if window not in get_args(Window):
            raise LabError(f"unknown window {window!r}; choose one of: {', '.join(get_args(Window))}")
        if margin_frames < 1:
            raise LabError(f"margin_frames is {margin_frames}; expected at least 1")
        if feature_extractor.feature_size != whisper.config.num_mel_bins:
            raise LabError(
                f"the front end gives {feature_extractor.feature_size} mel bins; "
                f"the encoder expects {whisper.config.num_mel_bins}"
            )
        self.whisper = whisper
        self.feature_extractor = feature_extractor
        self.window = window
        self.margin_frames = margin_frames
        self.hidden_size: int = whisper.config.d_model
        self.sampling_rate: int = feature_extractor.sampling_rate
        self.samples_per_frame: int = feature_extractor.hop_length * MEL_FRAMES_PER_FRAME
        self.frames_per_second: float = self.sampling_rate / self.samples_per_frame
        self.max_frames: int = whisper.config.max_source_positions
        self.weights_sha256 = weights_sha256(whisper)

    @property
    def key(self) -> str:
        """Names everything that the features of a waveform depend on; features kept on disk stand under it."""
        front_end = {
            name: getattr(self.feature_extractor, name)
            for name in ("feature_size", "sampling_rate", "hop_length", "n_fft", "dither")
        }
        margin = self.margin_frames if self.window == "cropped" else None
        facts = {"front_end": front_end, "margin_frames": margin, "features_version": FEATURES_VERSION}
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return f"whisper-{self.weights_sha256[:16]}-{self.window}-{digest[:8]}"

    def num_frames(self, num_samples: int) -> int:
        """Encoder frames of a clip: ceil(samples / 320), the last one partly silence."""
        return -(-num_samples // self.samples_per_frame)

    def freeze(self) -> "AudioEncoder":
        """Stop training: no gradients, evaluation mode."""
        return self.requires_grad_(False).eval()

    def front_end(
        self, waveforms: Sequence[np.ndarray]
    ) -> tuple[Float[Tensor, "batch mels mel_frames"], Int[Tensor, " batch"]]:
        """Log-mel spectrograms of clips of at most one window, and the number of encoder frames of each.

        Raises:
            LabError: a clip is not mono, shorter than the spectrogram's window (400 samples), or longer than 30 s.
        """
        for index, clip in enumerate(waveforms):
            self._check(index, clip)
        lengths = torch.tensor([self.num_frames(len(clip)) for clip in waveforms])
        if int(lengths.max()) > self.max_frames:
            raise LabError(
                f"waveform {int(lengths.argmax())} has {int(lengths.max())} encoder frames; "
                f"one window holds {self.max_frames}: let `encode` cut it"
            )
        return self._spectrograms(waveforms, lengths), lengths

    def _spectrograms(
        self, waveforms: Sequence[np.ndarray], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch mels mel_frames"]:
        num_samples = int(self._attended(lengths).max()) * self.samples_per_frame
        with torch.autocast("cpu", enabled=False):  # the front end turns its tensor into numpy, which has no bfloat16
            mels = self.feature_extractor(
                list(waveforms),
                sampling_rate=self.sampling_rate,
                padding="max_length",
                max_length=num_samples,
                return_tensors="pt",
            )
        return mels["input_features"]

    def forward(
        self, input_features: Float[Tensor, "batch mels mel_frames"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch frames hidden_size"], Int[Tensor, " batch"]]:
        """Encode what `front_end` gave; differentiable. Frames from `lengths` on have no meaning.

        A clip attends to its own frames and its margin only, and its first convolution meets zeros after them, exactly
        as if it stood alone; transformers' own forward takes no mask and no window other than 30 s.
        """
        whisper = self.whisper
        num_frames = input_features.shape[-1] // MEL_FRAMES_PER_FRAME
        device, dtype = whisper.conv1.weight.device, whisper.conv1.weight.dtype
        input_features, lengths = input_features.to(device, dtype), lengths.to(device)
        attended = self._attended(lengths)
        attention_mask = None
        if int(attended.min()) < num_frames:
            is_padding = torch.arange(num_frames, device=device) >= attended[:, None]
            input_features = input_features.masked_fill(
                is_padding.repeat_interleave(MEL_FRAMES_PER_FRAME, dim=1)[:, None, :], 0
            )
            attention_mask = torch.zeros(is_padding.shape, device=device, dtype=dtype)
            attention_mask = attention_mask.masked_fill(is_padding, torch.finfo(dtype).min)[:, None, None, :]
        hidden = F.gelu(whisper.conv2(F.gelu(whisper.conv1(input_features)))).transpose(1, 2)
        hidden = hidden + whisper.embed_positions.weight[:num_frames]
        hidden = F.dropout(hidden, p=whisper.dropout, training=self.training)
        for layer in whisper.layers:
            hidden = layer(hidden, attention_mask)
        return whisper.layer_norm(hidden)[:, : int(lengths.max())], lengths

    @torch.no_grad()
    def encode(self, waveforms: Sequence[np.ndarray], *, batch_seconds: float = 30.0) -> list[np.ndarray]:
        """Features of each clip, float32 [frames, hidden_size], with frames = ceil(samples / 320).

        Clips of like length share a batch of at most `batch_seconds` of audio, padding included. A clip over 30 s is
        cut into consecutive windows of 30 s, which are encoded on their own and joined.

        Raises:
            LabError: a clip is not mono or shorter than 400 samples; the message names its index.
        """
        window_samples = self.max_frames * self.samples_per_frame
        pieces: list[tuple[int, np.ndarray]] = []
        for index, clip in enumerate(waveforms):
            self._check(index, clip)
            pieces += [(index, clip[start : start + window_samples]) for start in range(0, len(clip), window_samples)]
        batches: list[list[int]] = []
        for position in sorted(range(len(pieces)), key=lambda position: len(pieces[position][1])):
            attended = int(self._attended(torch.tensor(self.num_frames(len(pieces[position][1])))))
            if batches and (len(batches[-1]) + 1) * attended <= batch_seconds * self.frames_per_second:
                batches[-1].append(position)
            else:
                batches.append([position])
        encoded: dict[int, np.ndarray] = {}
        for batch in batches:
            clips = [pieces[position][1] for position in batch]
            lengths = torch.tensor([self.num_frames(len(clip)) for clip in clips])
            features, _ = self(self._spectrograms(clips, lengths), lengths)
            for position, frames, length in zip(batch, features.float().cpu().numpy(), lengths.tolist(), strict=True):
                encoded[position] = frames[:length].copy()
        joined: list[list[np.ndarray]] = [[] for _ in waveforms]
        for position, (index, _) in enumerate(pieces):
            joined[index].append(encoded[position])
        return [parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in joined]

    def _attended(self, lengths: Tensor) -> Tensor:
        """Frames that attention sees of clips of `lengths` frames."""
        if self.window == "padded":
            return torch.full_like(lengths, self.max_frames)
        return (lengths + self.margin_frames).clamp(max=self.max_frames)

    def _check(self, index: int, waveform: np.ndarray) -> None:
        if waveform.ndim != 1:
            raise LabError(f"waveform {index} has shape {waveform.shape}; expected one channel of samples")
        if len(waveform) < self.feature_extractor.n_fft:
            raise LabError(
                f"waveform {index} has {len(waveform)} samples; the spectrogram needs at least "
                f"{self.feature_extractor.n_fft} ({1000 * self.feature_extractor.n_fft / self.sampling_rate:g} ms)"
            )


@dataclass(frozen=True, kw_only=True)
class PackagedWhisper:
    """A Whisper in packages: which they are, and what fetches and reads its weights and its tokenizer.

    Raises:
        LabError: when called, a package that cannot be fetched, or that is damaged or holds something else.
    """

    sources: tuple[str, ...]
    load: Callable[[], WhisperForConditionalGeneration]
    tokenizer: Callable[[], PreTrainedTokenizerBase]


def whisper_tiny_en() -> PackagedWhisper:
    """Whisper tiny.en, in a package."""
    from standins.models.packaged_whispers import TINY_EN

    return TINY_EN


def whisper_base() -> PackagedWhisper:
    """Whisper base, multilingual, in two packages."""
    from standins.models.packaged_whispers import BASE

    return BASE


AUDIO_ENCODERS: dict[str, Callable[[], PackagedWhisper]] = {
    "whisper_tiny_en": whisper_tiny_en,
    "whisper_base": whisper_base,
}


def load_audio_encoder(
    name_or_path: str | Path,
    *,
    window: Window,
    margin_frames: int = MARGIN_FRAMES,
) -> AudioEncoder:
    """Load a Whisper encoder: a name of `AUDIO_ENCODERS`, a local folder, or a name on the Hugging Face hub.

    Args:
        name_or_path: which encoder.
        window: `padded` (30 s) or `cropped`.
        margin_frames: silence after a cropped clip.

    Raises:
        LabError: the weights are missing, damaged, or not Whisper's; the message names the choices.
    """
    if str(name_or_path) in AUDIO_ENCODERS:
        whisper = AUDIO_ENCODERS[str(name_or_path)]().load().model.encoder
        feature_extractor = WhisperFeatureExtractor(feature_size=whisper.config.num_mel_bins)
    else:
        whisper, feature_extractor = _load_transformers(name_or_path)
    return AudioEncoder(
        whisper=whisper, feature_extractor=feature_extractor, window=window, margin_frames=margin_frames
    ).eval()


def _load_transformers(name_or_path: str | Path) -> tuple[WhisperEncoder, WhisperFeatureExtractor]:
    try:
        config = AutoConfig.from_pretrained(name_or_path)
        if config.model_type != "whisper":
            raise LabError(f"audio encoder {str(name_or_path)!r} is a {config.model_type} model; expected Whisper")
        whisper = WhisperModel.from_pretrained(name_or_path, dtype=torch.float32).encoder
    except (OSError, ValueError) as error:
        raise LabError(
            f"cannot load audio encoder {str(name_or_path)!r}: {str(error).splitlines()[0]} "
            f"choose one of: {', '.join(AUDIO_ENCODERS)}, a local folder, or a Whisper on the Hugging Face hub"
        ) from error
    try:
        feature_extractor = WhisperFeatureExtractor.from_pretrained(name_or_path)
    except OSError:
        # A checkpoint saved without its front end: Whisper's differ in the number of mel bins only.
        feature_extractor = WhisperFeatureExtractor(feature_size=config.num_mel_bins)
    return whisper, feature_extractor
