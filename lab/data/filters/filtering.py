"""What every filter of training data gives back: which samples stay, and an account of those that do not.

The paper's section 3 drops samples for many reasons (a loss too far from the mean, a near duplicate, a transcript that
disagrees); an ablation of a filter needs to know how many and to read some of them. So no sample leaves uncounted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Integer
from numpy import ndarray

from lab.errors import LabError

NUM_EXAMPLES = 5


@dataclass(frozen=True, kw_only=True)
class FilterReport:
    """The account of one filter over one set of samples.

    `dropped` counts by reason, in the order in which the samples meet them; `examples` has the first ids of each
    reason, and of those that stay under "kept".
    """

    filter: str
    parameters: Mapping[str, Any]
    num_samples: int
    dropped: Mapping[str, int]
    examples: Mapping[str, tuple[str, ...]]

    @property
    def num_dropped(self) -> int:
        """Samples that do not stay, for whatever reason."""
        return sum(self.dropped.values())

    @property
    def num_kept(self) -> int:
        """Samples that stay."""
        return self.num_samples - self.num_dropped

    def __str__(self) -> str:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items() if count)
        settings = ", ".join(f"{name} = {value}" for name, value in self.parameters.items())
        return (
            f"{self.filter}{f' ({settings})' if settings else ''}: {self.num_kept:,} of {self.num_samples:,} kept"
            f"{f'; dropped: {reasons}' if reasons else ''}"
        )


@dataclass(frozen=True, kw_only=True)
class Filtered:
    """Which samples stay, in their order, and the account."""

    keep: Bool[ndarray, " samples"]
    report: FilterReport


def filtered(
    ids: Sequence[str], reasons: Sequence[str | None], *, name: str, parameters: Mapping[str, Any]
) -> Filtered:
    """Make the result of a filter from one reason a sample, None for those that stay.

    >>> filtered(["a", "b", "c"], [None, "empty", "empty"], name="not_empty", parameters={}).report.dropped
    {'empty': 2}

    Raises:
        LabError: not one reason a sample.
    """
    codes: dict[str | None, int] = {None: 0}
    given = np.array([codes.setdefault(reason, len(codes)) for reason in reasons], dtype=np.int64)
    return filtered_by_code(ids, given, list(filter(None, codes)), name=name, parameters=parameters)


def filtered_by_code(
    ids: Sequence[Any],
    codes: Integer[ndarray, " samples"],
    reasons: Sequence[str],
    *,
    name: str,
    parameters: Mapping[str, Any],
) -> Filtered:
    """As `filtered`, for many samples: code 0 stays, code k leaves for the k-th of `reasons`, counted from 1.

    Of `ids` (Arrow's arrays will do) only those are looked at that are shown.

    Raises:
        LabError: not one code a sample.
    """
    if len(ids) != len(codes):
        raise LabError(f"filter {name!r} judged {len(codes)} samples of {len(ids)}; expected one reason or None each")
    places = {reason: np.flatnonzero(codes == code) for code, reason in enumerate(reasons, 1)}
    met = sorted((reason for reason in places if len(places[reason])), key=lambda reason: int(places[reason][0]))
    keep = codes == 0
    shown = {"kept": np.flatnonzero(keep), **{reason: places[reason] for reason in met}}
    report = FilterReport(
        filter=name,
        parameters=dict(parameters),
        num_samples=len(ids),
        dropped={reason: len(places[reason]) for reason in met},
        examples={reason: tuple(str(ids[int(i)]) for i in some[:NUM_EXAMPLES]) for reason, some in shown.items()},
    )
    return Filtered(keep=keep, report=report)
