"""Prompts and answers as token ids: the one form in which instructions are scored, trained and asked.

A row is the prompt, the answer's start and the answer (`lab.parts.packed_models.packed_text_answers`); of a chat model
the prompt stands in its template, with the start in it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lab.data.instructions.instruction import Instruction
from lab.errors import LabError
from lab.parts.chat_codec import ChatCodec
from lab.parts.language_models import LanguageModel

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
