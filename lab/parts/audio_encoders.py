"""Whisper: its encoder as the source of audio frames (the paper's section 3.1), and as a recogniser for filters.

Axes: `batch`, `mels` (mel bins), `mel_frames` (10 ms each), `frames` (encoder frames, 20 ms each), `hidden_size`.
"""

import hashlib
import json
import math
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
    AutoTokenizer,
    GenerationConfig,
    GenerationMixin,
    PreTrainedTokenizerBase,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from lab.errors import LabError
from lab.parts.part import Built, loading, tokenizer_facts, weights_sha256

Window = Literal["padded", "cropped"]

MEL_FRAMES_PER_FRAME = 2  # the stride of Whisper's second convolution
# From this vocabulary on a Whisper is multilingual, and is told the language and the task before it writes.
MULTILINGUAL_VOCABULARY = 51_865
# Clips are padded with silence to whole steps of a second, so that those of one length share a batch.
STEP_FRAMES = 50
# Silence behind a clip that the decoder sees too (the encoder's own margin is cut off behind it). Without, the decoder
# stops early or loops: of 24 sentences of eSpeak NG tiny.en got 70% of the words wrong with 0.5 s, 52% with 2 s.
SILENT_SECONDS = 2
# Twice what fast English has; a decoder that loops on noise is stopped there.
MAX_TOKENS_PER_SECOND = 12.0
RECOGNITION_VERSION = 1  # part of every key: raise it when the same weights and audio would give another transcript
FEATURES_VERSION = 2  # part of every key: raise it when the same weights and audio would give other features


class AudioEncoder(Built, nn.Module):
    """Whisper's front end and encoder: 16 kHz waveforms in, 50 frames a second out.

    `window` says what stands after a clip shorter than 30 s: `padded` is silence up to 30 s, as in the paper; `cropped`
    is `margin_frames` of silence and a position table cut to match, which is many times faster and not the same, since
    attention no longer sees the rest of the silence: of recorded speech a frame's features are 25 to 44% of their
    distance from the clip's mean away from the padded ones (medians; cosine 0.90 to 0.97; `benchmarks/cropped.py`). The
    margin keeps the reflection with which the spectrogram begins and ends out of the audio, and gives the encoder the
    silence it was trained to find. Either way only the clip's own frames are returned, and a clip's features depend on
    what else stands in its batch by rounding alone.

    Raises:
        LabError: the front end has another number of mel bins than the encoder, or the window is unknown.
    """

    # Sinusoids, which Whisper's own training leaves as they are.
    never_trained = ("whisper.embed_positions",)
    margin_frames = 25

    def __init__(self, *, whisper: WhisperEncoder, feature_extractor: WhisperFeatureExtractor, window: Window) -> None:
        super().__init__()
        if window not in get_args(Window):
            raise LabError(f"unknown window {window!r}; choose one of: {', '.join(get_args(Window))}")
        if feature_extractor.feature_size != whisper.config.num_mel_bins:
            raise LabError(
                f"the front end gives {feature_extractor.feature_size} mel bins; "
                f"the encoder expects {whisper.config.num_mel_bins}"
            )
        self.whisper = whisper
        self.feature_extractor = feature_extractor
        self.window = window
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
        return self._spectrograms(waveforms), lengths

    def _spectrograms(self, waveforms: Sequence[np.ndarray]) -> Float[Tensor, "batch mels mel_frames"]:
        longest = torch.tensor(self.num_frames(max(map(len, waveforms))))
        num_samples = int(self._attended(longest)) * self.samples_per_frame
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
    def encode(self, waveform: np.ndarray) -> Float[np.ndarray, "frames hidden_size"]:
        """Features of one clip, float32, with frames = ceil(samples / 320).

        It stands alone, so that what is kept of it hangs on no other clip. One over 30 s is cut into consecutive
        windows of 30 s, which are encoded one by one and joined.

        Raises:
            LabError: the clip is not mono or shorter than 400 samples.
        """
        self._check(0, waveform)
        window = self.max_frames * self.samples_per_frame
        encoded = []
        for start in range(0, len(waveform), window):
            piece = waveform[start : start + window]
            features, _ = self(self._spectrograms([piece]), torch.tensor([self.num_frames(len(piece))]))
            encoded.append(features[0].float().cpu().numpy())
        return np.concatenate(encoded)

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


