"""What a judge is asked and what its reply means: yes or no with a score of 0 to 5, or the score alone (section 4).

The prompts are ours, versioned, in `judge_prompts.toml`; the paper's is not found.
"""

import json
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lab.errors import choose
from lab.evaluation.benchmarks.conversations import Conversation, Turn

LOWEST, HIGHEST = 0, 5
# A reply in a code fence is told apart from one with words around it.
_FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One answer to be judged."""

    id: str
    question: str
    reference: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a judge found; `score` is None where it found nothing that can be used, and `unjudged` says why.

    `correct` is None as well then, and always where the score alone is asked for.
    """

    correct: bool | None = None
    score: float | None = None
    unjudged: str = ""
    num_asked: int = 1


@dataclass(frozen=True, kw_only=True)
class JudgePrompt:
    """One table of `judge_prompts.toml`; braces are filled with a case's parts."""

    name: str
    version: int
    system: str
    user: str
    again: str

    @property
    def called(self) -> str:
        """Name and version, as scores and the cache know it."""
        return f"{self.name} {self.version}"

    def opening(self, case: Case) -> Conversation:
        """The first question to the judge."""
        asks = self.user.format(question=case.question, reference=case.reference, answer=case.answer)
        return (Turn("system", self.system), Turn("user", asks))

    def asked_again(self, before: Conversation, reply: str) -> Conversation:
        """The question after a reply that could not be used."""
        return (*before, Turn("assistant", reply), Turn("user", self.again.format()))

    def read(self, reply: str) -> Verdict | None:
        """Read a reply; None for anything but the one JSON object that was asked for, whole numbers from 0 to 5 in it.

        Strict, for a reply that quotes an answer with an object in it must not be taken for the judge's own: a code
        fence may be around the object, no words. Other keys are let be, and "Yes" is yes.

        >>> prompts()["score"].read('{"score": 4}').score, prompts()["score"].read('I say {"score": 4}')
        (4.0, None)
        """
        found = _object_of(reply)
        if found is None:
            return None
        score = found.get("score")
        if isinstance(score, bool) or not isinstance(score, int | float):
            return None
        if not LOWEST <= score <= HIGHEST or score != int(score):  # NaN lies between no two numbers
            return None
        if self.name == "score":
            return Verdict(score=float(score))
        said = str(found.get("verdict")).strip().lower()
        return Verdict(correct=said == "yes", score=float(score)) if said in ("yes", "no") else None


@cache
def prompts() -> dict[str, JudgePrompt]:
    """Every judge's prompt by name."""
    tables = tomllib.loads(Path(__file__).with_name("judge_prompts.toml").read_text(encoding="utf-8"))
    return {name: JudgePrompt(name=name, **table) for name, table in tables.items()}


def find_prompt(name: str) -> JudgePrompt:
    """A judge's prompt.

    Raises:
        LabError: there is none of that name.
    """
    return choose(prompts(), name, "judge's prompt")


def _object_of(reply: str) -> dict[str, Any] | None:
    """The JSON object that a reply is; None where it is none, is more than that, or says one thing twice."""
    bare = reply.strip()
    fenced = _FENCED.fullmatch(bare)
    try:
        found = json.loads(fenced[1] if fenced else bare, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found
