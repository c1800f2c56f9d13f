"""The few-shot questions of MMLU that lm-eval carries: some 285 with four choices, the right one as the answer.

As instructions, and as a task of lm-eval that stands in for MMLU where there is no hub.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import yaml

from lab.data.fetch import fetch, packages
from lab.data.filters.filtering import LeftOut
from lab.data.instructions.instructions import instruction
from lab.data.sample import Sample
from lab.errors import LabError
from standins.instructions.near_groups import near_groups

if TYPE_CHECKING:
    from datasets import Dataset

_FOLDER = "lm_eval/tasks/mmlu/flan_cot_fewshot"
_CHOICES = re.compile(r"\(([A-D])\)\s*(.*?)(?=\s*\([A-D]\)|\Z)", re.DOTALL)
_ANSWER = re.compile(r"answer is \(([A-D])\)")
_CHOICE = re.compile(r"\s*\(([A-D])\)\s*")
_MMLU_PROMPT = (
    "The following are multiple choice questions (with answers) about {{subject}}.\n\n"
    "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:"
)


class _Loader(yaml.CSafeLoader):
    """Reads lm-eval's tasks; their `!function` tags are left unread."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def instructions(option: str, left_out: LeftOut) -> Iterator[Sample]:
    """Yield the questions with their choices; the answer is the right choice's text, without its letter.

    A group holds near questions.
    """
    if option:
        raise LabError(f"source 'mmlu' has no option, so not {option!r}; all its questions are read")
    found: list[tuple[str, str, str]] = []
    for path in sorted((fetch("lm-eval") / _FOLDER).glob("mmlu_*.yaml")):
        task = yaml.load(path.read_text(encoding="utf-8"), _Loader)
        for number, sample in enumerate(task.get("fewshot_config", {}).get("samples", ())):
            key = f"{path.stem.removeprefix('mmlu_')}-{number}"
            question = " ".join(str(sample["question"]).split())
            right = _ANSWER.search(" ".join(str(sample["target"]).split()))
            choices = {letter: text.strip() for letter, text in _CHOICES.findall(question)}
            if right is None or right[1] not in choices:
                left_out.add("question without its right choice", key)
                continue
            found.append((key, question, choices[right[1]]))
    groups = near_groups([question for _, question, _ in found])
    for (key, question, answer), group in zip(found, groups, strict=True):
        made = {"source": "mmlu", "task": "mmlu", "group": f"mmlu-{group}"}
        yield instruction(id=f"mmlu/{key}", prompt=question, answer=answer, **made)


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
    """
    from datasets import Dataset

    found = instructions("", LeftOut())
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
