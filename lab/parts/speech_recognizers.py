"""Whisper as a recogniser: waveforms in, transcripts out, for filters that hold speech against its text (section 3).

Axes: `batch`, `frames` (encoder frames, 20 ms each), `hidden_size`. Weights are those of `AUDIO_ENCODERS`, whose
packages hold the decoder as well, a local folder, or a Whisper of the Hugging Face hub.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
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

from lab.errors import LabError
from lab.parts.audio_encoders import AUDIO_ENCODERS, AudioEncoder
from lab.parts.weights import weights_sha256

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


class SpeechRecognizer:
    """Greedy transcripts of 16 kHz waveforms; one clip's transcript does not depend on what else stands in its batch.

    A clip is padded with silence to a whole second and two more, not to 30 s, which is several times faster on short
    clips; where the decoder then finds no end, it is tried once more with silence up to 30 s. Timestamps and all other
    special tokens are barred; what Whisper's own decoding does besides (several temperatures, a list of symbols that
    are not speech) is left out: what needs that does not agree with its text.

    Args:
        whisper: transformers' Whisper with its decoder.
        tokenizer: that of the weights.
        feature_extractor: its log-mel front end.
        language: of the speech, as Whisper names it (`en`, `zh`).

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
    ) -> None:
        self.whisper = whisper.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.language = language
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
        return f"whisper-{weights}-{self.language}-greedy-{RECOGNITION_VERSION}"

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
        written = self._tried([piece for _, piece in pieces], batch_seconds, whole_window=False)
        endless = [place for place, (_, ended) in enumerate(written) if not ended]
        again = self._tried([pieces[place][1] for place in endless], batch_seconds, whole_window=True)
        for place, second in zip(endless, again, strict=True):
            written[place] = second
        texts: list[list[str]] = [[] for _ in waveforms]
        for (index, _), (text, _) in zip(pieces, written, strict=True):
            texts[index].append(text)
        blank = "" if self.language in ("zh", "ja") else " "
        return [blank.join(filter(None, parts)) for parts in texts]

    @property
    def _window(self) -> int:
        """Samples of the longest clip with its silence, in whole steps; the encoder's own margin comes behind it."""
        whole_steps = (self.encoder.max_frames - self.encoder.margin_frames) // STEP_FRAMES
        return whole_steps * STEP_FRAMES * self.encoder.samples_per_frame

    def _tried(
        self, clips: Sequence[np.ndarray], batch_seconds: float, *, whole_window: bool
    ) -> list[tuple[str, bool]]:
        """The transcript of each clip, and whether the decoder came to an end."""
        step, silence = STEP_FRAMES * self.encoder.samples_per_frame, SILENT_SECONDS * self.encoder.sampling_rate
        by_length: dict[int, list[int]] = {}
        for place, clip in enumerate(clips):
            by_length.setdefault(math.ceil(len(clip) / step) * step, []).append(place)
        written: dict[int, tuple[str, bool]] = {}
        for spoken, places in by_length.items():
            length = self._window if whole_window else spoken + silence
            size = max(1, int(batch_seconds * self.encoder.sampling_rate / length))
            for first in range(0, len(places), size):
                batch = places[first : first + size]
                padded = [np.pad(clips[place], (0, length - len(clips[place]))) for place in batch]
                written.update(zip(batch, self._write(padded, spoken / self.encoder.sampling_rate), strict=True))
        return [written[place] for place in range(len(clips))]

    def _write(self, clips: list[np.ndarray], spoken_seconds: float) -> list[tuple[str, bool]]:
        features, lengths = self.encoder.front_end(clips)
        frames: Float[Tensor, "batch frames hidden_size"]
        frames, _ = self.encoder(features, lengths)
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


def load_speech_recognizer(name_or_path: str | Path, *, language: str = "en") -> SpeechRecognizer:
    """Load a Whisper with its decoder: a name of `AUDIO_ENCODERS`, a local folder, or a name on the Hugging Face hub.

    Raises:
        LabError: weights or tokenizer missing, damaged, not Whisper's, or without the language.
    """
    tokenizer: PreTrainedTokenizerBase
    if str(name_or_path) in AUDIO_ENCODERS:
        packaged = AUDIO_ENCODERS[str(name_or_path)]()
        whisper, tokenizer = packaged.load(), packaged.tokenizer()
        feature_extractor = WhisperFeatureExtractor(feature_size=whisper.config.num_mel_bins)
    else:
        whisper, tokenizer, feature_extractor = _load_transformers(name_or_path)
    return SpeechRecognizer(
        whisper=whisper, tokenizer=tokenizer, feature_extractor=feature_extractor, language=language
    )


def _load_transformers(
    name_or_path: str | Path,
) -> tuple[WhisperForConditionalGeneration, PreTrainedTokenizerBase, WhisperFeatureExtractor]:
    try:
        config = AutoConfig.from_pretrained(name_or_path)
        if config.model_type != "whisper":
            raise LabError(f"speech recogniser {str(name_or_path)!r} is a {config.model_type} model; expected Whisper")
        whisper = WhisperForConditionalGeneration.from_pretrained(name_or_path, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(name_or_path)
        return whisper, tokenizer, WhisperFeatureExtractor.from_pretrained(name_or_path)
    except (OSError, ValueError) as error:
        raise LabError(
            f"cannot load speech recogniser {str(name_or_path)!r}: {str(error).splitlines()[0]} "
            f"choose one of: {', '.join(AUDIO_ENCODERS)}, a local folder, or a Whisper on the Hugging Face hub"
        ) from error
