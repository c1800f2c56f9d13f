"""Samples for the packing certificate, of text, speech and pictures, and what can be changed of one.

Sections 2 and 3 of the paper. Of three samples the middle one is changed, so that it has a neighbour on either side:
`text` (every token of prompt and answer becomes another), `features` (of its modality; their number stays) and `length`
(the answer a token longer, the modality a frame shorter, which moves every later sample and window).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from lab.parts.any_resolution import num_views
from lab.parts.audio_language_model import AudioLanguageModel
from lab.parts.joined_sequences import AnswerLoss, answer_loss, pad_left
from lab.parts.language_models import LanguageModel
from lab.parts.packed_models import packed_audio_answers, packed_text_answers, packed_vision_answers
from lab.parts.packed_sequences import PackedAnswers
from lab.parts.vision_language_model import Question, VisionLanguageModel
from lab.parts.visual_tokens import Seen
from lab.training.packing_certificate import Probe

NUM_SAMPLES = 3
_CHANGED = 1


@dataclass(frozen=True, kw_only=True)
class TextSample:
    """A prompt and its answer, as token ids."""

    prompt: Sequence[int]
    answer: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class AudioSample:
    """An utterance and its answer: encoder features, or the waveform where the model's own encoder is trained."""

    sound: Float[Tensor, "frames features"] | Float[Tensor, " samples"]
    answer: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class VisionSample:
    """A question about what is seen, and its answer."""

    question: Question
    answer: Sequence[int]


def text_probe(language_model: LanguageModel, samples: Sequence[TextSample]) -> Probe[TextSample]:
    """Of a language model alone."""
    sample, size = samples[_CHANGED], language_model.codec.vocab_size
    start, end_id = language_model.codec.start_ids, language_model.codec.end_id

    def packed(chosen: Sequence[TextSample], attention: str) -> PackedAnswers:
        prompts, answers = [s.prompt for s in chosen], [s.answer for s in chosen]
        return packed_text_answers(language_model, prompts, answers, attention=attention)

    def padded(chosen: Sequence[TextSample]) -> AnswerLoss:
        embed = language_model.model.get_input_embeddings()
        device = next(language_model.model.parameters()).device
        rows = [embed(torch.tensor([*s.prompt, *start, *s.answer], device=device)) for s in chosen]
        joined = pad_left(rows, [torch.arange(len(row)) for row in rows])
        return answer_loss(language_model.model, joined, [s.answer for s in chosen], end_id=end_id)

    changes = {
        "text": TextSample(prompt=_others(sample.prompt, size), answer=_others(sample.answer, size)),
        "length": TextSample(prompt=[*sample.prompt, 0], answer=[*sample.answer, 0]),
    }
    return Probe(samples=samples, changed=_CHANGED, changes=changes, packed=packed, padded=padded)


def audio_probe(model: AudioLanguageModel, samples: Sequence[AudioSample]) -> Probe[AudioSample]:
    """Of an audio branch: projector, encoder where it is trained, language model."""
    sample, size = samples[_CHANGED], model.codec.vocab_size

    def features(chosen: Sequence[AudioSample]) -> tuple[Float[Tensor, "batch frames features"], Int[Tensor, " batch"]]:
        device = model.feature_mean.device
        if model.encoder is not None:
            spectrograms, lengths = model.encoder.front_end([s.sound.numpy() for s in chosen])
            return model.encoder(spectrograms.to(device), lengths.to(device))
        lengths = torch.tensor([len(s.sound) for s in chosen], device=device)
        return torch.nn.utils.rnn.pad_sequence([s.sound.to(device) for s in chosen], batch_first=True), lengths

    def packed(chosen: Sequence[AudioSample], attention: str) -> PackedAnswers:
        return packed_audio_answers(model, *features(chosen), [s.answer for s in chosen], attention=attention)

    def padded(chosen: Sequence[AudioSample]) -> AnswerLoss:
        loss: AnswerLoss = model(*features(chosen), [s.answer for s in chosen])
        return loss

    step = 1 if model.encoder is None else model.encoder.samples_per_frame
    # A frame less, but where that would leave no window: then one more.
    shortest = step * model.projector.downsample_rate
    shorter = sample.sound[:-step] if len(sample.sound) - step >= shortest else _one_more(sample.sound, step)
    changes = {
        "text": replace(sample, answer=_others(sample.answer, size)),
        "features": replace(sample, sound=_other_numbers(sample.sound)),
        "length": AudioSample(sound=shorter, answer=[*sample.answer, 0]),
    }
    return Probe(samples=samples, changed=_CHANGED, changes=changes, packed=packed, padded=padded)


def vision_probe(model: VisionLanguageModel, samples: Sequence[VisionSample]) -> Probe[VisionSample]:
    """Of an image or video branch: both projectors, encoder where it is trained, language model."""
    sample, size = samples[_CHANGED], model.codec.vocab_size
    question, seen = sample.question, sample.question.seen

    def packed(chosen: Sequence[VisionSample], attention: str) -> PackedAnswers:
        questions, answers = [s.question for s in chosen], [s.answer for s in chosen]
        return packed_vision_answers(model, questions, answers, attention=attention)

    def padded(chosen: Sequence[VisionSample]) -> AnswerLoss:
        loss: AnswerLoss = model([s.question for s in chosen], [s.answer for s in chosen])
        return loss

    several = len(seen.seconds) > 1
    kept = len(seen.views) - num_views(seen.grid) if several else len(seen.views)
    seconds = seen.seconds[:-1] if several else seen.seconds
    fewer = Seen(views=seen.views[:kept], seconds=seconds, grid=seen.grid, order=seen.order)
    changes = {
        "text": VisionSample(
            question=replace(question, question_ids=_others(question.question_ids, size)),
            answer=_others(sample.answer, size),
        ),
        "features": replace(sample, question=replace(question, seen=replace(seen, views=_other_numbers(seen.views)))),
        "length": VisionSample(
            question=replace(question, seen=fewer, question_ids=[*question.question_ids, 0]), answer=[*sample.answer, 0]
        ),
    }
    return Probe(samples=samples, changed=_CHANGED, changes=changes, packed=packed, padded=padded)


def _others(ids: Sequence[int], vocab_size: int) -> list[int]:
    return [(i + 1) % vocab_size for i in ids]


def _other_numbers(values: Tensor) -> Tensor:
    """Of the same shape and about the same size: backwards and turned over, so that not one frame stays its own."""
    if not len(values):
        return values
    return 255 - values.flip(0) if values.dtype == torch.uint8 else 0.5 - values.flip(0)


def _one_more(sound: Tensor, step: int) -> Tensor:
    return torch.cat([sound, F.pad(sound[:0], (0, 0) * (sound.dim() - 1) + (0, step), value=0.5)])
