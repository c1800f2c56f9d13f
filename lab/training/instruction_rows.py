"""Instructions as examples of token ids: the one form in which they are scored, trained and asked.

Of a chat model the prompt stands in its template, with the answer's start in it.
"""

from collections.abc import Callable
from dataclasses import replace

from lab.data.instructions.instruction import Instruction
from lab.errors import LabError
from lab.parts.chat_codec import ChatCodec
from lab.parts.language_models import LanguageModel
from lab.parts.omni_model import Example

NOT_READABLE = "not in the language model's alphabet"


def prompt_ids(text: str, language_model: LanguageModel) -> list[int]:
    """Token ids of a prompt; of an empty one, what stands before every answer.

    Raises:
        LabError: as the codec's `encode`.
    """
    codec = language_model.codec
    return codec.ask(text) if isinstance(codec, ChatCodec) else codec.encode(text)


def instruction_example(
    instruction: Instruction, language_model: LanguageModel, write: Callable[[str], str], *, budget_tokens: int
) -> Example | str:
    """An instruction as the model takes it, or why it cannot be read: a reason to be counted.

    `write` brings a text into the form that the language model reads.
    """
    prompt, answer = write(instruction.prompt), write(instruction.answer)
    if not prompt or not answer:
        return "empty answer" if prompt else "empty prompt"
    try:
        asked, said = prompt_ids(prompt, language_model), language_model.codec.encode(answer)
    except LabError:
        return NOT_READABLE
    before = len(asked) + len(language_model.codec.start_ids)
    if before >= budget_tokens:
        return "prompt longer than the budget"
    if before + len(said) > budget_tokens:
        return "prompt and answer longer than the budget"
    return Example(content=[asked], answer=said)


def without_prompt(example: Example, language_model: LanguageModel) -> Example:
    """The answer alone; of a chat model in the template of an empty prompt, so that its content alone is missing."""
    return replace(example, content=[prompt_ids("", language_model)])
