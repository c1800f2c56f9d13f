"""Samples made one by one out of others, with the account of those of which nothing could be made.

What streams cannot be judged as a whole, so a reason is written down for every sample as it passes.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from lab.data.filters.filtering import NUM_EXAMPLES, Filtered
from lab.errors import LabError

Given = TypeVar("Given")
Made = TypeVar("Made")


class Dropped(Exception):
    """Nothing can be made of this sample; the message is the reason under which it is counted.

    What raised it, if anything, is kept as the sentence that names the sample.
    """


class Streamed(Generic[Made]):
    """Samples made one by one out of others; where `make` raises `Dropped`, one is counted and the stream goes on.

    `account` covers what has passed so far, and is whole when the stream has ended; `problems` are the first sentences
    of each reason.
    """

    def __init__(
        self,
        given: Iterable[Given],
        id_of: Callable[[Given], str],
        make: Callable[[Given], Made],
        *,
        name: str,
        parameters: Mapping[str, Any],
    ) -> None:
        self.problems: dict[str, list[str]] = {}
        self._ids: list[str] = []
        self._reasons: list[str | None] = []
        self._name, self._parameters = name, parameters
        self._samples = self._made(given, id_of, make)

    def __iter__(self) -> Iterator[Made]:
        return self._samples

    def account(self) -> Filtered:
        """Which of the samples that have passed stayed, and why the others did not."""
        return Filtered(self._ids, self._reasons, name=self._name, parameters=self._parameters)

    def _made(
        self, given: Iterable[Given], id_of: Callable[[Given], str], make: Callable[[Given], Made]
    ) -> Iterator[Made]:
        for one in given:
            self._ids.append(id_of(one))
            self._reasons.append(None)
            try:
                made = make(one)
            except Dropped as dropped:
                reason = self._reasons[-1] = str(dropped)
                told = self.problems.setdefault(reason, [])
                if isinstance(dropped.__cause__, LabError) and len(told) < NUM_EXAMPLES:
                    told.append(str(dropped.__cause__))
                continue
            yield made


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
