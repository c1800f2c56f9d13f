"""The part of an ablation's table that sets rows against each other, with what the number of comparisons costs."""

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.paper.claims import Claim, Comparison, Contrast, common_seeds, points
from lab.paper.looking import unlooked
from lab.paper.measured import Measured
from lab.paper.rate_study import same_rate_comparisons, shared_cells

if TYPE_CHECKING:
    import pandas


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