class SpeechRecognizer:
    """Greedy transcripts of 16 kHz waveforms; one clip's transcript does not depend on what else stands in its batch.

    A clip is padded with silence to a whole second and two more, not to 30 s, which is several times faster on short
    clips; where the decoder then finds no end, it is tried once more with silence up to 30 s. Timestamps and all other
    special tokens are barred; what Whisper's own decoding does besides (several temperatures, a list of symbols that
    are not speech) is left out: what needs that does not agree with its text. `language` is that of the speech, as
    Whisper names it (`en`, `zh`). `read_with` stands in the key for a tokenizer and a front end that can be corrected.

    Raises:
        LabError: a language that these weights do not know.
    """

    def __init__(
        self,
        *,
        whisper: WhisperForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        feature_extractor: WhisperFeatureExtractor,
        language: str,
        read_with: str = "",
    ) -> None:
        self.whisper = whisper.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.language, self._read_with = language, read_with
        self.encoder = AudioEncoder(
            whisper=whisper.model.encoder, feature_extractor=feature_extractor, window="cropped"
        ).freeze()
        names = ["<|startoftranscript|>"]
        if whisper.config.vocab_size >= MULTILINGUAL_VOCABULARY:
            names += [f"<|{language}|>", "<|transcribe|>"]
        elif language != "en":
            raise LabError(f"this Whisper writes English only, not {language!r}; choose a multilingual one")
        known = tokenizer.get_vocab()
        for name in (*names, "<|notimestamps|>", "<|endoftext|>"):
            if name not in known:
                raise LabError(f"the tokenizer of this Whisper has no token {name!r}; expected one of its {language!r}")
        self.prompt_ids = [known[name] for name in (*names, "<|notimestamps|>")]
        self.end_id = known["<|endoftext|>"]

    @property
    def key(self) -> str:
        """Names everything that the transcript of a waveform depends on; transcripts kept on disk stand under it."""
        weights = weights_sha256(self.whisper)[:16]
        return f"whisper-{weights}-{self.language}-greedy-{RECOGNITION_VERSION}{self._read_with}"

    @torch.no_grad()
    def transcribe(self, waveforms: Sequence[np.ndarray], *, batch_seconds: float = 60.0) -> list[str]:
        """The transcript of each clip, empty where nothing was heard; a clip over 27 s is cut into pieces of that.

        Clips of one padded length share a batch of at most `batch_seconds` of audio. A word at a cut can be lost.

        Raises:
            LabError: a clip is not mono, or empty; the message names its index.
        """
        pieces: list[tuple[int, np.ndarray]] = []
        for index, clip in enumerate(waveforms):
            if clip.ndim != 1 or not len(clip):
                raise LabError(f"waveform {index} has shape {clip.shape}; expected one channel of samples")
            longest = self._window - SILENT_SECONDS * self.encoder.sampling_rate
            pieces += [(index, clip[start : start + longest]) for start in range(0, len(clip), longest)]
        clips = dict(enumerate(piece for _, piece in pieces))
        written = self._tried(clips, batch_seconds, whole_window=False)
        endless = {place: clips[place] for place, (_, ended) in written.items() if not ended}
        written |= self._tried(endless, batch_seconds, whole_window=True)
        texts: list[list[str]] = [[] for _ in waveforms]
        for place, (index, _) in enumerate(pieces):
            texts[index].append(written[place][0])
        blank = "" if self.language in ("zh", "ja") else " "
        return [blank.join(filter(None, parts)) for parts in texts]

    @property
    def _window(self) -> int:
        """Samples of the longest clip with its silence, in whole steps; the encoder's own margin comes after it."""
        whole_steps = (self.encoder.max_frames - self.encoder.margin_frames) // STEP_FRAMES
        return whole_steps * STEP_FRAMES * self.encoder.samples_per_frame

    def _tried(
        self, clips: dict[int, np.ndarray], batch_seconds: float, *, whole_window: bool
    ) -> dict[int, tuple[str, bool]]:
        """The transcript of each clip, and whether the decoder came to an end."""
        step, silence = STEP_FRAMES * self.encoder.samples_per_frame, SILENT_SECONDS * self.encoder.sampling_rate
        by_length: dict[int, list[int]] = {}
        for place, clip in clips.items():
            by_length.setdefault(math.ceil(len(clip) / step) * step, []).append(place)
        written: dict[int, tuple[str, bool]] = {}
        for spoken, places in by_length.items():
            length = self._window if whole_window else spoken + silence
            size = max(1, int(batch_seconds * self.encoder.sampling_rate / length))
            for first in range(0, len(places), size):
                batch = places[first : first + size]
                padded = [np.pad(clips[place], (0, length - len(clips[place]))) for place in batch]
                written.update(zip(batch, self._write(padded, spoken / self.encoder.sampling_rate), strict=True))
        return written

    def _write(self, clips: list[np.ndarray], spoken_seconds: float) -> list[tuple[str, bool]]:
        frames, _ = self.encoder(*self.encoder.front_end(clips))
        room = self.whisper.config.max_target_positions - len(self.prompt_ids)
        config = GenerationConfig(
            max_new_tokens=min(room, math.ceil(spoken_seconds * MAX_TOKENS_PER_SECOND) + 10),
            do_sample=False,
            suppress_tokens=list(range(self.end_id + 1, self.whisper.config.vocab_size)),
            eos_token_id=self.end_id,
            pad_token_id=self.end_id,
            decoder_start_token_id=self.prompt_ids[0],
        )
        # The plain generation of transformers: Whisper's own takes spectrograms of 30 s only.
        prompts = torch.tensor([self.prompt_ids] * len(clips), device=frames.device)
        tokens = GenerationMixin.generate(
            self.whisper,
            encoder_outputs=BaseModelOutput(last_hidden_state=frames),
            decoder_input_ids=prompts,
            attention_mask=torch.ones(frames.shape[:2], dtype=torch.long, device=frames.device),
            decoder_attention_mask=torch.ones_like(prompts),
            generation_config=config,
        )
        rows = tokens[:, len(self.prompt_ids) :].tolist()
        return [
            (str(self.tokenizer.decode([i for i in row if i < self.end_id])).strip(), self.end_id in row)
            for row in rows
        ]


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
EXPECTED = f"one of {', '.join(AUDIO_ENCODERS)}, a local folder, or a Whisper on the Hugging Face hub"


