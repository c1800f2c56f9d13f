"""Pictures with questions and answers as a vision-language model that scores them reads them.

Where an answer is scored without its prompt (for the filter `ifd`), both are left out, the picture's tokens and the
question; the answer's start stays. `prompt_tokens` are the picture's and the question's together.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from lab.errors import LabError
from lab.parts.joined_sequences import AnswerLoss
from lab.parts.packed_models import packed_vision_answers
from lab.parts.vision_language_model import Question, VisionLanguageModel
from lab.training.instruction_rows import NOT_READABLE
from lab.training.scoring import ScoredRow, Scorer
from lab.training.vision_data import VisionSplit

TOO_LONG = "picture, question and answer longer than the budget"


def why_not_readable(split: VisionSplit, index: int, model: VisionLanguageModel, *, max_tokens: int) -> str | None:
    """Why an example cannot be scored or trained on within so many tokens, a reason to be counted; None: it can."""
    example = split.examples[index]
    if not split.write(example.question):
        return "empty prompt"
    if not split.write(example.answer):
        return "empty answer"
    try:
        # The end stands in no row, it is only ever a label.
        return TOO_LONG if split.num_tokens(index, model) - 1 > max_tokens else None
    except LabError:
        return NOT_READABLE


@dataclass(frozen=True)
class PictureAnswers:
    """Examples of a split, by their place in it, and the model that reads them; an `Answers`."""

    split: VisionSplit
    model: VisionLanguageModel
    scorer: Scorer

    @property
    def device(self) -> torch.device:
        """On which the model runs."""
        return next(self.model.parameters()).device

    def sha256(self, samples: Sequence[int]) -> str:
        """Of what is seen, asked and answered."""
        digest = hashlib.sha256(self.split.store.sha256.encode())
        for example in (self.split.examples[i] for i in samples):
            digest.update(repr((example.id, example.question, example.answer)).encode())
        return digest.hexdigest()

    def row(self, sample: int, budget_tokens: int) -> ScoredRow | str:
        """Picture, question, start and answer, or why it cannot be scored."""
        if reason := why_not_readable(self.split, sample, self.model, max_tokens=budget_tokens):
            return reason
        example = self.split.examples[sample]
        num_tokens = self.split.num_tokens(sample, self.model) - 1
        answer = len(self.split.answer_ids(example.answer, self.model))
        alone = len(self.model.codec.start_ids) + answer
        return ScoredRow(example.id, (sample, True), (sample, False), num_tokens, alone, num_tokens - alone, answer)

    def loss(self, rows: Sequence[tuple[int, bool]]) -> AnswerLoss:
        """Views are read from the store, a pack at a time."""
        self.model.eval()
        questions = [self.split.question(place, self.model) for place, _ in rows]
        asked = [one if whole else nothing_asked(one) for one, (_, whole) in zip(questions, rows, strict=True)]
        answers = [self.split.answer_ids(self.split.examples[place].answer, self.model) for place, _ in rows]
        return packed_vision_answers(self.model, asked, answers).loss


def nothing_asked(question: Question) -> Question:
    """The question without its words and without what is seen."""
    seen = replace(question.seen, views=question.seen.views[:0], seconds=(), grid=(1, 1), order=None)
    return replace(question, seen=seen, question_ids=())
