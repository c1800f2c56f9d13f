"""Prompts and answers as token ids: the one form in which instructions are scored, trained and asked.

A row is the prompt, the answer's start and the answer (`lab.parts.packed_models.packed_text_answers`); of a chat model
the prompt stands in its template, with the start in it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from lab.data.instructions.instruction import Instruction
from lab.data.instructions.instructions import instructions_sha256
from lab.errors import LabError
from lab.parts.chat_codec import ChatCodec
from lab.parts.joined_sequences import AnswerLoss
from lab.parts.language_models import LanguageModel
from lab.parts.packed_models import packed_text_answers
from lab.training.scoring import ScoredRow, Scorer

NOT_READABLE = "not in the language model's alphabet"


@dataclass(frozen=True)
class TokenPair:
    """An instruction as token ids, without start and end; `num_tokens` of its row, with the start."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    num_tokens: int


def prompt_ids(text: str, language_model: LanguageModel) -> tuple[int, ...]:
    """Token ids of a prompt; of an empty one, what stands before every answer.

    Raises:
        LabError: as the codec's `encode`.
    """
    codec = language_model.codec
    return tuple(codec.ask(text) if isinstance(codec, ChatCodec) else codec.encode(text))


def token_pair(
    instruction: Instruction, language_model: LanguageModel, write: Callable[[str], str], *, budget_tokens: int
) -> TokenPair | str:
    """The token ids of an instruction, or why it has none: a reason to be counted.

    `write` brings a text into the form that the language model reads.
    """
    prompt, answer = write(instruction.prompt), write(instruction.answer)
    if not prompt or not answer:
        return "empty answer" if prompt else "empty prompt"
    try:
        asked, said = prompt_ids(prompt, language_model), tuple(language_model.codec.encode(answer))
    except LabError:
        return NOT_READABLE
    before = len(asked) + len(language_model.codec.start_ids)
    if before >= budget_tokens:
        return "prompt longer than the budget"
    if before + len(said) > budget_tokens:
        return "prompt and answer longer than the budget"
    return TokenPair(asked, said, before + len(said))


def without_prompt(pair: TokenPair, language_model: LanguageModel) -> TokenPair:
    """The answer alone; of a chat model in the template of an empty prompt, so that its content alone is missing."""
    asked = prompt_ids("", language_model)
    return TokenPair(asked, pair.answer, len(asked) + len(language_model.codec.start_ids) + len(pair.answer))


@dataclass(frozen=True)
class TextAnswers:
    """Instructions and the language model that reads them, in the form that `write` gives them; an `Answers`."""

    language_model: LanguageModel
    write: Callable[[str], str] = str.strip

    @property
    def scorer(self) -> Scorer:
        """The language model."""
        return Scorer(self.language_model.name, self.language_model.sha256)

    @property
    def device(self) -> torch.device:
        """On which it runs."""
        device: torch.device = next(self.language_model.model.parameters()).device
        return device

    def sha256(self, samples: Sequence[Instruction]) -> str:
        """Of all that they say."""
        return instructions_sha256(samples)

    def row(self, sample: Instruction, budget_tokens: int) -> ScoredRow | str:
        """Prompt, start and answer, or why they cannot be scored."""
        pair = token_pair(sample, self.language_model, self.write, budget_tokens=budget_tokens)
        if isinstance(pair, str):
            return pair
        alone = without_prompt(pair, self.language_model)
        prompt, answer = len(pair.prompt), len(pair.answer)
        return ScoredRow(sample.id, pair, alone, pair.num_tokens, alone.num_tokens, prompt, answer)

    def loss(self, rows: Sequence[TokenPair]) -> AnswerLoss:
        """One forward pass."""
        self.language_model.model.eval()
        prompts, answers = [pair.prompt for pair in rows], [pair.answer for pair in rows]
        return packed_text_answers(self.language_model, prompts, answers).loss
