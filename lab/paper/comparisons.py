"""Rows set against each other in an ablation's table; of a study of rates, what its verdicts do not say.

That is: how much of an effect is the projector's form and how much its size, and every rate by itself.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
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


def shared_cells(contrasts: Sequence[Contrast], utterances: "pandas.DataFrame") -> str:
    """Which cells of the contrasts more than one row has, so that they are compared with nothing; empty for none."""
    compared = {projector for contrast in contrasts for projector in (contrast.baseline, contrast.candidate)}
    return "; ".join(
        f"{projector} at n = {rate}, which rows {', '.join(rows)} have"
        for (projector, rate), rows in utterances.groupby(["projector", "downsample_rate"])["row"].unique().items()
        if projector in compared and len(rows) > 1
    )


def form_and_size(claim: Contrast, control: Contrast, utterances: "pandas.DataFrame") -> str | None:
    """How much of the growth of the claim's gap is the projector's form and how much its size; None without the cells.

    Against a control of the same size what is left is form. The rest is the interaction between the two baselines,
    (baseline - control)[high] - (baseline - control)[low], which has an interval of its own. All three are of the seeds
    that all six cells have: of others they would not add up.
    """
    from lab.evaluation.contrasts import interaction

    rates = (claim.low_rate, claim.high_rate)
    if claim.candidate != control.candidate or rates != (control.low_rate, control.high_rate):
        return None
    parts = []
    projectors = (claim.baseline, control.baseline, claim.candidate)
    try:
        utterances = cells_at_common_seeds(utterances, [(p, rate) for p in projectors for rate in rates])
    except LabError:
        return None
    for baseline, candidate in (
        (claim.baseline, claim.candidate),
        (control.baseline, claim.candidate),
        (claim.baseline, control.baseline),
    ):
        try:
            frame = cells_at_common_seeds(utterances, [(p, rate) for p in (baseline, candidate) for rate in rates])
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
    frame = cells_at_common_seeds(utterances, sorted({(p, rate) for b, c, rate in there for p in (b, c)}))
    try:
        table = pairwise_comparisons(frame, [(rows[b, rate], rows[c, rate]) for b, c, rate in there], metric=metric)
    except LabError:
        return None
    baselines, candidates, at = zip(*there, strict=True)
    return table.assign(baseline=baselines, candidate=candidates, downsample_rate=at)


def _row_comparisons(measured: Measured, declared: Sequence[Comparison]) -> str:
    from lab.evaluation.crossed import METRICS
    from lab.evaluation.statistics import pairwise_comparisons

    run = set(measured.results["row"])
    there = [c for c in declared if {c.baseline, c.candidate} <= run]
    parts = []
    for metric in dict.fromkeys(c.metric for c in there):
        pairs = list(dict.fromkeys((c.baseline, c.candidate) for c in there if c.metric == metric))
        frame = unlooked(measured)
        with suppress(LabError):  # the claim beneath says why
            frame = common_seeds(frame[frame["row"].isin({key for pair in pairs for key in pair})])
            table = pairwise_comparisons(frame, pairs, metric=metric)
            parts.append(_compared_rows(measured, table, METRICS[metric].items))
    return "\n\n".join(parts)


def _compared_rows(measured: Measured, table: "pandas.DataFrame", items: str) -> str:
    labels = {row.key: row.label for row in measured.ablation.rows}
    lines = [["Candidate", "Baseline", "Advantage (points)", "95% interval", "p (Holm)"]]
    for line in table.to_dict("records"):
        interval = f"{points(line['low'])} to {points(line['high'])}"
        names = [labels[line["row_b"]], labels[line["row_a"]]]
        lines.append([*names, points(line["difference"]), interval, _p_value(line["p_value_holm"])])
    return f"{markdown(lines, left=2)}\n\n{_compared(measured, table, items)}"


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _compared(measured: Measured, table: "pandas.DataFrame", items: str) -> str:
    seeds = int(table["num_seeds"].iloc[0])
    return (
        f"On the same {items} and {seeds} seed{'s' if seeds > 1 else ''}"
        f"{f' ({first_seeds(measured)}, which no look chose)' if measured.looks else ''}; above 0 "
        f"the candidate makes fewer errors; p corrected for the {len(table)} comparisons, intervals not."
    )


def comparisons(measured: Measured, contrasts: Sequence[Claim]) -> str:
    """A line a pair: those declared, and for a study of rates one at every rate; empty where none was run."""
    rates = [contrast for contrast in contrasts if isinstance(contrast, Contrast)]
    rows = [contrast for contrast in contrasts if isinstance(contrast, Comparison)]
    return "\n\n".join(part for part in (_rate_comparisons(measured, rates), _row_comparisons(measured, rows)) if part)


def _rate_comparisons(measured: Measured, rates: Sequence[Contrast]) -> str:
    frame = unlooked(measured)
    shared = shared_cells(rates, frame) if rates else ""
    left_out = f"Not compared: {shared}." if shared else ""
    table = same_rate_comparisons(rates, frame)
    if table is None:
        return left_out
    lines = [["Same rate, baseline − candidate", "n", "Difference (points)", "95% interval", "p (Holm)"]]
    for line in table.to_dict("records"):
        interval = f"{points(line['low'])} to {points(line['high'])}"
        names = f"{line['baseline']} − {line['candidate']}"
        rate, p_value = str(line["downsample_rate"]), _p_value(line["p_value_holm"])
        lines.append([names, rate, points(line["difference"]), interval, p_value])
    told = f"{_compared(measured, table, 'utterances')} {left_out}".strip()
    return f"{markdown(lines, left=1)}\n\n{told}"


def first_seeds(measured: Measured) -> str:
    """The seeds of the first look."""
    return ", ".join(str(seed) for seed in measured.looks[0].seeds)


def markdown(table: Sequence[Sequence[str]], left: int) -> str:
    """A Markdown table; the first line is its head, the first `left` columns are aligned to the left."""
    head, *body = [[cell.replace("|", "\\|") for cell in line] for line in table]
    rule = ["---" if at < left else "---:" for at in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *body))
