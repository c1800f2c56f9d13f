"""Pictures with questions and answers as the model that scores them reads them.

Where an answer is scored without its prompt (for the filter `ifd`), both are left out, the picture's tokens and the
question; the answer's start stays. `prompt_tokens` are the picture's and the question's together.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lab.errors import LabError
from lab.parts.omni_model import Example, OmniModel
from lab.training.instruction_rows import NOT_READABLE
from lab.training.samples import SampleExamples
from lab.training.scoring import ScoredRow, Scorer

TOO_LONG = "picture, question and answer longer than the budget"


def why_not_readable(split: SampleExamples, index: int, model: OmniModel, *, max_tokens: int) -> str | None:
    """Why an example cannot be scored or trained on within so many tokens, a reason to be counted; None: it can."""
    sample = split.samples[index]
    if not split.written(sample.question, model):
        return "empty prompt"
    if not split.written(sample.answer, model):
        return "empty answer"
    try:
        # The end stands in no row, it is only ever a label.
        return TOO_LONG if split.num_tokens(index, model) - 1 > max_tokens else None
    except LabError:
        return NOT_READABLE


@dataclass(frozen=True)
class PictureAnswers:
    """Examples of a split, by their place in it, and the model that reads them; an `Answers`."""

    split: SampleExamples
    model: OmniModel
    scorer: Scorer

    def sha256(self, samples: Sequence[int]) -> str:
        """Of what is seen, asked and answered."""
        digest = hashlib.sha256(self.split.store.sha256.encode() if self.split.store else b"")
        for sample in (self.split.samples[i] for i in samples):
            digest.update(repr((sample.id, sample.question, sample.answer)).encode())
        return digest.hexdigest()

    def row(self, sample: int, budget_tokens: int) -> ScoredRow | str:
        """Picture, question, start and answer, or why it cannot be scored; views are read when they are scored."""
        if reason := why_not_readable(self.split, sample, self.model, max_tokens=budget_tokens):
            return reason
        num_tokens = self.split.num_tokens(sample, self.model) - 1
        answer = len(self.split.answer_ids(self.split.samples[sample].answer, self.model))
        alone = len(self.model.codec.start_ids) + answer

        def whole() -> Example:
            return self.split.example(sample, self.model)

        def unasked() -> Example:
            return nothing_asked(whole())

        id_ = self.split.samples[sample].id
        return ScoredRow(id_, whole, unasked, num_tokens, alone, num_tokens - alone, answer)


def nothing_asked(example: Example) -> Example:
    """The answer alone: nothing is asked and nothing is seen."""
    return replace(example, content=[[]])
