"""The loss that a language model has of every answer given its prompt, and without it: what `lab score` writes.

Section 3 of the paper (the pretrained model's loss on every sample); pictures with questions are scored by
`lab.training.image_text_scoring`.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
from jaxtyping import Float
from numpy import ndarray

from lab.data.filters.loss_columns import LOSS_COLUMNS
from lab.data.instructions.instruction import Instruction
from lab.data.instructions.instructions import instructions_sha256
from lab.parts.joined_sequences import AnswerLoss
from lab.parts.language_models import LanguageModel
from lab.parts.omni_model import Example, OmniModel
from lab.training.instruction_rows import instruction_example, without_prompt
from lab.training.loop import choose_precision
from lab.training.packed_losses import ScoringOptions, losses_in_packs
from lab.training.scored_parts import Scorer, ScoringSummary, score_in_parts


def score_instructions(
    instructions: Iterable[Instruction],
    language_model: LanguageModel,
    folder: Path,
    *,
    write: Callable[[str], str] = str.strip,
    options: ScoringOptions | None = None,
    progress: Callable[[int], None] | None = None,
) -> ScoringSummary:
    """Score a stream of instructions into `folder`, as `score_in_parts` does.

    Args:
        instructions: the same ones in the same order whenever it goes on.
        language_model: on the device on which it is to run.
        folder: of this scoring alone.
        write: brings a text into the form that the language model reads.
        options: of the scoring.
        progress: told how many samples are done.

    Raises:
        LabError: a part of another model, other options or other instructions; nothing to score; a loss that is not
            finite, whose sample is named; or a folder that cannot be written.
    """
    chosen = options or ScoringOptions()
    return score_in_parts(
        instructions,
        folder,
        scorer=Scorer(language_model.name, language_model.sha256),
        part_samples=chosen.part_samples,
        key=partial(_key, language_model, chosen),
        score=partial(_scored, language_model, write, chosen),
        progress=progress,
    )


def _key(language_model: LanguageModel, options: ScoringOptions, samples: Sequence[Instruction]) -> str:
    facts = [language_model.sha256, options.budget_tokens, options.without_prompt]
    precision = choose_precision(options.precision, language_model.model.device)
    return json.dumps([*facts, precision, instructions_sha256(samples)])


def _scored(
    language_model: LanguageModel,
    write: Callable[[str], str],
    options: ScoringOptions,
    samples: Sequence[Instruction],
) -> tuple[pa.Table, Counter[str]]:
    examples: list[Example] = []
    ids: list[str] = []
    skipped: Counter[str] = Counter()
    for sample in samples:
        example = instruction_example(sample, language_model, write, budget_tokens=options.budget_tokens)
        if isinstance(example, str):
            skipped[example] += 1
        else:
            examples.append(example)
            ids.append(sample.id)
    losses = answer_losses(language_model, examples, options, ids)
    alone = [without_prompt(example, language_model) for example in examples]
    model = OmniModel(language_model=language_model)
    columns = {
        "id": ids,
        "loss": losses,
        "loss_without_prompt": answer_losses(language_model, alone, options, ids)
        if options.without_prompt
        else [None] * len(examples),
        "num_tokens": [len(example.answer) + 1 for example in examples],
        "prompt_tokens": [model.segment_tokens(example.content[0]) for example in examples],
    }
    return pa.table(columns, schema=LOSS_COLUMNS), skipped


def answer_losses(
    language_model: LanguageModel, examples: Sequence[Example], options: ScoringOptions, ids: Sequence[str]
) -> Float[ndarray, " samples"]:
    """The mean loss of a token of each answer, nats, in packs of `budget_tokens`; `ids` name the samples in messages.

    Raises:
        LabError: a loss that is not finite.
    """
    model = OmniModel(language_model=language_model, positions="sequential").eval()

    def score(places: Sequence[int]) -> AnswerLoss:
        return model.packed([examples[i] for i in places]).loss

    return losses_in_packs(
        score,
        [model.num_tokens(example) - 1 for example in examples],
        options,
        ids=ids,
        scorer=language_model.name,
        device=model.device,
    )
