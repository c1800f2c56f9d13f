"""The answers of a model that has to answer all that it is asked, or the error that says what it would not."""

from collections.abc import Sequence

from lab.errors import LabError
from lab.evaluation.benchmarks.conversations import Refused


def texts_of(model: str, ids: Sequence[str], replies: Sequence[str | Refused]) -> list[str]:
    """The replies as texts.

    Raises:
        LabError: the model refused a sample; the first is named, and how many there are.
    """
    refused = [(key, reply) for key, reply in zip(ids, replies, strict=True) if isinstance(reply, Refused)]
    if refused:
        key, first = refused[0]
        raise LabError(
            f"model {model!r} refused {len(refused)} of {len(ids)} samples, the first is {key!r} ({first.why}); a "
            "score over the rest would be another benchmark's"
        )
    return [reply for reply in replies if isinstance(reply, str)]
