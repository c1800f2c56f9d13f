"""The loss that a vision-language model has of every answer given picture and question, and without them.

Section 3 of the paper, whose fine-tuning pairs are image-text too. Where an answer is scored without its prompt (for
the filter `ifd`), both are left out, the picture's tokens and the question; the answer's start stays. `prompt_tokens`
are the picture's and the question's together.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
from jaxtyping import Float
from numpy import ndarray

from lab.data.filters.loss_columns import LOSS_COLUMNS
from lab.errors import LabError
from lab.parts.joined_sequences import AnswerLoss
from lab.parts.omni_model import Example, OmniModel
from lab.training.instruction_rows import NOT_READABLE
from lab.training.loop import choose_precision
from lab.training.packed_losses import ScoringOptions, losses_in_packs
from lab.training.scored_parts import Scorer, ScoringSummary, score_in_parts
from lab.training.vision_data import VisionSplit

TOO_LONG = "picture, question and answer longer than the budget"


def why_not_readable(split: VisionSplit, index: int, model: OmniModel, *, max_tokens: int) -> str | None:
    """Why an example cannot be scored or trained on within so many tokens, a reason to be counted; None: it can."""
    example = split.examples[index]
    if not split.write(example.question):
        return "empty prompt"
    if not split.write(example.answer):
        return "empty answer"
    try:
        return TOO_LONG if _row_tokens(split, index, model) > max_tokens else None
    except LabError:
        return NOT_READABLE


def score_images(
    split: VisionSplit,
    model: OmniModel,
    scorer: Scorer,
    folder: Path,
    *,
    options: ScoringOptions | None = None,
    progress: Callable[[int], None] | None = None,
) -> ScoringSummary:
    """Score a split's examples, in their order, into `folder`, as `score_in_parts` does.

    Args:
        split: pictures with questions and answers.
        model: on the device on which it is to run.
        scorer: its name and hash.
        folder: of this scoring alone.
        options: of the scoring.
        progress: told how many examples are done.

    Raises:
        LabError: a part of another model, other options, pictures or examples; nothing to score; a loss that is not
            finite, whose example is named; or a folder that cannot be written.
    """
    chosen = options or ScoringOptions()
    return score_in_parts(
        range(len(split)),
        folder,
        scorer=scorer,
        part_samples=chosen.part_samples,
        key=partial(_key, split, model, scorer, chosen),
        score=partial(_scored, split, model, scorer, chosen),
        progress=progress,
    )


def _row_tokens(split: VisionSplit, index: int, model: OmniModel) -> int:
    """Of picture, question, start and answer; the end stands in no row, it is only ever a label."""
    return split.num_tokens(index, model) - 1


def _key(split: VisionSplit, model: OmniModel, scorer: Scorer, options: ScoringOptions, indices: Sequence[int]) -> str:
    digest = hashlib.sha256(split.store.sha256.encode())
    for example in (split.examples[i] for i in indices):
        digest.update(repr((example.id, example.question, example.answer)).encode())
    facts = [scorer.sha256, options.budget_tokens, options.without_prompt]
    return json.dumps([*facts, choose_precision(options.precision, model.device), digest.hexdigest()])


def _scored(
    split: VisionSplit, model: OmniModel, scorer: Scorer, options: ScoringOptions, indices: Sequence[int]
) -> tuple[pa.Table, Counter[str]]:
    reasons = {i: why_not_readable(split, i, model, max_tokens=options.budget_tokens) for i in indices}
    readable = [i for i in indices if reasons[i] is None]
    answers = [split.answer_ids(split.examples[i].answer, model) for i in readable]
    starts = len(model.codec.start_ids)
    lengths = [_row_tokens(split, i, model) for i in readable]

    def losses(own: Sequence[int], ask: Callable[[Example], Example]) -> Float[ndarray, " samples"]:
        def score(places: Sequence[int]) -> AnswerLoss:
            return model.packed([ask(split.example(readable[place], model)) for place in places]).loss

        ids = [split.examples[i].id for i in readable]
        return losses_in_packs(score, own, options, ids=ids, scorer=scorer.name, device=model.device)

    model.eval()
    alone = [starts + len(answer) for answer in answers]
    columns = {
        "id": [split.examples[i].id for i in readable],
        "loss": losses(lengths, lambda example: example),
        "loss_without_prompt": losses(alone, nothing_asked) if options.without_prompt else [None] * len(readable),
        "num_tokens": [len(answer) + 1 for answer in answers],
        "prompt_tokens": [length - own for length, own in zip(lengths, alone, strict=True)],
    }
    return pa.table(columns, schema=LOSS_COLUMNS), Counter(reason for reason in reasons.values() if reason)


def nothing_asked(example: Example) -> Example:
    """The answer alone: nothing is asked and nothing is seen."""
    return replace(example, content=[[]])
