"""Data, tracking and measuring of the stock cell: what feeds transformers' Trainer, and what comes after it."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset
from transformers import WhisperFeatureExtractor
from transformers.integrations import MLflowCallback

from benchmarks.stock_model import Clock, StockAudioLanguageModel
from lab.data.normalizers import Normalizer, text_errors
from lab.data.speech.audio import SAMPLING_RATE
from lab.parts.language_models import TextCodec
from lab.training.samples import SampleExamples

__all__ = ["Clock", "SpeechCollator", "SpeechDataset", "TimedMLflowCallback", "measure"]


# Of Whisper: 50 frames a second.
SAMPLES_PER_FRAME = SAMPLING_RATE // 50


class SpeechDataset(Dataset[dict[str, Any]]):
    """Waveform and token ids (start, text, end) of each utterance of a split."""

    def __init__(self, data: SampleExamples, codec: TextCodec) -> None:
        self._data, self._codec = data, codec

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample, write = self._data.samples[index], self._data.write or str.strip
        waveform = sample.sound.read()
        ids = [*self._codec.start_ids, *self._codec.encode(write(sample.answer)), self._codec.end_id]
        return {
            "waveform": waveform,
            "num_frames": -(-len(waveform) // SAMPLES_PER_FRAME),
            "input_ids": torch.tensor(ids),
        }


class SpeechCollator:
    """Log-mel spectrograms padded to 30 s, as WhisperFeatureExtractor gives them, and right-padded token ids."""

    def __init__(self, feature_extractor: WhisperFeatureExtractor, clock: Clock) -> None:
        self._feature_extractor, self._clock = feature_extractor, clock

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """The batch of these examples."""
        with self._clock("log_mel"):
            waveforms = [example["waveform"] for example in examples]
            mels = self._feature_extractor(waveforms, sampling_rate=SAMPLING_RATE, return_tensors="pt")
        ids = [example["input_ids"] for example in examples]
        return {
            "input_features": mels["input_features"],
            "num_frames": torch.tensor([example["num_frames"] for example in examples]),
            "input_ids": pad_sequence(ids, batch_first=True),
            "num_text": torch.tensor([len(each) for each in ids]),
        }


class TimedMLflowCallback(MLflowCallback):
    """transformers' own callback, with the time that it takes."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """Hand the metrics of a step on."""
        with self._clock("tracking"):
            super().on_log(*args, **kwargs)


@torch.inference_mode()
def measure(
    model: StockAudioLanguageModel,
    data: SampleExamples,
    collator: SpeechCollator,
    normalizer: Normalizer,
    *,
    num_beams: int,
    batch_size: int = 64,
    frames_per_second: float = 50.0,
    max_tokens_per_second: float = 25.0,
) -> pd.DataFrame:
    """Decode and score a split in its own order: limits, scoring and columns as in our `measure`.

    The audio is encoded once for the loss and the answer, which `Trainer.evaluate` and then `generate` would do twice.
    """
    model.eval()
    hypotheses: list[str] = []
    losses: list[float] = []
    counts: list[int] = []
    loader = DataLoader(SpeechDataset(data, model.codec), batch_size=batch_size, collate_fn=collator)
    for cpu_batch in loader:
        batch = {name: tensor.to(model.feature_mean.device) for name, tensor in cpu_batch.items()}
        audio, num_audio = model.encode(batch["input_features"], batch["num_frames"])
        texts = [ids[:n] for ids, n in zip(batch["input_ids"], batch["num_text"].tolist(), strict=True)]
        loss, count = model.score(audio, num_audio, texts)
        limit = math.ceil(int(batch["num_frames"].max()) / frames_per_second * max_tokens_per_second) + 10
        answers = model.generate(audio, num_audio, max_new_tokens=limit, num_beams=num_beams)
        hypotheses += [model.codec.decode(answer) for answer in answers]
        losses += loss.tolist()
        counts += count.tolist()
    references = [sample.answer for sample in data.samples]
    table = text_errors(references, hypotheses, normalizer, data.ids)
    return table.assign(
        source=data.name, group=table["answer_normalized"], num_choices=0, loss=losses, num_tokens=counts
    )
