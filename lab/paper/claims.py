"""The claims of an ablation, declared beside its rows, judged from what was answered item by item, and looked at.

An ablation's module holds `contrasts = (Contrast(...), ...)`, or `Comparison`s: the first is the claim itself, for
which seeds may be added until it is decided. Where the second of two `Contrast`s is the same claim against a capacity
control, their difference says how much of the effect is the projector's size.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lab.errors import LabError
from lab.paper.measured import Measured, load_rows, of_test
from lab.study.ablation import Ablation, load_module

if TYPE_CHECKING:
    import pandas

    from lab.evaluation.verdict import MeasuredEffect, Verdict


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """ "`candidate` errs less than `baseline`": rows by key."""

    baseline: str
    candidate: str
    metric: str = "error_rate"
    """A key of `lab.evaluation.statistics.METRICS`."""
    smallest_effect: float = 0.01
    """The smallest effect that would matter, as a fraction (0.01: one percentage point)."""
    label: str = ""
    test: str = ""
    """Of a study with several tests, the one that it is about."""

    cell_columns: ClassVar[tuple[str, ...]] = ("row",)
    """The columns that tell its cells apart."""

    @property
    def title(self) -> str:
        """Its label, or what is compared: what stands before its verdict."""
        return capital(self.label or f"{self.candidate} against {self.baseline}")

    @property
    def rows(self) -> tuple[str, ...]:
        """The keys of the rows that decide it."""
        return (self.baseline, self.candidate)

    def items(self, frame: "pandas.DataFrame") -> "pandas.DataFrame":
        """What its rows answered, at the seeds that all of them have; a LabError where they share none."""
        return common_seeds(of_test(frame[frame["row"].isin(self.rows)], self.test))

    def effect(self, frame: "pandas.DataFrame", confidence: float = 0.95) -> "MeasuredEffect":
        """What is claimed to be above 0: a LabError as `items`, or where a row was not run."""
        from lab.evaluation.verdict import difference

        return difference(self.items(frame), **self._asked(confidence))

    def verdict(self, frame: "pandas.DataFrame", confidence: float) -> "Verdict":
        """What the seeds that all its rows have say of it; a LabError as `effect`."""
        from lab.evaluation.verdict import judge

        return judge(self.effect(frame, confidence), smallest_effect=self.smallest_effect)

    def data(self, frame: "pandas.DataFrame") -> str:
        """16 hexadecimal digits of what a verdict rests on: what is asked, and the counted errors of its cells.

        Of neither keys nor runs: cells run again that come out the same are nothing new to look at.
        """
        from lab.evaluation.statistics import METRICS

        metric = METRICS[self.metric]
        places = [*self.cell_columns, "seed", "id"]
        lines = self.items(frame)[[*places, metric.errors, metric.length]].sort_values(places)
        asked = {name: value for name, value in vars(self).items() if name != "label" and value != ""}
        text = f"{json.dumps(asked, sort_keys=True)}\n{lines.to_csv(index=False, lineterminator=chr(10))}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _asked(self, confidence: float) -> dict[str, Any]:
        """The arguments that the statistics of both kinds share."""
        from lab.evaluation.sequential import resamples_at

        shared = {name: getattr(self, name) for name in ("baseline", "candidate", "metric")}
        return {**shared, "confidence": confidence, "num_resamples": resamples_at(confidence)}


@dataclass(frozen=True, kw_only=True)
class Contrast(Comparison):
    """ "The gap between `baseline` and `candidate` grows from `low_rate` to `high_rate`": projectors by name.

    Its rows are those with the keys PROJECTOR_RATE.
    """

    low_rate: int
    high_rate: int
    metric: str = "character_error_rate"

    cell_columns = ("projector", "downsample_rate")

    @property
    def rows(self) -> tuple[str, ...]:
        """The four rows, whose keys are made of projector and rate."""
        return tuple(
            f"{projector}_{rate}"
            for rate in (self.low_rate, self.high_rate)
            for projector in (self.baseline, self.candidate)
        )

    def effect(self, frame: "pandas.DataFrame", confidence: float = 0.95) -> "MeasuredEffect":
        """By how much the gap grows."""
        from lab.evaluation.verdict import interaction

        asked = {**self._asked(confidence), "low_rate": self.low_rate, "high_rate": self.high_rate}
        return interaction(self.items(frame), **asked)


def capital(text: str) -> str:
    """The text with its first letter large, the others as they are."""
    return text[:1].upper() + text[1:]


def load_contrasts(name: str) -> tuple[Comparison, ...]:
    """The `contrasts` of `ablations/NAME.py`; none where it declares none."""
    return tuple(getattr(load_module(name), "contrasts", ()))


def judge(claim: Comparison, items: "pandas.DataFrame", confidence: float = 0.95) -> str:
    """The verdict as one sentence, or why there is none yet."""
    try:
        return claim.verdict(items, confidence).sentence
    except LabError as error:
        return f"Not judged yet: {error}."


def common_seeds(items: "pandas.DataFrame") -> "pandas.DataFrame":
    """The lines at the seeds that all rows have; a LabError where there are none."""
    seeds = [set(group["seed"]) for _, group in items.groupby("row")]
    if not seeds:
        return items
    if not (shared := set.intersection(*seeds)):
        raise LabError("the rows to be compared have no seed in common")
    return items[items["seed"].isin(shared)]


@dataclass(frozen=True, kw_only=True)
class ClaimQuestion:
    """The first contrast of an ablation at a rung (a `lab.study.adaptive.Question`)."""

    ablation: Ablation
    rung: str
    contrast: Comparison

    @property
    def rows(self) -> tuple[str, ...]:
        """Those that decide it."""
        return self.contrast.rows

    def data(self, seeds: Sequence[int]) -> str:
        """A hash of these rows' errors at these seeds, utterance by utterance, and of the contrast."""
        return self.contrast.data(self._utterances(seeds))

    def judge(self, seeds: Sequence[int], confidence: float) -> "Verdict":
        """What they say of the claim."""
        return self.contrast.verdict(self._utterances(seeds), confidence)

    def _utterances(self, seeds: Sequence[int]) -> "pandas.DataFrame":
        frame = load_rows(self.ablation, self.rung, self.rows)
        return frame[frame["seed"].isin(seeds)]


