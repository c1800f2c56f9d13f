"""A model's replies to samples, each asked for once (`lab.data.kept`), and what such a model is.

Section 4 of the paper. A reply is known by the sample's id and by all that its content says; a sample's turns may be a
conversation, which the model goes on with.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from lab.data.kept import Kept
from lab.data.sample import Audio, Drawn, Image, Sample, Text, Video, media_file
from lab.data.speech.audio import Clip
from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import Progress


@dataclass(frozen=True)
class Refused:
    """In place of a reply: the model would not take this one sample, and would not the next time either."""

    why: str


class TextModel(Protocol):
    """What replies to samples: a local language model or an endpoint."""

    @property
    def key(self) -> str:
        """Names everything that a reply depends on but the sample: weights, decoding, precision."""
        ...

    def reply(self, samples: Sequence[Sample]) -> Iterator[tuple[int, str | Refused]]:
        """Reply to each, in any order, with its index; which ones are asked together changes no reply.

        Raises:
            LabError: the model cannot be asked; what it has replied before that has been given.
        """
        ...


@contextmanager
def opened(part: Audio | Image | Video) -> Iterator[io.BufferedIOBase]:
    """The file of a sound, picture or video, or its bytes.

    Raises:
        LabError: the file cannot be read.
    """
    source = part.source
    if isinstance(source, Drawn | Clip):
        raise LabError(f"a model is asked about files, and this {part.type} has none of its own")
    try:
        if isinstance(source, bytes):
            yield io.BytesIO(source)
            return
        with (media_file(source) if isinstance(source, str) else source).open("rb") as file:
            yield file
    except OSError as error:
        raise LabError(f"{part.type} {source!s} cannot be read ({error.strerror or error})") from error


def identity_of(sample: Sample) -> str:
    """Everything of a sample that a reply depends on, as text: the turns' roles and texts, the hashes of media."""
    told = []
    for role, turn in groupby(sample.content, key=lambda part: part.role):
        parts = list(turn)
        texts = [part.text for part in parts if isinstance(part, Text)]
        told.append([role, "\n".join(texts), [_sha256(part) for part in parts if not isinstance(part, Text)]])
    return json.dumps(told)


def _sha256(part: Audio | Image | Video) -> str:
    with opened(part) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class KeptReplies:
    """A model's replies: what was said before is read, the rest is asked for and kept, one by one as it comes.

    Args:
        model: says what is not there; its key is asked once.
        purpose: what the replies are ("answers", "marks of yes_no 1"), part of their identity.
    """

    def __init__(self, model: TextModel, *, purpose: str) -> None:
        self.kept = Kept("answers", purpose, model.key, what="answers")
        self._model = model

    def to(self, samples: Sequence[Sample], progress: Progress | None = None) -> list[str | Refused]:
        """The reply to each sample, in their order; one that was refused is asked again the next time.

        Raises:
            LabError: as the model, after what it had replied was kept; or as `Kept.values`.
        """

        def make(missing: list[int]) -> Iterator[tuple[int, str | Refused]]:
            for place, reply in self._model.reply([samples[index] for index in missing]):
                yield missing[place], reply

        keys = [hashlib.sha256(json.dumps([one.id, identity_of(one)]).encode()).digest() for one in samples]
        return self.kept.values(keys, make, progress)


def replies_of(model: TextModel, samples: Sequence[Sample], *, name: str, progress: Progress) -> list[str]:
    """What a model that has to answer everything replies to each sample.

    Raises:
        LabError: the model cannot be asked, or refused a sample; the first is named, and how many there are.
    """
    replies = KeptReplies(model, purpose="answers").to(samples, progress)
    refused = [(one.id, reply) for one, reply in zip(samples, replies, strict=True) if isinstance(reply, Refused)]
    if refused:
        key, first = refused[0]
        raise LabError(
            f"model {name!r} refused {len(refused)} of {len(samples)} samples, the first is {key!r} ({first.why}); a "
            "score over the rest would be another benchmark's"
        )
    return [reply for reply in replies if isinstance(reply, str)]
