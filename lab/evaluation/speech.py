"""What a speech-to-text model scores on a split, utterance by utterance, and what it costs."""

import math
from collections.abc import Iterator, Sequence

import pandas as pd
import torch

from lab.evaluation.decoding import decode
from lab.evaluation.error_rates import character_error_rate, utterance_errors, word_error_rate
from lab.evaluation.normalizers import Normalizer
from lab.parts.omni_model import OmniModel
from lab.training.samples import SampleExamples


@torch.inference_mode()
def measure(
    model: OmniModel,
    data: SampleExamples,
    normalizer: Normalizer,
    *,
    num_beams: int = 1,
    batch_size: int = 64,
    batch_frames: int = 12_000,
    frames_per_second: float = 50.0,
    max_tokens_per_second: float = 25.0,
) -> pd.DataFrame:
    """Decode and score every utterance of a split; one line each, in the split's order.

    Columns: corpus, split, speaker, those of `utterance_errors`, `loss` (nats, summed over the answer's tokens, end
    included) and `num_tokens`. An answer is cut at `max_tokens_per_second` of its audio, plus ten tokens. A batch has
    up to `batch_size` utterances of similar length and `batch_frames` encoder frames, padding included.

    Raises:
        LabError: a reference is empty after normalisation.
    """
    model.eval()
    frames = [data.num_frames(i, model) for i in range(len(data))]
    order = sorted(range(len(data)), key=lambda i: frames[i])
    hypotheses = [""] * len(data)
    losses = [0.0] * len(data)
    counts = [0] * len(data)
    for indices in _batches(order, frames, batch_size, batch_frames):
        heard = model.read([data.example(i, model) for i in indices])
        scored = model(heard)
        limits = [math.ceil(frames[i] / frames_per_second * max_tokens_per_second) + 10 for i in indices]
        answers = decode(model, heard, max_new_tokens=limits, num_beams=num_beams)
        for i, answer, loss, count in zip(
            indices, answers, scored.loss.tolist(), scored.num_tokens.tolist(), strict=True
        ):
            hypotheses[i], losses[i], counts[i] = model.codec.decode(answer), loss, count
    table = utterance_errors(
        [sample.answer for sample in data.samples],
        hypotheses,
        normalizer,
        data.ids,
    )
    table.insert(0, "corpus", data.name)
    table.insert(1, "split", data.split)
    table.insert(2, "speaker", [sample.sound.speaker for sample in data.samples])
    return table.assign(loss=losses, num_tokens=counts)


def _batches(order: Sequence[int], frames: Sequence[int], batch_size: int, batch_frames: int) -> Iterator[list[int]]:
    """Cut `order`, from short to long: one utterance of 30 s would make all of a large batch as long."""
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) == batch_size or (len(batch) + 1) * frames[index] > batch_frames):
            yield batch
            batch = []
        batch.append(index)
    yield batch


def scores(table: pd.DataFrame, normalizer: Normalizer, prefix: str) -> dict[str, float]:
    """Pooled rates and token-level loss of one split's table, under names that begin with `prefix`."""
    measured = {
        f"{prefix}_character_error_rate": character_error_rate(table),
        f"{prefix}_loss": float(table["loss"].sum() / table["num_tokens"].sum()),
    }
    if "wer" in normalizer.reports:
        measured[f"{prefix}_word_error_rate"] = word_error_rate(table)
    return measured


def costs(model: OmniModel, *, frames_per_second: float = 50.0) -> dict[str, float]:
    """What the projector costs: parameters, language-model tokens and floating-point operations a second of audio."""
    assert model.audio_projector is not None
    projector = model.audio_projector.projector
    return {
        "projector_parameters": float(sum(parameter.numel() for parameter in projector.parameters())),
        "audio_tokens_per_second": frames_per_second / projector.downsample_rate,
        "flops_per_audio_second": projector.flops_per_audio_second(frames_per_second),
    }


def samples(table: pd.DataFrame, count: int = 8) -> Sequence[tuple[str, str]]:
    """References and hypotheses spread over the table, normalised, to look at."""
    chosen = table.iloc[:: max(1, len(table) // count)].head(count)
    return list(zip(chosen["reference_normalized"], chosen["hypothesis_normalized"], strict=True))
