"""Instructions as examples of token ids: the one form in which they are scored, trained and asked.

Of a chat model the prompt stands in its template, with the answer's start in it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from lab.data.instructions.instruction import Instruction
from lab.data.instructions.instructions import instructions_sha256
from lab.errors import LabError
from lab.parts.chat_codec import ChatCodec
from lab.parts.language_models import LanguageModel
from lab.parts.omni_model import Example, OmniModel
from lab.training.examples import ReadyExamples
from lab.training.scoring import ScoredRow, Scorer

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


def examples_to_train_on(
    instructions: Sequence[Instruction],
    language_model: LanguageModel,
    write: Callable[[str], str],
    *,
    budget_tokens: int,
) -> ReadyExamples:
    """Instructions for training, with their names.

    Raises:
        LabError: one that cannot be read.
    """
    examples: list[Example] = []
    for instruction in instructions:
        example = instruction_example(instruction, language_model, write, budget_tokens=budget_tokens)
        if isinstance(example, str):
            raise LabError(f"training instruction {instruction.id!r} cannot be trained on: {example}")
        examples.append(example)
    return ReadyExamples(examples, [instruction.id for instruction in instructions])


def without_prompt(example: Example, language_model: LanguageModel) -> Example:
    """The answer alone; of a chat model in the template of an empty prompt, so that its content alone is missing."""
    return replace(example, content=[prompt_ids("", language_model)])


def text_model(language_model: LanguageModel) -> OmniModel:
    """The language model alone, reading text token after token."""
    return OmniModel(language_model=language_model, positions="sequential").eval()


@dataclass
class TextAnswers:
    """Instructions and the language model that reads them, in the form that `write` gives them; an `Answers`."""

    language_model: LanguageModel
    write: Callable[[str], str] = str.strip
    model: OmniModel = field(init=False)
    scorer: Scorer = field(init=False)

    def __post_init__(self) -> None:
        self.model = text_model(self.language_model)
        self.scorer = Scorer(self.language_model.name, self.language_model.sha256)

    def sha256(self, samples: Sequence[Instruction]) -> str:
        """Of all that they say."""
        return instructions_sha256(samples)

    def row(self, sample: Instruction, budget_tokens: int) -> ScoredRow | str:
        """Prompt, start and answer, or why they cannot be scored."""
        whole = instruction_example(sample, self.language_model, self.write, budget_tokens=budget_tokens)
        if isinstance(whole, str):
            return whole
        alone = without_prompt(whole, self.language_model)
        num_tokens, alone_tokens = (self.model.num_tokens(example) - 1 for example in (whole, alone))
        prompt, answer = self.model.segment_tokens(whole.content[0]), len(whole.answer)
        return ScoredRow(sample.id, lambda: whole, lambda: alone, num_tokens, alone_tokens, prompt, answer)
