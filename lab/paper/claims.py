"""The claim of an ablation as contrasts, declared beside its rows and judged from what was answered, item by item.

An ablation's module holds `contrasts = (Contrast(...), ...)`, or `Comparison`s: the first is the claim itself. Where
the second of two `Contrast`s is the same claim against a capacity control, their difference says how much of the effect
is the projector's size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lab.errors import LabError
from lab.study.ablation import Ablation, load_module

if TYPE_CHECKING:
    import pandas

    from lab.evaluation.verdict import Verdict


class Claim(Protocol):
    """What can be judged: a `Contrast` or a `Comparison`."""

    @property
    def metric(self) -> str:
        """A key of `lab.evaluation.crossed.METRICS`."""

    @property
    def title(self) -> str:
        """What stands before its verdict."""

    @property
    def cell_columns(self) -> tuple[str, ...]:
        """The columns that tell its cells apart."""

    def rows(self, ablation: Ablation, rung: str) -> tuple[str, ...]:
        """The keys of the rows that decide it; a LabError where there are none."""

    def items(self, frame: "pandas.DataFrame") -> "pandas.DataFrame":
        """What its cells answered, at the seeds that all of them have; a LabError where they share none."""

    def verdict(self, frame: "pandas.DataFrame", confidence: float) -> "Verdict":
        """What the seeds that all its cells have say of it; a LabError where they cannot be compared."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """ "The gap between `baseline` and `candidate` grows from `low_rate` to `high_rate`": projectors by name."""

    baseline: str
    candidate: str
    low_rate: int
    high_rate: int
    metric: str = "character_error_rate"
    smallest_effect: float = 0.01
    """The smallest growth that would matter, as a fraction (0.01: one percentage point)."""
    label: str = ""

    cell_columns = ("projector", "downsample_rate")

    @property
    def title(self) -> str:
        """Its label, or what is compared."""
        return capital(self.label or f"{self.candidate} against {self.baseline}")

    def rows(self, ablation: Ablation, rung: str) -> tuple[str, ...]:
        """The four rows, found by their projector and downsample rate.

        Raises:
            LabError: no row, or more than one, is a cell of it.
        """
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
        """What its four cells answered, at the seeds that all of them have."""
        rates = (self.low_rate, self.high_rate)
        return cells_at_common_seeds(frame, [(p, rate) for p in (self.baseline, self.candidate) for rate in rates])

    def verdict(self, frame: "pandas.DataFrame", confidence: float) -> "Verdict":
        """What the seeds that all four cells have say of it.

        Raises:
            LabError: as `interaction`; or the four have no seed in common.
        """
        from lab.evaluation.contrasts import interaction
        from lab.evaluation.sequential import resamples_at
        from lab.evaluation.verdict import judge_interaction

        result = interaction(
            self.items(frame),
            baseline=self.baseline,
            candidate=self.candidate,
            low_rate=self.low_rate,
            high_rate=self.high_rate,
            metric=self.metric,
            confidence=confidence,
            num_resamples=resamples_at(confidence),
        )
        return judge_interaction(result, smallest_effect=self.smallest_effect)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """ "`candidate` errs less than `baseline`": rows by key."""

    baseline: str
    candidate: str
    metric: str = "error_rate"
    smallest_effect: float = 0.01
    """The smallest advantage that would matter, as a fraction (0.01: one percentage point)."""
    label: str = ""

    cell_columns = ("row",)

    @property
    def title(self) -> str:
        """Its label, or what is compared."""
        return capital(self.label or f"{self.candidate} against {self.baseline}")

    def rows(self, ablation: Ablation, rung: str) -> tuple[str, ...]:
        """Its two rows.

        Raises:
            LabError: the ablation lacks one.
        """
        return tuple(ablation.row(key).key for key in (self.baseline, self.candidate))

    def items(self, frame: "pandas.DataFrame") -> "pandas.DataFrame":
        """What its two rows answered, at the seeds that both have."""
        return common_seeds(frame[frame["row"].isin([self.baseline, self.candidate])])

    def verdict(self, frame: "pandas.DataFrame", confidence: float) -> "Verdict":
        """What the seeds that both rows have say of it.

        Raises:
            LabError: as `difference`; or the two have no seed in common.
        """
        from lab.evaluation.contrasts import difference
        from lab.evaluation.sequential import resamples_at
        from lab.evaluation.verdict import judge_difference

        result = difference(
            self.items(frame),
            baseline=self.baseline,
            candidate=self.candidate,
            metric=self.metric,
            confidence=confidence,
            num_resamples=resamples_at(confidence),
        )
        return judge_difference(result, smallest_effect=self.smallest_effect)


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
