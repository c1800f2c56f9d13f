"""Prompts and answers as token ids, and the loss of the answers: the one layout in which they are scored and trained.

A row is the prompt, the answer's start, the answer; its end is predicted, not read. Axes as in
`lab.parts.packed_sequences`. Without its prompt a row begins with the answer's start.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from lab.data.instruction import Instruction
from lab.errors import LabError
from lab.parts.joined_sequences import AnswerLoss
from lab.parts.language_models import LanguageModel
from lab.parts.packed_sequences import pack_rows, packed_answer_loss


@dataclass(frozen=True)
class TokenPair:
    """An instruction as token ids, without start and end."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """Of its row: prompt, start and answer."""
        return len(self.prompt) + 1 + len(self.answer)


def token_pair(
    instruction: Instruction, language_model: LanguageModel, write: Callable[[str], str], *, budget_tokens: int
) -> TokenPair | str:
    """The token ids of an instruction, or why it has none: a reason to be counted.

    `write` brings a text into the form that the language model reads.
    """
    try:
        prompt, answer = (
            tuple(language_model.codec.encode(write(text))) for text in (instruction.prompt, instruction.answer)
        )
    except LabError:
        return "not in the language model's alphabet"
    pair = TokenPair(prompt, answer)
    if not prompt:
        return "empty prompt"
    if not answer:
        return "empty answer"
    if len(prompt) + 1 >= budget_tokens:
        return "prompt longer than the budget"
    return pair if pair.num_tokens <= budget_tokens else "prompt and answer longer than the budget"


def packed_losses(language_model: LanguageModel, pairs: Sequence[TokenPair], *, attention: str = "auto") -> AnswerLoss:
    """The loss of each answer given its prompt, all in one pack.

    Positions rise by as much as in the model's pretraining (see `LanguageModel.frames_per_token`).

    Raises:
        LabError: as `packed_answer_loss`.
    """
    model, codec = language_model.model, language_model.codec
    device = next(model.parameters()).device
    texts = [[*pair.prompt, *codec.start_ids, *pair.answer] for pair in pairs]
    embed = model.get_input_embeddings()
    flat = embed(torch.tensor([i for ids in texts for i in ids], device=device))
    step = language_model.frames_per_token or 1
    rows = flat.split([len(ids) for ids in texts])
    packed = pack_rows(rows, [torch.arange(len(row), device=device) * step for row in rows])
    answers = [pair.answer for pair in pairs]
    return packed_answer_loss(model, packed, answers, end_id=codec.end_id, attention=attention)
