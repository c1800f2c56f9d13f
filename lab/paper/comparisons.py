"""Rows set against each other in an ablation's table; of a study of rates, what its verdicts do not say.

That is: how much of an effect is the projector's form and how much its size, and every rate by itself.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.paper.claims import Claim, Comparison, Contrast, cells_at_common_seeds, common_seeds, points
from lab.paper.looking import unlooked
from lab.paper.measured import Measured
from lab.study.ablation import Ablation

if TYPE_CHECKING:
    import pandas


def rows_by_rate(ablation: Ablation, rung: str, rows: Iterable[str]) -> dict[str, dict[int, str]]:
    """The keys of rows by what their labels call the projector, and by rate.

    Of two rows that share both, the second one's name holds its key, so that no row hides another.
    """
    found: dict[str, dict[int, str]] = {}
    for row in rows:
        rate = int(ablation.resolve(row, rung).as_dict()["downsample_rate"])
        name = ablation.row(row).label.removesuffix(f", n = {rate}")
        if rate in found.get(name, {}):
            name = f"{name} ({row})"
        found.setdefault(name, {})[rate] = row
    return found


def form_and_size(claim: Contrast, control: Contrast, utterances: "pandas.DataFrame") -> str | None:
    """How much of the growth of the claim's gap is the projector's form and how much its size; None without the cells.

    Against a control of the same size what is left is form. The rest is the interaction between the two baselines,
    (baseline - control)[high] - (baseline - control)[low], which has an interval of its own. All three are of the seeds
    that all six cells have: of others they would not add up.
    """
    rates = (claim.low_rate, claim.high_rate)
    if claim.candidate != control.candidate or rates != (control.low_rate, control.high_rate):
        return None
    projectors = (claim.baseline, control.baseline, claim.candidate)
    try:
        shared = cells_at_common_seeds(utterances, [(p, rate) for p in projectors for rate in rates])
        of_size = replace(claim, candidate=control.baseline)
        intervals = [pair.effect(shared).interval for pair in (claim, control, of_size)]
    except LabError:
        return None
    whole, form, size = (f"{points(i.estimate)} ({points(i.low)} to {points(i.high)})" for i in intervals)
    return (
        f"of the growth of the gap to {claim.baseline}, {whole} points, {form} are left against {control.baseline}, "
        f"which is as large (form), and {size} lie between those two (size, and whatever else tells them apart)"
    )


def comparisons(measured: Measured, contrasts: Sequence[Claim]) -> str:
    """A line a pair: those declared, and for a study of rates one at every rate; empty where none was run."""
    rates = [contrast for contrast in contrasts if isinstance(contrast, Contrast)]
    rows = [contrast for contrast in contrasts if isinstance(contrast, Comparison)]
    parts = [_at_each_rate(measured, rates)] if rates else []
    for metric in dict.fromkeys(one.metric for one in rows):
        parts.append(_row_by_row(measured, [one for one in rows if one.metric == metric]))
    return "\n\n".join(part for part in parts if part)


def _at_each_rate(measured: Measured, contrasts: Sequence[Contrast]) -> str:
    """Baseline against candidate at every rate where both were measured."""
    rows: dict[tuple[str, int], str] = {}
    shared = []
    for (projector, rate), keys in unlooked(measured).groupby(["projector", "downsample_rate"])["row"].unique().items():
        if len(keys) == 1:
            rows[projector, rate] = keys[0]
        elif any(projector in (one.baseline, one.candidate) for one in contrasts):
            shared.append(f"{projector} at n = {rate}, which rows {', '.join(keys)} have")
    rates = sorted({rate for _, rate in rows})
    pairs = {
        (rows[one.baseline, rate], rows[one.candidate, rate]): [f"{one.baseline} − {one.candidate}", str(rate)]
        for one in contrasts
        for rate in rates
        if (one.baseline, rate) in rows and (one.candidate, rate) in rows
    }
    head = ["Same rate, baseline − candidate", "n", "Difference (points)"]
    left_out = f"Not compared: {'; '.join(shared)}." if shared else ""
    table = _compared(measured, pairs, head, left=head[:1], metric=contrasts[0].metric)
    return f"{table} {left_out}".strip()


def _row_by_row(measured: Measured, declared: Sequence[Comparison]) -> str:
    """The declared pairs of which both rows were run."""
    run = set(measured.results["row"])
    labels = {row.key: row.label for row in measured.ablation.rows}
    pairs = {
        (one.baseline, one.candidate): [labels[one.candidate], labels[one.baseline]]
        for one in declared
        if {one.baseline, one.candidate} <= run
    }
    head = ["Candidate", "Baseline", "Advantage (points)"]
    return _compared(measured, pairs, head, left=head[:2], metric=declared[0].metric)


def _compared(
    measured: Measured, pairs: Mapping[tuple[str, str], list[str]], head: list[str], *, left: Sequence[str], metric: str
) -> str:
    """A line a pair of rows, all corrected together after Holm; empty where they cannot be compared.

    `pairs` has the words that stand before a pair's numbers.
    """
    from lab.evaluation.statistics import METRICS, pairwise_comparisons

    frame = unlooked(measured)
    try:
        frame = common_seeds(frame[frame["row"].isin({row for pair in pairs for row in pair})])
        table = pairwise_comparisons(frame, list(pairs), metric=metric)
    except LabError:  # the claim beneath says why
        return ""
    lines = [[*head, "95% interval", "p (Holm)"]]
    for words, line in zip(pairs.values(), table.to_dict("records"), strict=True):
        interval = f"{points(line['low'])} to {points(line['high'])}"
        p_value = "< 0.001" if line["p_value_holm"] < 0.001 else f"{line['p_value_holm']:.3f}"
        lines.append([*words, points(line["difference"]), interval, p_value])
    seeds = int(table["num_seeds"].iloc[0])
    chosen = f" ({first_seeds(measured)}, which no look chose)" if measured.looks else ""
    return (
        f"{markdown(lines, left)}\n\nOn the same {METRICS[metric].items} and {seeds} seed{'s' * (seeds > 1)}{chosen}; "
        f"above 0 the candidate makes fewer errors; p corrected for the {len(table)} comparisons, intervals not."
    )


def first_seeds(measured: Measured) -> str:
    """The seeds of the first look."""
    return ", ".join(str(seed) for seed in measured.looks[0].seeds)


def markdown(table: Sequence[Sequence[str]], left: Collection[str]) -> str:
    """A Markdown table; the first line is its head, the columns of `left` are aligned to the left."""
    rule = ["---" if name in left else "---:" for name in table[0]]
    head, *body = [[cell.replace("|", "\\|") for cell in line] for line in table]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *body))
