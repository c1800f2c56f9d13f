"""A model's answers to conversations, each asked for once (`lab.data.kept`).

An answer is known by its sample and by the conversation that it ends.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence

from lab.data.kept import Kept
from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import Progress
from lab.evaluation.benchmarks.conversations import Conversation, Refused, TextModel, asked, identity_of
from lab.evaluation.benchmarks.items import Item
from lab.evaluation.benchmarks.text_models import open_text_model


class KeptAnswers:
    """A model's replies: what was said before is read, the rest is asked for and kept, one by one as it comes.

    Args:
        model: says what is not there; its key is asked once.
        purpose: what the replies are ("answers", "marks of yes_no 1"), part of their identity.
    """

    def __init__(self, model: TextModel, *, purpose: str) -> None:
        self.kept = Kept("answers", purpose, model.key, what="answers")
        self._model = model

    def replies(
        self, ids: Sequence[str], conversations: Sequence[Conversation], progress: Progress | None = None
    ) -> list[str | Refused]:
        """The reply to each sample's conversation, in their order; a refusal is asked again the next time.

        Raises:
            LabError: as the model, after what it had replied was kept; or as `Kept.values`.
        """

        def make(missing: list[int]) -> Iterator[tuple[int, str | Refused]]:
            for place, reply in self._model.reply([conversations[index] for index in missing]):
                yield missing[place], reply

        keys = [
            hashlib.sha256(json.dumps([sample, identity_of(said)]).encode()).digest()
            for sample, said in zip(ids, conversations, strict=True)
        ]
        return self.kept.values(keys, make, progress)


def answers_of(
    model: str, items: Sequence[Item], prompts: Sequence[str], *, max_new_tokens: int, progress: Progress
) -> list[str]:
    """What a model that has to answer everything says to each item's prompt, its media before it.

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
