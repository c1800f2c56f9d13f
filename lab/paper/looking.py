"""The claim of an ablation as a question that seeds are added for, and what its table says of the looks taken at it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.paper.claims import Contrast, judge, load_contrasts, of_contrast, verdict
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
    contrast: Contrast
    rows: tuple[str, ...]

    def data(self, seeds: Sequence[int]) -> str:
        """A hash of these rows' errors at these seeds, utterance by utterance, and of the contrast."""
        return data_hash(self.contrast, self._utterances(seeds))

    def judge(self, seeds: Sequence[int], confidence: float) -> "Verdict":
        """What they say of the claim."""
        return verdict(self.contrast, self._utterances(seeds), confidence)

    def _utterances(self, seeds: Sequence[int]) -> "pandas.DataFrame":
        frame = load_rows(self.ablation, self.rung, self.rows)
        return frame[frame["seed"].isin(seeds)]


def question_of(ablation: Ablation, rung: str) -> ClaimQuestion:
    """The claim as a question, with the four rows that decide it, found by their projector and downsample rate.

    Raises:
        LabError: the ablation declares no contrasts; no row, or more than one, is a cell of the first.
    """
    contrasts = load_contrasts(ablation.name)
    if not contrasts:
        raise LabError(
            f"ablations/{ablation.name}.py declares no `contrasts`, so that there is nothing to decide; run it without "
            "--until-decided"
        )
    contrast = contrasts[0]
    rows = []
    for rate in (contrast.low_rate, contrast.high_rate):
        for projector in (contrast.baseline, contrast.candidate):
            found = [row.key for row in ablation.rows if _is(ablation.resolve(row.key, rung), projector, rate)]
            if len(found) != 1:
                which = f"rows {', '.join(found)} all have" if found else "no row has"
                raise LabError(
                    f"the claim of {ablation.name!r} is decided by one row with projector {projector!r} at downsample "
                    f"rate {rate}, but {which} these"
                )
            rows += found
    return ClaimQuestion(ablation=ablation, rung=rung, contrast=contrast, rows=tuple(rows))


def _is(parameters: dict[str, object], projector: str, rate: int) -> bool:
    return parameters.get("projector") == projector and parameters.get("downsample_rate") == rate


def data_hash(contrast: Contrast, utterances: "pandas.DataFrame") -> str:
    """16 hexadecimal digits of what a verdict rests on: the contrast, and the counted errors of its four cells.

    Of neither keys nor runs: cells run again that come out the same are nothing new to look at.
    """
    from lab.evaluation.crossed import METRICS

    four = of_contrast(contrast, utterances)
    counted = ["projector", "downsample_rate", "seed", "utterance", *METRICS[contrast.metric]]
    lines = four[counted].sort_values(counted[:4]).to_csv(index=False, lineterminator="\n")
    asked = {name: value for name, value in asdict(contrast).items() if name != "label"}
    return hashlib.sha256(f"{json.dumps(asked, sort_keys=True)}\n{lines}".encode()).hexdigest()[:16]


def unlooked(measured: Measured) -> "pandas.DataFrame":
    """The utterances at the seeds that were run whatever a look said: all of them where none was taken.

    What else is compared in a table is compared on these, at 95%: rows share seeds, so what was added because the
    claim was open is no fair draw for its neighbours either.
    """
    if not measured.looks:
        return measured.utterances
    return measured.utterances[measured.utterances["seed"].isin(measured.looks[0].seeds)]


def judge_looked(contrast: Contrast, measured: Measured) -> str:
    """The verdict on the first contrast, at the level of the last look taken at it, and how it came about.

    Where the results are not those of the last look, it is given at the level that one more look would have: they may
    have been measured anew, and reading them is one.
    """
    if not measured.looks:
        return judge(contrast, measured.utterances)
    from lab.evaluation.sequential import ALPHA, look_level

    last = measured.looks[-1]
    looked = measured.utterances[measured.utterances["seed"].isin(last.seeds)]
    sizes = ", ".join(str(len(look.seeds)) for look in measured.looks)
    taken = "1 look was" if len(measured.looks) == 1 else f"{len(measured.looks)} looks were"
    said = (
        f"Seeds were added until it would be decided: {taken} taken (at {sizes} seeds), which share a level of "
        f"{percent(ALPHA)} so that all of their intervals hold at once in {percent(1 - ALPHA)} of such studies"
    )
    try:
        same = data_hash(contrast, looked) == last.data
    except LabError:
        same = False
    if same:
        leans = (
            ""
            if last.outcome == "undecided"
            else (", and allows for the effect itself leaning, on average, towards where looking stopped")
        )
        return f"{judge(contrast, looked, last.confidence)} {said}; this one is the last one's{leans}."
    confidence = 1 - look_level(len(measured.looks) + 1, last.planned)
    return (
        f"{judge(contrast, measured.utterances, confidence)} {said}; the results here are not those of the last one "
        f"({last.outcome}), so this is given at the level of one look more."
    )
