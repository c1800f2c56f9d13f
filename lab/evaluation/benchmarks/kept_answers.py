"""Generated answers kept on disk, each made once: a run that stops goes on, and nothing is generated twice.

An answer is known by its sample and by the conversation that it ends; each model, known by its key (weights, decoding,
length), has a file of its own in the cache. As `lab.evaluation.kept_transcripts` for what recognisers hear.
"""

import hashlib
import json
from collections.abc import Sequence

from lab.evaluation.benchmarks.benchmark import Progress
from lab.evaluation.benchmarks.conversations import Conversation, Refused, TextModel, identity_of
from lab.evaluation.kept_texts import KeptTexts
from lab.paths import cache_dir

FORMAT_VERSION = 2


class KeptAnswers:
    """A model's replies: what the cache has is read, the rest is asked for and kept, one by one as it comes.

    Several processes may share the file. Where two generate one answer at the same moment, the first stays and both
    return it. A refusal is returned and not kept.

    Args:
        model: makes what is not there; its key is asked once.
        purpose: what the replies are ("answers", "verdicts of yes_no 1"), part of their identity.
    """

    def __init__(self, model: TextModel, *, purpose: str) -> None:
        identity = json.dumps([FORMAT_VERSION, purpose, model.key])
        self.path = cache_dir() / "answers" / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.sqlite"
        self.num_generated = 0
        """Replies that were not in the cache, since this was made."""
        self._model = model
        self._texts = KeptTexts(self.path, what="answers")

    def replies(
        self, ids: Sequence[str], conversations: Sequence[Conversation], progress: Progress | None = None
    ) -> list[str | Refused]:
        """The reply to each sample's conversation, in their order; an empty one is kept as any.

        Raises:
            LabError: as the model, after what it had replied was kept; or a cache that cannot be read or written.
        """
        keys = [_asked_sha256(key, said) for key, said in zip(ids, conversations, strict=True)]
        found: dict[bytes, str | Refused] = {**self._texts.read(keys)}
        # A key that stands twice is asked for once.
        missing = list({key: index for index, key in reversed(list(enumerate(keys))) if key not in found}.values())[
            ::-1
        ]
        done = len(keys) - len(missing)
        if progress is not None:
            progress(done, len(keys))
        for place, reply in self._model.reply([conversations[index] for index in missing]) if missing else ():
            key = keys[missing[place]]
            found[key] = self._kept(key, reply) if isinstance(reply, str) else reply
            done += 1
            if progress is not None:
                progress(done, len(keys))
        return [found[key] for key in keys]

    def _kept(self, key: bytes, reply: str) -> str:
        self.num_generated += 1
        return self._texts.keep([(key, reply)])[key]


def _asked_sha256(sample: str, conversation: Conversation) -> bytes:
    return hashlib.sha256(json.dumps([sample, identity_of(conversation)]).encode()).digest()
