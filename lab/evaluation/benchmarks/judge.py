"""A judge of open answers: any model that replies, asked again where it replies nonsense, and never silently a zero.

Section 4 of the paper (GPT-3.5-Turbo; yes or no gives accuracy, 0 to 5 gives a score). The prompts are ours, versioned,
in `judge_prompts.toml`; the paper's is not found. Replies are kept by judge, prompt version, sample and answer.
"""

import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from lab.data.sample import Sample, Text
from lab.errors import choose
from lab.evaluation.benchmarks.benchmark import Progress
from lab.evaluation.benchmarks.replies import KeptReplies, Refused, TextModel

NUM_ATTEMPTS = 3
MAX_NEW_TOKENS = 64
LOWEST, HIGHEST = 0, 5
# Of a reply that could not be used, shown with the reason.
_SHOWN = 80
# A reply in a code fence is told apart from one with words around it.
_FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What a judge made of an answer; `score` is None where that is nothing of use, and `unjudged` says why.

    `correct` is None as well then, and always where the score alone is asked for.
    """

    correct: bool | None = None
    score: float | None = None
    unjudged: str = ""
    num_asked: int = 1


@dataclass(frozen=True, kw_only=True)
class JudgePrompt:
    """One table of `judge_prompts.toml`; braces are filled with question, reference and answer."""

    name: str
    version: int
    system: str
    user: str
    again: str

    @property
    def called(self) -> str:
        """Name and version, as scores and the cache know it."""
        return f"{self.name} {self.version}"

    def opening(self, sample: Sample, answer: str) -> Sample:
        """The first question to the judge about an answer; it is shown no media."""
        asks = self.user.format(question=sample.question, reference=sample.answer, answer=answer)
        return Sample(id=sample.id, content=(Text(self.system, "system"), Text(asks)))

    def asked_again(self, before: Sample, reply: str) -> Sample:
        """The question after a reply that could not be used."""
        return replace(before, content=(*before.content, Text(reply, "assistant"), Text(self.again.format())))

    def read(self, reply: str) -> Mark | None:
        """Read a reply; None for anything but the one JSON object that was asked for, whole numbers from 0 to 5 in it.

        Strict, for a reply that quotes an answer with an object in it must not be taken for the judge's own: a code
        fence may be around the object, no words. Other keys are let be, and "Yes" is yes.

        >>> prompts()["score"].read('{"score": 4}').score, prompts()["score"].read('I say {"score": 4}')
        (4.0, None)
        """
        found = _object_of(reply)
        score = found.get("score")
        if isinstance(score, bool) or not isinstance(score, int | float):
            return None
        if not LOWEST <= score <= HIGHEST or score != int(score):  # NaN lies between no two numbers
            return None
        if self.name == "score":
            return Mark(score=float(score))
        said = str(found.get("verdict")).strip().lower()
        return Mark(correct=said == "yes", score=float(score)) if said in ("yes", "no") else None


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


def _object_of(reply: str) -> dict[str, Any]:
    """The JSON object that a reply is; empty where it is none, is more than that, or says one thing twice."""
    bare = reply.strip()
    fenced = _FENCED.fullmatch(bare)
    try:
        found = json.loads(fenced[1] if fenced else bare, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def marks_of(
    judge: TextModel,
    samples: Sequence[Sample],
    answers: Sequence[str],
    *,
    prompt: str,
    num_attempts: int = NUM_ATTEMPTS,
    progress: Progress | None = None,
) -> list[Mark]:
    """The judge's mark for each answer, in their order; what the judge has said before is not asked again.

    Args:
        judge: the model that judges.
        samples: what was asked.
        answers: one a sample.
        prompt: a table of `judge_prompts.toml`: `yes_no` or `score`.
        num_attempts: how often one answer is shown to it at most, the later times with what was wrong before.
        progress: counts the replies of the first asking.

    Raises:
        LabError: no such prompt, or the judge cannot be asked, after what it had said was kept: the same call goes on
            from there.
    """
    asks = find_prompt(prompt)
    kept = KeptReplies(judge, purpose=f"marks of {asks.called}")
    marks: dict[int, Mark] = {}
    unmarked = {place: asks.opening(*asked) for place, asked in enumerate(zip(samples, answers, strict=True))}
    for attempt in range(1, num_attempts + 1):
        replies = kept.to(list(unmarked.values()), progress)
        again: dict[int, Sample] = {}
        for (place, said), reply in zip(unmarked.items(), replies, strict=True):
            if isinstance(reply, Refused):
                marks[place] = Mark(unjudged=f"refused: {reply.why}", num_asked=attempt)
            elif (mark := asks.read(reply)) is not None:
                marks[place] = replace(mark, num_asked=attempt)
            else:
                shown = " ".join(reply.split())[:_SHOWN]
                marks[place] = Mark(unjudged=f"no verdict in {shown!r}", num_asked=attempt)
                again[place] = asks.asked_again(said, reply)
        unmarked, progress = again, None
    return [marks[place] for place in range(len(samples))]
