"""The claim of an ablation as contrasts between projectors, declared beside its rows and judged from its utterances.

An ablation's module holds `contrasts = (Contrast(...), ...)`: the first is the claim itself, the second the same claim
against a capacity control, so that their difference says how much of the effect is the projector's size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.study.ablation import load_module

if TYPE_CHECKING:
    import pandas

    from lab.evaluation.verdict import Verdict


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


def load_contrasts(name: str) -> tuple[Contrast, ...]:
    """The `contrasts` of `ablations/NAME.py`; none where it declares none."""
    return tuple(getattr(load_module(name), "contrasts", ()))


def judge(contrast: Contrast, utterances: "pandas.DataFrame", confidence: float = 0.95) -> str:
    """The verdict as one sentence, or why there is none yet."""
    try:
        return verdict(contrast, utterances, confidence).sentence
    except LabError as error:
        return f"Not judged yet: {error}."


def verdict(contrast: Contrast, utterances: "pandas.DataFrame", confidence: float = 0.95) -> "Verdict":
    """What the seeds that all four cells have say of the contrast.

    Raises:
        LabError: as `interaction`; or the four have no seed in common.
    """
    from lab.evaluation.sequential import resamples_at
    from lab.evaluation.statistics import interaction
    from lab.evaluation.verdict import judge_interaction

    result = interaction(
        of_contrast(contrast, utterances),
        baseline=contrast.baseline,
        candidate=contrast.candidate,
        low_rate=contrast.low_rate,
        high_rate=contrast.high_rate,
        metric=contrast.metric,
        confidence=confidence,
        num_resamples=resamples_at(confidence),
    )
    return judge_interaction(result, smallest_effect=contrast.smallest_effect)


def form_and_size(claim: Contrast, control: Contrast, utterances: "pandas.DataFrame") -> str | None:
    """How much of the growth of the claim's gap is the projector's form and how much its size; None without the cells.

    Against a control of the same size what is left is form. The rest is the interaction between the two baselines,
    (baseline - control)[high] - (baseline - control)[low], which has an interval of its own. All three are of the seeds
    that all six cells have: of others they would not add up.
    """
    from lab.evaluation.statistics import interaction

    rates = (claim.low_rate, claim.high_rate)
    if claim.candidate != control.candidate or rates != (control.low_rate, control.high_rate):
        return None
    parts = []
    projectors = (claim.baseline, control.baseline, claim.candidate)
    try:
        utterances = _common(utterances, [(p, rate) for p in projectors for rate in rates])
    except LabError:
        return None
    for baseline, candidate in (
        (claim.baseline, claim.candidate),
        (control.baseline, claim.candidate),
        (claim.baseline, control.baseline),
    ):
        try:
            frame = _common(utterances, [(p, rate) for p in (baseline, candidate) for rate in rates])
            found = interaction(
                frame,
                baseline=baseline,
                candidate=candidate,
                low_rate=claim.low_rate,
                high_rate=claim.high_rate,
                metric=claim.metric,
            ).interval
        except LabError:
            return None
        parts.append(f"{points(found.estimate)} ({points(found.low)} to {points(found.high)})")
    whole, form, size = parts
    return (
        f"of the growth of the gap to {claim.baseline}, {whole} points, {form} are left against {control.baseline}, "
        f"which is as large (form), and {size} lie between those two (size, and whatever else tells them apart)"
    )


def same_rate_comparisons(contrasts: Sequence[Contrast], utterances: "pandas.DataFrame") -> "pandas.DataFrame | None":
    """Baseline against candidate at every rate where both were measured, corrected together after Holm.

    Columns as of `pairwise_comparisons`, and `baseline`, `candidate`, `downsample_rate`. None where no pair is there.
    """
    from lab.evaluation.statistics import pairwise_comparisons

    if not contrasts:
        return None
    metric = contrasts[0].metric
    rows = {
        cell: group["row"].iloc[0]
        for cell, group in utterances.groupby(["projector", "downsample_rate"])
        if group["row"].nunique() == 1
    }
    wanted = list(dict.fromkeys((contrast.baseline, contrast.candidate) for contrast in contrasts))
    rates = sorted({rate for _, rate in rows})
    there = [(b, c, rate) for b, c in wanted for rate in rates if (b, rate) in rows and (c, rate) in rows]
    if not there:
        return None
    frame = _common(utterances, sorted({(p, rate) for b, c, rate in there for p in (b, c)}))
    try:
        table = pairwise_comparisons(frame, [(rows[b, rate], rows[c, rate]) for b, c, rate in there], metric=metric)
    except LabError:
        return None
    baselines, candidates, at = zip(*there, strict=True)
    return table.assign(baseline=baselines, candidate=candidates, downsample_rate=at)


def points(fraction: float) -> str:
    """Percentage points with their sign, and never "-0.00"."""
    return f"{round(100 * fraction, 2) + 0.0:+.2f}"


def of_contrast(contrast: Contrast, utterances: "pandas.DataFrame") -> "pandas.DataFrame":
    """The utterances of its four cells, at the seeds that all of them have."""
    rates = (contrast.low_rate, contrast.high_rate)
    return _common(utterances, [(p, rate) for p in (contrast.baseline, contrast.candidate) for rate in rates])


def _common(utterances: "pandas.DataFrame", cells: Sequence[tuple[str, int]]) -> "pandas.DataFrame":
    """The cells (projector, rate) at the seeds that all of them have; a study half run compares what it can."""
    import numpy as np

    pairs = zip(utterances["projector"], utterances["downsample_rate"], strict=True)
    # As an array: of an empty frame, an empty list would choose columns.
    chosen = utterances[np.array([pair in set(cells) for pair in pairs], dtype=bool)]
    seeds = [set(group["seed"]) for _, group in chosen.groupby("row")]
    if not seeds:
        return chosen
    if not (shared := set.intersection(*seeds)):
        raise LabError("the rows to be compared have no seed in common")
    return chosen[chosen["seed"].isin(shared)]
