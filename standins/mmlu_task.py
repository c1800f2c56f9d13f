"""A task of lm-eval that stands in for MMLU where there is no hub: the few-shot questions that the package carries."""

import re
from typing import TYPE_CHECKING, Any

from lab.data.fetch import packages
from lab.data.filters.filtering import LeftOut
from lab.errors import LabError
from standins.instructions import mmlu

if TYPE_CHECKING:
    from datasets import Dataset

_CHOICE = re.compile(r"\s*\(([A-D])\)\s*")
_MMLU_PROMPT = (
    "The following are multiple choice questions (with answers) about {{subject}}.\n\n"
    "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:"
)


def task() -> dict[str, Any]:
    """What lm-eval's `mmlu` asks (the subject's description, then its question), of its few-shot questions."""
    return {
        "task": "mmlu_few_shot_questions",
        "custom_dataset": few_shot_questions,
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": _MMLU_PROMPT,
        "doc_to_choice": ["A", "B", "C", "D"],
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }


def few_shot_questions(**_: object) -> "dict[str, Dataset]":
    """The MMLU questions that lm-eval itself carries, as a data set of the form of `cais/mmlu`.

    They are the few-shot examples of its task `mmlu_flan_cot_fewshot`: MMLU's own development questions, so no test
    set. Rows: `id`, `subject`, `question`, `choices` (four texts), `answer` (which of them).

    Raises:
        LabError: the package cannot be fetched, or no question of it can be read.
    """
    from datasets import Dataset

    found = mmlu.instructions("", LeftOut())
    rows = [row for one in found if (row := as_row(one.id.partition("/")[2], one.asked, one.answer)) is not None]
    if not rows:
        package = packages()["lm-eval"]
        raise LabError(f"no question of lm-eval {package.version} could be read; its form has changed")
    return {"test": Dataset.from_list(rows)}


def as_row(key: str, text: str, right: str) -> dict[str, object] | None:
    """Cut a question from its four choices; None where they are not A to D, each once, with the right one among them.

    >>> as_row("astronomy-0", "Why is Mars red? (A) Rust. (B) Heat. (C) Lava. (D) Ice.", "Rust.")["answer"]
    0
    """
    question, *parts = _CHOICE.split(text)
    choices = [choice.strip() for choice in parts[1::2]]
    if "".join(parts[::2]) != "ABCD" or right not in choices:
        return None
    subject = key.rpartition("-")[0].replace("_", " ")
    answer = choices.index(right)
    return {"id": key, "subject": subject, "question": question.strip(), "choices": choices, "answer": answer}
