"""Instructions as examples of token ids: the one form in which they are scored, trained and asked.

Of a chat model the prompt stands in its template, with the answer's start in it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from lab.data.sample import Sample, Text, samples_sha256
from lab.errors import LabError
from lab.parts.chat_codec import ChatCodec
from lab.parts.language_models import LanguageModel
from lab.parts.omni_model import Example, OmniModel
from lab.training.scoring import ScoredRow, Scorer

NOT_READABLE = "not in the language model's alphabet"


def instruction_example(
    instruction: Sample, language_model: LanguageModel, write: Callable[[str], str], *, budget_tokens: int
) -> Example | str:
    """An instruction as the model takes it, or why it cannot be read: a reason to be counted.

    `write` brings a text into the form that the language model reads. A chat model reads the turns in its template,
    another one the texts after each other.
    """
    codec = language_model.codec
    *before, last = [(part.role, write(part.text)) for part in instruction.content if isinstance(part, Text)]
    prompt, answer = last[1], write(instruction.answer)
    if not prompt or not answer:
        return "empty answer" if prompt else "empty prompt"
    try:
        if isinstance(codec, ChatCodec):
            asked = codec.ask(prompt, [{"role": role, "content": text} for role, text in before])
        else:
            asked = codec.encode(write(instruction.asked))
        said = codec.encode(answer)
    except LabError:
        return NOT_READABLE
    num_asked = len(asked) + len(codec.start_ids)
    if num_asked >= budget_tokens:
        return "prompt longer than the budget"
    if num_asked + len(said) > budget_tokens:
        return "prompt and answer longer than the budget"
    return Example(content=[asked], answer=said)


def without_prompt(example: Example, language_model: LanguageModel) -> Example:
    """The answer alone; of a chat model in the template of an empty prompt, so that its content alone is missing."""
    codec = language_model.codec
    return replace(example, content=[codec.ask("") if isinstance(codec, ChatCodec) else []])


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

    def sha256(self, samples: Sequence[Sample]) -> str:
        """Of all that they say."""
        return samples_sha256(samples)

    def row(self, sample: Sample, budget_tokens: int) -> ScoredRow | str:
        """Prompt, start and answer, or why they cannot be scored."""
        whole = instruction_example(sample, self.language_model, self.write, budget_tokens=budget_tokens)
        if isinstance(whole, str):
            return whole
        alone = without_prompt(whole, self.language_model)
        num_tokens, alone_tokens = (self.model.num_tokens(example) - 1 for example in (whole, alone))
        prompt, answer = self.model.segment_tokens(whole.content[0]), len(whole.answer)
        return ScoredRow(sample.id, lambda: whole, lambda: alone, num_tokens, alone_tokens, prompt, answer)
