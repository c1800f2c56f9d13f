"""The item table: one line for each sample that was asked, with the same columns whatever was asked and however.

| column | is |
|---|---|
| `source`, `id`, `group`, `task` | the sample's; items of one group are no independent witnesses |
| `asked`, `answer`, `given` | its text, the right answer, and what the model gave |
| `answer_normalized`, `given_normalized` | both as they were compared |
| `finish_reason` | `stop`, `length` where the answer was cut at its limit of tokens; empty where it was chosen |
| `num_choices` | choices it had; 0 where the model wrote |
| `wrong_answers` of `num_questions` | 0 or 1, of 1 |
| `character_errors` of `num_characters`, `word_errors` of `num_words` | edits; 0 of 0 where they are not counted |
| `loss`, `num_tokens` | nats of the right answer, summed over so many tokens, end included |

A study adds the `split`, and beside its test items the training losses that a filter read
(`lab.evaluation.fault_removal`). Rates with intervals are counted from these columns (`lab.evaluation.statistics`).
"""

from collections.abc import Mapping

import pandas as pd

from lab.errors import LabError

STOPPED, CUT = "stop", "length"
"""Why an answer ends, in the words of OpenAI's interface."""
NAMES = ("source", "id", "group", "task", "asked", "answer", "given")
"""The columns that say what an item is, of every item table."""


def pooled(items: pd.DataFrame, errors: str, length: str) -> float:
    """All errors over all that they are counted in, so that a long item weighs more than a short one; a fraction.

    Above 1 where more is inserted than was said.

    Raises:
        LabError: there is nothing to count.
    """
    total = int(items[length].sum())
    if total == 0:
        raise LabError(
            f"no rate of {errors}: {length} is 0 in all of {len(items)} items; give at least one, and a normaliser "
            "that reports them"
        )
    return int(items[errors].sum()) / total


def scores(items: pd.DataFrame, split: str) -> dict[str, float]:
    """What a study reports of a split, under names that begin with it.

    Of choices `accuracy`, what guessing gives (`chance`), and the accuracy of each task; of writing the error rates;
    of both the `loss` of a token of the right answers.
    """
    measured = {f"{split}_loss": float(items["loss"].sum() / items["num_tokens"].sum())}
    if items["num_choices"].gt(0).all():
        right = 1 - items["wrong_answers"]
        measured[f"{split}_accuracy"] = float(right.mean())
        measured[f"{split}_chance"] = float((1 / items["num_choices"]).mean())
        of_tasks = right.groupby(items["task"]).mean()
        return measured | {f"{split}_accuracy_{task}": float(value) for task, value in of_tasks.items()}
    measured[f"{split}_character_error_rate"] = pooled(items, "character_errors", "num_characters")
    if items["num_words"].any():
        measured[f"{split}_word_error_rate"] = pooled(items, "word_errors", "num_words")
    return measured


def scores_of_tests(tests: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """The scores of several tests, under names that begin with theirs."""
    return {name: value for test, items in tests.items() for name, value in scores(items, test).items()}
