"""The models that join the parts, with their samples packed instead of padded: the same samples, the same losses.

Sections 2 and 3 of the paper. Projectors and encoders see what they see in the padded path, so that no window, patch
or frame of one sample meets another's; packed is only what the language model reads.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.parts.audio_language_model import AudioLanguageModel
from lab.parts.language_models import LanguageModel
from lab.parts.packed_sequences import PackedAnswers, pack_joined, pack_rows, packed_answers
from lab.parts.vision_language_model import Question, VisionLanguageModel


def packed_text_answers(
    language_model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    *,
    attention: str = "auto",
) -> PackedAnswers:
    """Answers to prompts of text alone, all as token ids; a row is the prompt, the answer's start and the answer.

    Raises:
        LabError: as `packed_answers`.
    """
    codec = language_model.codec
    ids = [[*prompt, *codec.start_ids, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    device = next(language_model.model.parameters()).device
    embed = language_model.model.get_input_embeddings()
    flat = embed(torch.tensor([i for row in ids for i in row], device=device))
    packed = pack_rows(flat.split([len(row) for row in ids]), [torch.arange(len(row)) for row in ids])
    return packed_answers(language_model.model, packed, answers, end_id=codec.end_id, attention=attention)


def packed_audio_answers(
    model: AudioLanguageModel,
    features: Float[Tensor, "batch frames features"],
    lengths: Int[Tensor, " batch"],
    answers: Sequence[Sequence[int]],
    *,
    attention: str = "auto",
) -> PackedAnswers:
    """What `AudioLanguageModel.forward` computes of a batch, packed.

    Raises:
        LabError: as `packed_answers`.
    """
    packed = pack_joined(model.join(features, lengths, answers))
    return packed_answers(model.language_model, packed, answers, end_id=model.codec.end_id, attention=attention)


def packed_vision_answers(
    model: VisionLanguageModel,
    questions: Sequence[Question],
    answers: Sequence[Sequence[int]],
    *,
    attention: str = "auto",
) -> PackedAnswers:
    """What `VisionLanguageModel.forward` computes of a batch, packed.

    Raises:
        LabError: as `packed_answers`.
    """
    texts = [
        [*question.question_ids, *model.codec.start_ids, *answer]
        for question, answer in zip(questions, answers, strict=True)
    ]
    device = next(model.language_model.parameters()).device
    flat = model.language_model.get_input_embeddings()(torch.tensor([i for ids in texts for i in ids], device=device))
    words = flat.split([len(ids) for ids in texts])
    seen = model.visual_tokens(questions)
    rows = [torch.cat([tokens.to(flat.dtype), said]) for tokens, said in zip(seen, words, strict=True)]
    packed = pack_rows(rows, [torch.arange(len(row)) for row in rows])
    return packed_answers(model.language_model, packed, answers, end_id=model.codec.end_id, attention=attention)
