"""The few-shot questions of MMLU that lm-eval carries: some 285 with four choices, the right one as the answer."""

import re
from collections.abc import Iterator

import yaml

from lab.data.fetch import fetch
from lab.data.filters.filtering import LeftOut
from lab.data.instructions.instructions import instruction
from lab.data.sample import Sample
from lab.errors import LabError
from standins.instructions.near_groups import near_groups

_FOLDER = "lm_eval/tasks/mmlu/flan_cot_fewshot"
_CHOICE = re.compile(r"\(([A-D])\)\s*(.*?)(?=\s*\([A-D]\)|\Z)", re.DOTALL)
_ANSWER = re.compile(r"answer is \(([A-D])\)")


class _Loader(yaml.CSafeLoader):
    """Reads lm-eval's tasks; their `!function` tags are left unread."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def instructions(option: str, left_out: LeftOut) -> Iterator[Sample]:
    """Yield the questions with their choices; the answer is the right choice's text, without its letter.

    A group holds near questions.

    Raises:
        LabError: an option, which this source has not; or the package cannot be fetched.
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
            choices = {letter: text.strip() for letter, text in _CHOICE.findall(question)}
            if right is None or right[1] not in choices:
                left_out.add("question without its right choice", key)
                continue
            found.append((key, question, choices[right[1]]))
    groups = near_groups([question for _, question, _ in found])
    for (key, question, answer), group in zip(found, groups, strict=True):
        made = {"source": "mmlu", "task": "mmlu", "group": f"mmlu-{group}"}
        yield instruction(id=f"mmlu/{key}", prompt=question, answer=answer, **made)
