"""The scale of the studies of audio projectors: utterances as long as the encoder's window, in a batch of a fixed size.

Section 3.3 of the paper.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from lab.errors import LabError
from lab.parts.audio_encoders import MARGIN_FRAMES
from lab.parts.known_configurations import known_configuration
from lab.study.scale_cells import ANSWER_TOKENS, Asked, Column, Count
from lab.training.language_models import language_model_without_weights
from lab.training.memory import SPEECH_PARTS, Memory, PartMemory, speech_memory
from lab.training.parameters import SpeechParameters
from lab.training.saved_bytes import Precision, SpeechSample
from lab.training.speech import cell_audio_projector
from lab.training.stages import PAPER_STAGES

FRAMES_PER_SECOND = 50  # of every Whisper encoder
WINDOW_SECONDS = 30.0


class SpeechCells:
    """The cells of a rung; encoder, language model and utterances are the same in all rows.

    Args:
        rows: parameters of each, by row.
        asked: of utterance and batch.
        precision: of weights and products.

    Raises:
        LabError: a length out of range, or an unknown model.
    """

    kind = "audio projectors"
    needed = (
        "audio_encoder",
        "encoder_window",
        "train_encoder",
        "projector",
        "downsample_rate",
        "parameter_budget",
        "language_model",
        "prompt",
        "batch_size",
        "max_tokens",
        "precision",
    )
    parts = SPEECH_PARTS
    studied_as = "projector"
    columns: Mapping[str, Column] = {"tokens a sample": lambda memory: str(memory.tokens)}
    stage_columns: Mapping[str, Column] = {}

    def __init__(self, rows: Mapping[str, SpeechParameters], asked: Asked, precision: Precision) -> None:
        asked.refuse("question_tokens", "a study of speech")
        seconds = WINDOW_SECONDS if asked.seconds is None else asked.seconds
        if not 0 < seconds <= WINDOW_SECONDS:
            raise LabError(f"seconds is {seconds:g}; expected above 0 and at most the encoder's {WINDOW_SECONDS:g}")
        shared = next(iter(rows.values()))
        self._shared, self._precision = shared, precision
        self._encoder = _encoder(shared.audio_encoder)
        self._language_model: Any = language_model_without_weights(shared.language_model)
        frames = round(seconds * FRAMES_PER_SECOND)
        padded = WINDOW_SECONDS * FRAMES_PER_SECOND
        self.sample = SpeechSample(
            batch_size=shared.batch_size if asked.batch_size is None else asked.batch_size,
            frames=frames,
            encoder_frames=int(padded if shared.encoder_window == "padded" else min(padded, frames + MARGIN_FRAMES)),
            # Without the tokenizer, which would have to be fetched: some four letters a token.
            prompt_tokens=-(-len(shared.prompt) // 4),
            answer_tokens=ANSWER_TOKENS if asked.answer_tokens is None else asked.answer_tokens,
        )

    @property
    def heading(self) -> tuple[str, str]:
        """The models, and the utterances of a step."""
        sample = self.sample
        return (
            f"{self._shared.audio_encoder} and {self._shared.language_model}",
            f"{sample.batch_size} utterances of {sample.frames / FRAMES_PER_SECOND:g} s, each about "
            f"{sample.prompt_tokens} tokens of prompt, the projector's, 1 start and {sample.answer_tokens} of answer",
        )

    def notes(self, parameters: SpeechParameters) -> tuple[str, ...]:
        """None."""
        return ()

    def studied(self, memory: Memory) -> PartMemory:
        """The audio projector."""
        return memory.parts[1]

    def row(self, parameters: SpeechParameters) -> Count:
        """Counts a row's largest batch."""
        trained = SPEECH_PARTS[:2] if parameters.train_encoder else SPEECH_PARTS[1:2]
        return partial(self._count, parameters, trained)

    def stages(self, parameters: SpeechParameters) -> dict[str, Count]:
        """Count the paper's stages with a row's projector."""
        return {
            stage.name: partial(self._count, parameters, [part for part in SPEECH_PARTS if part in stage.trained])
            for stage in PAPER_STAGES.values()
            if set(SPEECH_PARTS) <= set(stage.parts)
        }

    def _count(self, parameters: SpeechParameters, trained: list[str] | tuple[str, ...]) -> Memory:
        return speech_memory(
            encoder=self._encoder,
            build_projector=self._projector(parameters),
            language_model=self._language_model,
            sample=self.sample,
            trained=trained,
            precision=self._precision,
            max_tokens=self._shared.max_tokens,
        )

    def _projector(self, parameters: SpeechParameters) -> Callable[[], Any]:
        return partial(
            cell_audio_projector, parameters, self._encoder.config.d_model, self._language_model.config.hidden_size
        )


def _encoder(name: str) -> Any:
    config: Any = known_configuration(name)
    if config.model_type != "whisper":
        raise LabError(f"audio encoder {name!r} is a {config.model_type} model; expected Whisper")
    with torch.device("meta"):
        encoder = WhisperEncoder(config)
    encoder.embed_positions.requires_grad_(False)  # fixed sinusoids
    return encoder
