"""What drops samples says why, of each: a reason beside every sample that was judged, or its name where samples stream.

The paper's section 3 drops samples for many reasons (a loss too far from the mean, a near duplicate, a transcript that
disagrees); an ablation of a filter needs to know how many and to read some of them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped
from numpy import ndarray

from lab.data.sample import Sample
from lab.errors import LabError

NUM_EXAMPLES = 5
# One a sample: why it goes, or None where it stays.
Reasons = Sequence[str | None] | Shaped[ndarray, " samples"]


@dataclass(frozen=True)
class Filtered:
    """One filter over one set of samples: which stay, and the account of those that do not.

    >>> Filtered(["a", "b", "c"], [None, "empty", "empty"], name="not_empty").dropped
    {'empty': 2}

    Raises:
        LabError: not one reason a sample.
    """

    ids: Sequence[Any]
    """Arrow's will do: only those that are shown are looked at."""
    reasons: Reasons
    _: KW_ONLY
    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.reasons):
            raise LabError(
                f"filter {self.name!r} judged {len(self.reasons)} samples of {len(self.ids)}; expected one reason or "
                "None each"
            )

    @cached_property
    def keep(self) -> Bool[ndarray, " samples"]:
        """Which samples stay, in their order."""
        return np.array([reason is None for reason in self.reasons], dtype=bool)

    @cached_property
    def dropped(self) -> dict[str, int]:
        """Samples by the reason for which they go, in the order in which the samples meet the reasons."""
        return dict(Counter(reason for reason in self.reasons if reason is not None))

    @property
    def num_samples(self) -> int:
        """Samples that were judged."""
        return len(self.reasons)

    @property
    def num_kept(self) -> int:
        """Samples that stay."""
        return int(self.keep.sum())

    @property
    def num_dropped(self) -> int:
        """Samples that do not, for whatever reason."""
        return self.num_samples - self.num_kept

    @cached_property
    def examples(self) -> dict[str, tuple[str, ...]]:
        """The first ids of each reason, and under "kept" of those that stay."""
        found: dict[str, list[str]] = {"kept": [], **{reason: [] for reason in self.dropped}}
        for place, reason in enumerate(self.reasons):
            if len(some := found[reason or "kept"]) < NUM_EXAMPLES:
                some.append(str(self.ids[place]))
        return {reason: tuple(some) for reason, some in found.items()}

    def __str__(self) -> str:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items())
        settings = ", ".join(f"{name} = {value}" for name, value in self.parameters.items())
        return (
            f"{self.name}{f' ({settings})' if settings else ''}: {self.num_kept:,} of {self.num_samples:,} kept"
            f"{f'; dropped: {reasons}' if reasons else ''}"
        )


def first_reason(rules: Mapping[str, Bool[ndarray, " samples"]]) -> Shaped[ndarray, " samples"]:
    """For each sample the first of the reasons that hold of it, or None.

    >>> first_reason({"short": np.array([True, False, True]), "odd": np.array([False, False, True])}).tolist()
    ['short', None, 'short']
    """
    (num_samples,) = {len(holds) for holds in rules.values()}
    found = np.full(num_samples, None, dtype=object)
    for reason, holds in reversed(list(rules.items())):
        found[holds] = reason
    return found


class Dropped(Exception):
    """Nothing can be made of this sample; the message is the reason under which it is counted."""


class LeftOut(dict[str, list[str]]):
    """The ids of what is left out of a stream, by reason; whole when the stream has ended."""

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


def made_of_each(samples: Iterable[Sample], make: Callable[[Sample], Sample], left_out: LeftOut) -> Iterator[Sample]:
    """Make a sample of each as it passes; where `make` raises `Dropped`, one is left out and the stream goes on."""
    for sample in samples:
        try:
            made = make(sample)
        except Dropped as dropped:
            left_out.add(str(dropped), sample.id)
        else:
            yield made
