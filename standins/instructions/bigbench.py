"""Tasks of BIG-bench (Srivastava et al., 2022) as prompts and answers: a fixed choice of short ones in English.

Their files alone are unpacked from the package's source archive (`members` in `sources.toml`); nothing of it is
installed.
"""

import json
from collections.abc import Iterator
from typing import Any

from lab.data.fetch import fetch
from lab.data.filters.filtering import LeftOut
from lab.data.instructions.instructions import instruction
from lab.data.sample import Sample
from lab.data.splits import normalize_sentence
from lab.errors import choose


def instructions(names: str, left_out: LeftOut) -> Iterator[Sample]:
    """Yield the examples of the tasks, `TASK,TASK` of `TASKS` (all where empty), one task after the other.

    Of several right answers the first is taken, of scored choices the best. A group is a task's examples with one
    text: templates of a task are near each other by their making, so a split by nearness would leave one group a task.
    """
    wanted = [(name, choose(TASKS, name, "task of bigbench")) for name in (names.split(",") if names else TASKS)]
    root = fetch("bigbench") / "bigbench-1.0.0/bigbench/benchmark_tasks"
    for name, (folder, asks) in wanted:
        examples = json.loads((root / folder / "task.json").read_text(encoding="utf-8"))["examples"]
        for number, example in enumerate(examples):
            id = f"bigbench/{name}-{number:05d}"
            text, answer = str(example.get("input", "")).strip(), _answer(example)
            if answer is None:
                left_out.add("example without one best answer", id)
                continue
            yield instruction(
                id=id,
                prompt=asks.format(text) if text else "",
                answer=answer.strip(),
                source=f"bigbench:{name}",
                task=name,
                group=f"bigbench-{name}-{normalize_sentence(text)}",
            )


def _answer(example: dict[str, Any]) -> str | None:
    if "target" in example:
        target = example["target"]
        return str(target[0] if isinstance(target, list) and target else target)
    scores = example.get("target_scores", {})
    best = [choice for choice, score in scores.items() if score == max(scores.values())]
    return str(best[0]) if len(best) == 1 else None


TASKS = {
    "facts": ("natural_instructions/subtask040_qasc_question_generation", "Ask about this. {}"),
    "wikidata": ("qa_wikidata", "{}"),
    "questions": ("linguistic_mappings/question_formation_json", "Make a question. {}"),
    "negations": ("linguistic_mappings/sentence_negation_json", "Say that it is not so. {}"),
    "pronouns": ("linguistic_mappings/pronoun_replacement_json", "Put a pronoun. {}"),
    "plurals": ("linguistic_mappings/plural_json", "Plural of {}"),
    "past": ("linguistic_mappings/past_tense_json", "Past tense of {}"),
    "situations": ("social_iqa", "{}"),
}
"""A folder of `bigbench/benchmark_tasks`, and what is asked, with `{}` where the example's own text stands."""