def question_of(ablation: Ablation, rung: str) -> ClaimQuestion:
    """The claim as a question; a LabError where the ablation declares none, or lacks a row of it."""
    contrasts = load_contrasts(ablation.name)
    if not contrasts:
        raise LabError(
            f"ablations/{ablation.name}.py declares no `contrasts`, so that there is nothing to decide; run it without "
            "--until-decided"
        )
    for row in contrasts[0].rows:
        ablation.row(row)
    return ClaimQuestion(ablation=ablation, rung=rung, contrast=contrasts[0])


def unlooked(measured: Measured) -> "pandas.DataFrame":
    """The utterances at the seeds that were run whatever a look said: all of them where none was taken.

    What else is compared in a table is compared on these, at 95%: rows share seeds, so what was added because the
    claim was open is no fair draw for its neighbours either.
    """
    if not measured.looks:
        return measured.utterances
    return measured.utterances[measured.utterances["seed"].isin(measured.looks[0].seeds)]


def judge_looked(contrast: Comparison, measured: Measured) -> str:
    """The verdict on the first contrast, at the level of the last look taken at it, and how it came about.

    Where no look was taken, it is on all utterances at 95%. Where the results are not those of the last look, it is
    given at the level that one more look would have: they may have been measured anew, and reading them is one.
    """
    if not measured.looks:
        return judge(contrast, measured.utterances)
    from lab.evaluation.sequential import ALPHA, look_level
    from lab.study.adaptive import percent

    last = measured.looks[-1]
    looked = measured.utterances[measured.utterances["seed"].isin(last.seeds)]
    same = False
    with suppress(LabError):
        same = contrast.data(looked) == last.data
    sizes = ", ".join(str(len(look.seeds)) for look in measured.looks)
    taken = "1 look was" if len(measured.looks) == 1 else f"{len(measured.looks)} looks were"
    said = (
        f"Seeds were added until it would be decided: {taken} taken (at {sizes} seeds), which share a level of "
        f"{percent(ALPHA)} so that all of their intervals hold at once in {percent(1 - ALPHA)} of such studies"
    )
    if same:
        leans = ", and allows for the effect itself leaning, on average, towards where looking stopped"
        leans = "" if last.outcome == "undecided" else leans
        return f"{judge(contrast, looked, last.confidence)} {said}; this one is the last one's{leans}."
    confidence = 1 - look_level(len(measured.looks) + 1, last.planned)
    return (
        f"{judge(contrast, measured.utterances, confidence)} {said}; the results here are not those of the last one "
        f"({last.outcome}), so this is given at the level of one look more."
    )
