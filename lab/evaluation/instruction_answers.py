"""What a fine-tuned model makes of held-out instructions: the loss of the right answer, and whether it chooses it.

Section 4 of the paper (accuracy). The choices are the right answer and answers to other held-out questions of the same
source, near it in length. The likeliest a token is chosen, as lm-eval's `acc_norm` does: answers differ in length.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from lab.data.sample import Sample
from lab.errors import LabError
from lab.parts.language_models import LanguageModel
from lab.training.language_models import text_model
from lab.training.packed_losses import ScoringOptions
from lab.training.samples import SampleExamples
from lab.training.scoring import answer_losses


def choices_of(
    instructions: Sequence[Sample], write: Callable[[str], str], *, num_choices: int
) -> list[tuple[str, ...]]:
    """The choices of each instruction, its right answer first: the same whenever the instructions are the same.

    Others are drawn among the `4 * num_choices` of nearest length of its source, of all sources where that has too few.

    Raises:
        LabError: fewer than two choices, or fewer different answers than choices.
    """
    if num_choices < 2:
        raise LabError(f"num_choices is {num_choices}; expected at least 2")
    found = []
    for index, one in enumerate(instructions):
        right = write(one.answer)
        rng = np.random.default_rng([index, len(instructions)])
        others: list[str] = []
        for among in (one.source, None):
            pool = {write(i.answer) for i in instructions if among in (i.source, None)} - {right, *others}
            near = sorted(pool, key=lambda text: (abs(len(text) - len(right)), text))[: 4 * num_choices]
            others += [near[i] for i in rng.permutation(len(near))[: num_choices - 1 - len(others)]]
        if len(others) < num_choices - 1:
            raise LabError(
                f"{len(instructions)} instructions have {len(others) + 1} different answers, too few for "
                f"{num_choices} choices; raise num_test"
            )
        found.append((right, *others))
    return found


def measure_instructions(
    language_model: LanguageModel,
    instructions: Sequence[Sample],
    *,
    name: str,
    write: Callable[[str], str],
    num_choices: int,
    precision: str = "auto",
    budget_tokens: int = 4096,
) -> pd.DataFrame:
    """Ask every instruction; one line each, in their order, with the columns of `measure_answers`.

    `corpus` is `name`, `kind` the source. `loss` is in nats over the right answer's tokens, end included.

    Raises:
        LabError: as `choices_of`; an instruction that the model cannot read; or a loss that is not finite.
    """
    choices = choices_of(instructions, write, num_choices=num_choices)
    pairs = [(one, text) for one, own in zip(instructions, choices, strict=True) for text in own]
    asked = [replace(one, answer=text, choices=()) for one, text in pairs]
    examples, model = SampleExamples(samples=asked, write=write), text_model(language_model)
    for index, sample in enumerate(asked):
        if reason := examples.why_not_readable(index, model, max_tokens=budget_tokens):
            raise LabError(f"held-out instruction {sample.id!r} cannot be asked: {reason}")
    lengths = [examples.num_tokens(index, model) for index in range(len(asked))]
    losses = answer_losses(
        model,
        lambda places: [examples.example(place, model) for place in places],
        [length - 1 for length in lengths],
        ScoringOptions(budget_tokens=budget_tokens, precision=precision),
        examples.ids,
        scorer=language_model.name,
    ).reshape(len(instructions), num_choices)
    lines = []
    for index, (one, own) in enumerate(zip(instructions, choices, strict=True)):
        chosen = int(losses[index].argmin())
        count = len(examples.answer_ids(own[0], model)) + 1
        lines.append(
            {
                "question": one.id,
                "group": one.group,
                "kind": one.source.rpartition(":")[2],
                "asked": one.asked,
                "answer": own[0],
                "chosen": own[chosen],
                "wrong_answers": int(chosen != 0),
                "num_questions": 1,
                "num_choices": num_choices,
                "loss": float(losses[index, 0]) * count,
                "num_tokens": count,
            }
        )
    return pd.DataFrame(lines).assign(corpus=name)
