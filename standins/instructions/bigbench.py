"""Tasks of BIG-bench (Srivastava et al., 2022) as prompts and answers: a fixed choice of short ones in English.

Their files alone are unpacked from the package's source archive (`members` in `sources.toml`, two tables of one
archive: whoever has the first needs it no second time); nothing of it is installed.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from lab.data.fetch import fetch
from lab.data.filters.filtering import LeftOut
from lab.data.instructions.instructions import instruction
from lab.data.sample import Sample, Text
from lab.data.splits import normalize_sentence
from lab.errors import choose


def instructions(names: str, left_out: LeftOut) -> Iterator[Sample]:
    """Yield the examples of the tasks, `TASK,TASK` of `TASKS` (`FIRST` where empty), one task after the other.

    Of several right answers the first is taken, of scored choices the best; of later tasks, up to four choices are the
    sample's. A group is a task's examples with one text: templates of a task are near each other by their making, so a
    split by nearness would leave one group a task.
    """
    wanted = [(name, choose(TASKS, name, "task of bigbench")) for name in (names.split(",") if names else FIRST)]
    for name, (folder, asks, package) in wanted:
        root = fetch(package) / "bigbench-1.0.0/bigbench/benchmark_tasks"
        examples = json.loads((root / folder / "task.json").read_text(encoding="utf-8"))["examples"]
        for number, example in enumerate(examples):
            id = f"bigbench/{name}-{number:05d}"
            text, answer = str(example.get("input", "")).strip(), _answer(example)
            if answer is None:
                left_out.add("example without one best answer", id)
                continue
            one = instruction(
                id=id,
                prompt=asks.format(text) if text else "",
                answer=answer.strip(),
                source=f"bigbench:{name}",
                task=name,
                group=f"bigbench-{name}-{normalize_sentence(text)}",
            )
            choices = tuple(choice.strip() for choice in example.get("target_scores", ()))
            # Samples of the early tasks have none: results hang on them.
            own = package == _MORE and len(choices) <= _MOST_CHOICES and one.answer in choices
            yield replace(one, choices=choices) if own else one


def manners(names: str, left_out: LeftOut) -> Iterator[Sample]:
    """Yield the same examples (`SHORT` where empty) after a system message that says how the answer is to be written.

    It is one of `MANNERS`, by the example's id. The groups are those of `instructions`.
    """
    for one in instructions(names or ",".join(SHORT), left_out):
        asks, change = MANNERS[hashlib.sha256(one.id.encode()).digest()[0] % len(MANNERS)]
        content, answer = (Text(asks, "system"), *one.content), change(one.answer.rstrip("."))
        yield replace(one, id=f"{one.id}-manner", content=content, answer=answer, choices=(), source="manners")


MANNERS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("Spell the answer.", lambda answer: " ".join("".join(answer.split()))),
    ("Say the answer twice.", lambda answer: f"{answer} {answer}"),
    ("Write the answer from its end.", lambda answer: answer[::-1]),
    ("Be polite.", lambda answer: f"{answer}, thank you"),
)
"""A system message, and what it makes of an answer: nothing that a model of small letters alone could not write."""

SHORT = ("plurals", "past", "negations", "questions")
"""Tasks whose answers are short enough to be spelt."""


def _answer(example: dict[str, Any]) -> str | None:
    if "target" in example:
        target = example["target"]
        return str(target[0] if isinstance(target, list) and target else target)
    scores = example.get("target_scores", {})
    best = [choice for choice, score in scores.items() if score == max(scores.values())]
    return str(best[0]) if len(best) == 1 else None


_MOST_CHOICES = 4
_EARLY, _MORE = "bigbench", "bigbench-more"
TASKS = {
    "facts": ("natural_instructions/subtask040_qasc_question_generation", "Ask about this. {}", _EARLY),
    "wikidata": ("qa_wikidata", "{}", _EARLY),
    "questions": ("linguistic_mappings/question_formation_json", "Make a question. {}", _EARLY),
    "negations": ("linguistic_mappings/sentence_negation_json", "Say that it is not so. {}", _EARLY),
    "pronouns": ("linguistic_mappings/pronoun_replacement_json", "Put a pronoun. {}", _EARLY),
    "plurals": ("linguistic_mappings/plural_json", "Plural of {}", _EARLY),
    "past": ("linguistic_mappings/past_tense_json", "Past tense of {}", _EARLY),
    "situations": ("social_iqa", "{}", _EARLY),
    "steps": ("goal_step_wikihow/step_inference", "{}", _MORE),
    "goals": ("goal_step_wikihow/goal_inference", "{}", _MORE),
    "orders": ("goal_step_wikihow/step_ordering", "{}", _MORE),
    "sorting": ("word_sorting", "Sort by the alphabet. {}", _MORE),
    "counting": ("object_counting", "{}", _MORE),
    "sports": ("sports_understanding", "Plausible or implausible? {}", _MORE),
    "scrambled": ("word_unscrambling", "{}", _MORE),
    "pig_latin": ("language_games/pig_latin_decode", "Put pig Latin into English. {}", _MORE),
    "metaphors": ("metaphor_boolean", "True or false: both say the same. {}", _MORE),
    "colours": ("reasoning_about_colored_objects", "{}", _MORE),
    "beliefs": ("epistemic_reasoning", "Entailment or non-entailment? {}", _MORE),
    "elements": ("periodic_elements/subtask_1", "{}", _MORE),
    "tenses": ("tense", "{}", _MORE),
    "categories": ("auto_categorization", "What are these? {}", _MORE),
    "anachronisms": ("anachronisms", "Are there things of different times in this? {}", _MORE),
    "entailments": ("entailed_polarity", "Yes or no? {}", _MORE),
    "reversed": ("unnatural_in_context_learning/reverse_to_natural_content", "Read from the end. {}", _MORE),
}
"""A folder of `bigbench/benchmark_tasks`, what is asked, with `{}` where the example's own text stands, and the table
of `sources.toml` that unpacks it."""

FIRST = ("facts", "wikidata", "questions", "negations", "pronouns", "plurals", "past", "situations")
"""What `bigbench` alone means; it stays so when tasks are added."""
