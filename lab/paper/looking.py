"""The claim of an ablation as a question that seeds are added for, and what its table says of the looks taken at it."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.paper.claims import Claim, judge, load_contrasts
from lab.paper.measured import Measured, load_rows
from lab.study.ablation import Ablation
from lab.study.adaptive import percent

if TYPE_CHECKING:
    import pandas

    from lab.evaluation.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class ClaimQuestion:
    """The first contrast of an ablation at a rung (a `lab.study.adaptive.Question`)."""

    ablation: Ablation
    rung: str
    contrast: Claim
    rows: tuple[str, ...]

    def data(self, seeds: Sequence[int]) -> str:
        """A hash of these rows' errors at these seeds, utterance by utterance, and of the contrast."""
        return data_hash(self.contrast, self._utterances(seeds))

    def judge(self, seeds: Sequence[int], confidence: float) -> "Verdict":
        """What they say of the claim."""
        return self.contrast.verdict(self._utterances(seeds), confidence)

    def _utterances(self, seeds: Sequence[int]) -> "pandas.DataFrame":
        frame = load_rows(self.ablation, self.rung, self.rows)
        return frame[frame["seed"].isin(seeds)]


def question_of(ablation: Ablation, rung: str) -> ClaimQuestion:
    """The claim as a question, with the rows that decide it.

    Raises:
        LabError: the ablation declares no contrasts, or lacks a row of the first.
    """
    contrasts = load_contrasts(ablation.name)
    if not contrasts:
        raise LabError(
            f"ablations/{ablation.name}.py declares no `contrasts`, so that there is nothing to decide; run it without "
            "--until-decided"
        )
    contrast = contrasts[0]
    return ClaimQuestion(ablation=ablation, rung=rung, contrast=contrast, rows=contrast.rows(ablation, rung))


def data_hash(contrast: Claim, utterances: "pandas.DataFrame") -> str:
    """16 hexadecimal digits of what a verdict rests on: the contrast, and the counted errors of its cells.

    Of neither keys nor runs: cells run again that come out the same are nothing new to look at.
    """
    from lab.evaluation.statistics import METRICS

    metric = METRICS[contrast.metric]
    cells = contrast.items(utterances)
    places = [*contrast.cell_columns, "seed", "id"]
    lines = cells[[*places, metric.errors, metric.length]].sort_values(places).to_csv(index=False, lineterminator="\n")
    asked = {name: value for name, value in vars(contrast).items() if name != "label"}
    return hashlib.sha256(f"{json.dumps(asked, sort_keys=True)}\n{lines}".encode()).hexdigest()[:16]


def unlooked(measured: Measured) -> "pandas.DataFrame":
    """The utterances at the seeds that were run whatever a look said: all of them where none was taken.

    What else is compared in a table is compared on these, at 95%: rows share seeds, so what was added because the
    claim was open is no fair draw for its neighbours either.
    """
    if not measured.looks:
        return measured.utterances
    return measured.utterances[measured.utterances["seed"].isin(measured.looks[0].seeds)]


def at_last_look(contrast: Claim, measured: Measured) -> "tuple[pandas.DataFrame, float, bool]":
    """On what the first contrast is judged, at which confidence, and whether that is what the last look saw.

    Where no look was taken, it is all utterances at 95%; where the results are not those of the last look, all of them
    at the level that one more would have.
    """
    if not measured.looks:
        return measured.utterances, 0.95, False
    from lab.evaluation.sequential import look_level

    last = measured.looks[-1]
    looked = measured.utterances[measured.utterances["seed"].isin(last.seeds)]
    with suppress(LabError):
        if data_hash(contrast, looked) == last.data:
            return looked, last.confidence, True
    return measured.utterances, 1 - look_level(len(measured.looks) + 1, last.planned), False


def judge_looked(contrast: Claim, measured: Measured) -> str:
    """The verdict on the first contrast, at the level of the last look taken at it, and how it came about.

    Where the results are not those of the last look, it is given at the level that one more look would have: they may
    have been measured anew, and reading them is one.
    """
    if not measured.looks:
        return judge(contrast, measured.utterances)
    from lab.evaluation.sequential import ALPHA

    last = measured.looks[-1]
    items, confidence, same = at_last_look(contrast, measured)
    sizes = ", ".join(str(len(look.seeds)) for look in measured.looks)
    taken = "1 look was" if len(measured.looks) == 1 else f"{len(measured.looks)} looks were"
    said = (
        f"Seeds were added until it would be decided: {taken} taken (at {sizes} seeds), which share a level of "
        f"{percent(ALPHA)} so that all of their intervals hold at once in {percent(1 - ALPHA)} of such studies"
    )
    if same:
        leans = (
            ""
            if last.outcome == "undecided"
            else (", and allows for the effect itself leaning, on average, towards where looking stopped")
        )
        return f"{judge(contrast, items, confidence)} {said}; this one is the last one's{leans}."
    return (
        f"{judge(contrast, items, confidence)} {said}; the results here are not those of the last one "
        f"({last.outcome}), so this is given at the level of one look more."
    )
