"""The answers of a model that has to answer all that it is asked, or the error that says what it would not."""

from collections.abc import Sequence
from typing import Protocol

from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import Progress
from lab.evaluation.benchmarks.conversations import Medium, Refused, asked
from lab.evaluation.benchmarks.kept_answers import KeptAnswers
from lab.evaluation.benchmarks.model_names import open_text_model


class Item(Protocol):
    """What a model is asked about."""

    @property
    def id(self) -> str:
        """Known by."""

    @property
    def media(self) -> tuple[Medium, ...]:
        """What stands before its prompt."""


def answers_of(
    model: str, items: Sequence[Item], prompts: Sequence[str], *, max_new_tokens: int, progress: Progress
) -> list[str]:
    """What the model says to each item's prompt, its media before it; what it has said before is not asked again.

    Raises:
        LabError: the model cannot be opened or asked, or refused an item; the first is named, and how many there are.
    """
    answering = KeptAnswers(open_text_model(model, max_new_tokens=max_new_tokens), purpose="answers")
    conversations = [asked(prompt, one.media) for prompt, one in zip(prompts, items, strict=True)]
    replies = answering.replies([one.id for one in items], conversations, progress)
    refused = [(one.id, reply) for one, reply in zip(items, replies, strict=True) if isinstance(reply, Refused)]
    if refused:
        key, first = refused[0]
        raise LabError(
            f"model {model!r} refused {len(refused)} of {len(items)} samples, the first is {key!r} ({first.why}); a "
            "score over the rest would be another benchmark's"
        )
    return [reply for reply in replies if isinstance(reply, str)]