def load_audio_encoder(name_or_path: str | Path, *, window: Window) -> AudioEncoder:
    """Load a Whisper encoder by name, as `load_whisper` does."""
    whisper, feature_extractor = load_whisper(name_or_path, "audio encoder")
    return AudioEncoder(whisper=whisper.model.encoder, feature_extractor=feature_extractor, window=window).eval()


def load_whisper(
    name_or_path: str | Path, what: str
) -> tuple[WhisperForConditionalGeneration, WhisperFeatureExtractor]:
    """A Whisper and its front end: a name of `AUDIO_ENCODERS`, a local folder, or a name on the Hugging Face hub.

    Raises:
        LabError: it cannot be loaded; the message calls it `what`.
    """
    name = str(name_or_path)
    if name in AUDIO_ENCODERS:
        whisper = AUDIO_ENCODERS[name]().load()
        return whisper, WhisperFeatureExtractor(feature_size=whisper.config.num_mel_bins)
    with loading(f"{what} {name!r}", EXPECTED):
        config = AutoConfig.from_pretrained(name)
        if config.model_type != "whisper":
            raise LabError(f"{what} {name!r} is a {config.model_type} model; expected Whisper")
        whisper = WhisperForConditionalGeneration.from_pretrained(name, dtype=torch.float32)
    try:
        return whisper, WhisperFeatureExtractor.from_pretrained(name)
    except OSError:
        # A checkpoint saved without its front end: Whisper's differ in the number of mel bins only.
        return whisper, WhisperFeatureExtractor(feature_size=config.num_mel_bins)


def load_speech_recognizer(name_or_path: str | Path, *, language: str = "en") -> SpeechRecognizer:
    """Load a Whisper with its decoder: a name of `AUDIO_ENCODERS`, a local folder, or a name on the Hugging Face hub.

    Raises:
        LabError: weights or tokenizer missing, damaged, not Whisper's, or without the language.
    """
    name = str(name_or_path)
    whisper, feature_extractor = load_whisper(name, "speech recogniser")
    with loading(f"the tokenizer of speech recogniser {name!r}", EXPECTED):
        tokenizer: PreTrainedTokenizerBase = (
            AUDIO_ENCODERS[name]().tokenizer() if name in AUDIO_ENCODERS else AutoTokenizer.from_pretrained(name)
        )
    read_with = ""
    if name not in AUDIO_ENCODERS:  # there both can be corrected, and the weights stay
        facts = [tokenizer_facts(tokenizer), feature_extractor.to_json_string()]
        read_with = f"-{hashlib.sha256(repr(facts).encode()).hexdigest()[:8]}"
    return SpeechRecognizer(
        whisper=whisper,
        tokenizer=tokenizer,
        feature_extractor=feature_extractor,
        language=language,
        read_with=read_with,
    )
