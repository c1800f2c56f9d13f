"""The claim of an ablation as contrasts, declared beside its rows and judged from what was answered, item by item.

An ablation's module holds `contrasts = (Contrast(...), ...)`, or `Comparison`s: the first is the claim itself. Where
the second of two `Contrast`s is the same claim against a capacity control, their difference says how much of the effect
is the projector's size.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lab.errors import LabError
from lab.study.ablation import Ablation, load_module

if TYPE_CHECKING:
    import pandas

    from lab.evaluation.verdict import MeasuredEffect, Verdict


@dataclass(frozen=True, kw_only=True)
class Claim(ABC):
    """What can be judged: that `candidate` does better than `baseline`, in one of two senses."""

    baseline: str
    candidate: str
    metric: str
    """A key of `lab.evaluation.statistics.METRICS`."""
    smallest_effect: float = 0.01
    """The smallest effect that would matter, as a fraction (0.01: one percentage point)."""
    label: str = ""

    cell_columns: ClassVar[tuple[str, ...]]
    """The columns that tell its cells apart."""

    @property
    def title(self) -> str:
        """Its label, or what is compared: what stands before its verdict."""
        return capital(self.label or f"{self.candidate} against {self.baseline}")

    @abstractmethod
    def rows(self, ablation: Ablation, rung: str) -> tuple[str, ...]:
        """The keys of the rows that decide it.

        Raises:
            LabError: the ablation lacks one; or two fit one place.
        """

    @abstractmethod
    def items(self, frame: "pandas.DataFrame") -> "pandas.DataFrame":
        """What its cells answered, at the seeds that all of them have.

        Raises:
            LabError: they share none.
        """

    @abstractmethod
    def effect(self, frame: "pandas.DataFrame", confidence: float = 0.95) -> "MeasuredEffect":
        """What is claimed to be above 0, at the seeds that all its cells have.

        Raises:
            LabError: as `items`; or a cell was not run.
        """

    def verdict(self, frame: "pandas.DataFrame", confidence: float) -> "Verdict":
        """What the seeds that all its cells have say of it.

        Raises:
            LabError: as `effect`.
        """
        from lab.evaluation.verdict import judge

        return judge(self.effect(frame, confidence), smallest_effect=self.smallest_effect)

    def _asked(self, confidence: float) -> dict[str, Any]:
        """The arguments that the statistics of both kinds share."""
        from lab.evaluation.sequential import resamples_at

        return {
            "baseline": self.baseline,
            "candidate": self.candidate,
            "metric": self.metric,
            "confidence": confidence,
            "num_resamples": resamples_at(confidence),
        }


@dataclass(frozen=True, kw_only=True)
class Contrast(Claim):
    """ "The gap between `baseline` and `candidate` grows from `low_rate` to `high_rate`": projectors by name."""

    low_rate: int
    high_rate: int
    metric: str = "character_error_rate"

    cell_columns = ("projector", "downsample_rate")

    def rows(self, ablation: Ablation, rung: str) -> tuple[str, ...]:
        """The four rows, found by their projector and downsample rate."""
        rows = []
        for rate in (self.low_rate, self.high_rate):
            for projector in (self.baseline, self.candidate):
                found = [
                    row.key for row in ablation.rows if _is(ablation.resolve(row.key, rung).as_dict(), projector, rate)
                ]
                if len(found) != 1:
                    which = f"rows {', '.join(found)} all have" if found else "no row has"
                    raise LabError(
                        f"the claim of {ablation.name!r} is decided by one row with projector {projector!r} at "
                        f"downsample rate {rate}, but {which} these"
                    )
                rows += found
        return tuple(rows)

    def items(self, frame: "pandas.DataFrame") -> "pandas.DataFrame":
        """What its four cells answered."""
        rates = (self.low_rate, self.high_rate)
        return cells_at_common_seeds(frame, [(p, rate) for p in (self.baseline, self.candidate) for rate in rates])

    def effect(self, frame: "pandas.DataFrame", confidence: float = 0.95) -> "MeasuredEffect":
        """How the gap changes."""
        from lab.evaluation.verdict import interaction

        return interaction(
            self.items(frame), low_rate=self.low_rate, high_rate=self.high_rate, **self._asked(confidence)
        )


@dataclass(frozen=True, kw_only=True)
class Comparison(Claim):
    """ "`candidate` errs less than `baseline`": rows by key."""

    metric: str = "error_rate"

    cell_columns = ("row",)

    def rows(self, ablation: Ablation, rung: str) -> tuple[str, ...]:
        """Its two rows."""
        return tuple(ablation.row(key).key for key in (self.baseline, self.candidate))

    def items(self, frame: "pandas.DataFrame") -> "pandas.DataFrame":
        """What its two rows answered."""
        return common_seeds(frame[frame["row"].isin([self.baseline, self.candidate])])

    def effect(self, frame: "pandas.DataFrame", confidence: float = 0.95) -> "MeasuredEffect":
        """By how much the candidate errs less."""
        from lab.evaluation.verdict import difference

        return difference(self.items(frame), **self._asked(confidence))


def capital(text: str) -> str:
    """The text with its first letter large, the others as they are."""
    return text[:1].upper() + text[1:]


def _is(parameters: dict[str, object], projector: str, rate: int) -> bool:
    return parameters.get("projector") == projector and parameters.get("downsample_rate") == rate


def load_contrasts(name: str) -> tuple[Claim, ...]:
    """The `contrasts` of `ablations/NAME.py`; none where it declares none."""
    return tuple(getattr(load_module(name), "contrasts", ()))


def judge(claim: Claim, items: "pandas.DataFrame", confidence: float = 0.95) -> str:
    """The verdict as one sentence, or why there is none yet."""
    try:
        return claim.verdict(items, confidence).sentence
    except LabError as error:
        return f"Not judged yet: {error}."


def points(fraction: float) -> str:
    """Percentage points with their sign, and never "-0.00"."""
    return f"{round(100 * fraction, 2) + 0.0:+.2f}"


def cells_at_common_seeds(utterances: "pandas.DataFrame", cells: Sequence[tuple[str, int]]) -> "pandas.DataFrame":
    """The cells (projector, rate) at the seeds that all of them have; a study half run compares what it can."""
    import numpy as np

    pairs = zip(utterances["projector"], utterances["downsample_rate"], strict=True)
    # As an array: of an empty frame, an empty list would choose columns.
    return common_seeds(utterances[np.array([pair in set(cells) for pair in pairs], dtype=bool)])


def common_seeds(items: "pandas.DataFrame") -> "pandas.DataFrame":
    """The lines at the seeds that all rows have.

    Raises:
        LabError: there are none.
    """
    seeds = [set(group["seed"]) for _, group in items.groupby("row")]
    if not seeds:
        return items
    if not (shared := set.intersection(*seeds)):
        raise LabError("the rows to be compared have no seed in common")
    return items[items["seed"].isin(shared)]
