"""Samples made one by one out of others, with the account of those of which nothing could be made.

What streams cannot be judged as a whole, so a reason is written down for every sample as it passes.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from lab.data.filters.filtering import NUM_EXAMPLES, Filtered, filtered
from lab.errors import LabError

Given = TypeVar("Given")
Made = TypeVar("Made")


class Dropped(Exception):
    """Nothing can be made of this sample; the message is the reason under which it is counted.

    What raised it, if anything, is kept as the sentence that names the sample.
    """


@dataclass
class Streamed(Generic[Made]):
    """A stream of samples; `account` covers what has passed so far, and is whole when the stream has ended.

    `problems` are the first sentences of each reason, by reason.
    """

    name: str
    parameters: Mapping[str, Any]
    samples: Iterator[Made] = field(init=False)
    ids: list[str] = field(default_factory=list)
    reasons: list[str | None] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Made]:
        return self.samples

    def account(self) -> Filtered:
        """Which of the samples that have passed stayed, and why the others did not."""
        return filtered(self.ids, self.reasons, name=self.name, parameters=self.parameters)


def streamed(
    given: Iterable[Given],
    id_of: Callable[[Given], str],
    make: Callable[[Given], Made],
    *,
    name: str,
    parameters: Mapping[str, Any],
) -> Streamed[Made]:
    """Make a sample of each one given; where `make` raises `Dropped`, it is counted and the stream goes on."""
    stream: Streamed[Made] = Streamed(name, parameters)

    def samples() -> Iterator[Made]:
        for one in given:
            key = id_of(one)
            try:
                made = make(one)
            except Dropped as dropped:
                reason = str(dropped)
                if isinstance(dropped.__cause__, LabError):
                    told = stream.problems.setdefault(reason, [])
                    if len(told) < NUM_EXAMPLES:
                        told.append(str(dropped.__cause__))
                stream.ids.append(key)
                stream.reasons.append(reason)
                continue
            stream.ids.append(key)
            stream.reasons.append(None)
            yield made

    stream.samples = samples()
    return stream


class LeftOut(dict[str, list[str]]):
    """The ids of what is left out, by reason."""

    def add(self, reason: str, id: str) -> None:
        """Name one more."""
        self.setdefault(reason, []).append(id)

    def counts(self) -> Counter[str]:
        """How many there are, by reason."""
        return Counter({reason: len(ids) for reason, ids in self.items()})


def left_out_account(left_out: Mapping[str, Sequence[str]]) -> str:
    """How many are left out and why, with the first three of each reason."""
    told = [
        f"{len(ids)} {reason} ({', '.join(ids[:3])}{', ...' if len(ids) > 3 else ''})"
        for reason, ids in left_out.items()
    ]
    return f"left out: {'; '.join(told) or 'none'}"
