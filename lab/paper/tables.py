"""The Markdown table of an ablation: ours with intervals and costs, the paper's numbers apart, and the verdict.

`write_tables` puts it into `ablations/results/NAME.RUNG.md`; `read_written` reads it again. Rates are fractions
in every file and percent only here.
"""

import datetime
import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

from lab import paths
from lab.errors import LabError
from lab.evaluation.verdict import Outcome, points
from lab.paper.claims import (
    Comparison,
    Contrast,
    capital,
    common_seeds,
    judge,
    judge_looked,
    load_contrasts,
    unlooked,
)
from lab.paper.measured import Measured, load_measured
from lab.study import store
from lab.study.ablation import Ablation, Column, Row, load_ablation
from lab.study.adaptive import read_looks
from lab.study.results import results_path

NOT_MEASURED = "–"
NOT_FOUND = "not found"
NOT_IN_PAPER = "not in the paper"
_OUTCOMES: Mapping[str, Outcome] = {capital(outcome): outcome for outcome in get_args(Outcome)}
CLAIM = re.compile(
    rf"^\*\*(?P<title>[^*]+?)\.\*\* (?P<said>(?:{'|'.join(_OUTCOMES)}|Not judged yet)\b.+)$", re.MULTILINE
)
"""What a written table says of a claim."""
_INTERVAL = re.compile(r"\((?P<low>-?[\d.]+) to (?P<high>-?[\d.]+)\)")


def table_path(ablation: Ablation, rung: str) -> Path:
    """`ablations/results/NAME.RUNG.md`, or for a rung that is not recorded one beside the store."""
    return results_path(ablation, rung).with_name(f"{ablation.name}.{rung}.md")


def write_tables(name: str, rung: str) -> Path:
    """Write the table of one rung; its path is printed and returned.

    Raises:
        LabError: an unknown ablation or rung, no results, or a results file changed by hand.
    """
    ablation = load_ablation(name)
    measured = load_measured(ablation, rung)
    by = f"<!-- written by `lab tables {name} --rung {rung}` {names_runs(measured.results['run_id'])} -->"
    text = f"{by}\n\n{render(measured, load_contrasts(name))}"
    path = paths.write_whole(table_path(ablation, rung), text)
    print(f"table: {path}")
    return path


def render(measured: Measured, contrasts: Sequence[Comparison]) -> str:
    """The table and what is said beneath it, as Markdown."""
    ablation, rung = measured.ablation, measured.ablation.rung(measured.rung)
    rates = [contrast for contrast in contrasts if isinstance(contrast, Contrast)]
    parts = [
        f"**{ablation.paper}.** Rung `{rung.name}`: {rung.description}.",
        _main_table(measured),
        _caption(measured),
        comparisons(measured, contrasts),
        f"**Claim.** {ablation.claim}",
        *(f"**{title}.** {judged}" for title, judged in judged_claims(measured, contrasts)),
        _form_and_size(measured, *rates[:2]) if len(rates) > 1 else "",
        _provenance(measured),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def judged_claims(measured: Measured, contrasts: Sequence[Comparison]) -> list[tuple[str, str]]:
    """Each claim's title and what the numbers say of it; seeds are added for the first alone."""
    return [
        (contrast.title, judge(contrast, unlooked(measured)) if at else judge_looked(contrast, measured))
        for at, contrast in enumerate(contrasts)
    ]


def written_claims(text: str) -> dict[str, str]:
    """The verdicts that a table gives, by the title of the claim."""
    return {found["title"]: found["said"] for found in CLAIM.finditer(text)}


@dataclass(frozen=True, kw_only=True)
class Written:
    """The rows of a written table by key and heading, and what it says of each claim by title."""

    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    claims: Mapping[str, str] = field(default_factory=dict)

    def interval(self, row: str, column: Column) -> tuple[float, float] | tuple[None, None]:
        """Its ends in the table's unit; None where none is written."""
        found = _INTERVAL.search(self.rows.get(row, {}).get(_heading(column), ""))
        return (float(found["low"]), float(found["high"])) if found else (None, None)

    def claim(self, title: str) -> tuple[Outcome | None, str]:
        """Its outcome and its sentence; None and nothing where the table says nothing of it."""
        sentence = self.claims.get(title, "")
        return _OUTCOMES.get(sentence.partition(":")[0]), sentence


def read_written(ablation: Ablation, rung: str, run_ids: Iterable[str]) -> Written:
    """What stands in the table of a rung; nothing where none was written, or one of other runs.

    Raises:
        LabError: the file of looks was changed by hand, so that the table's verdict rests on nothing.
    """
    read_looks(ablation, rung)
    path = table_path(ablation, rung)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if names_runs(run_ids) not in text:
        return Written()
    grid = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    head = next((line for line in grid if line[0] == "Row"), [])
    by_label = {line[0]: dict(zip(head, line, strict=True)) for line in grid if len(line) == len(head)}
    rows = {row.key: by_label[row.label] for row in ablation.rows if row.label in by_label}
    return Written(rows=rows, claims=written_claims(text))


def names_runs(run_ids: Iterable[str]) -> str:
    """What a table says of the runs that it is of: a hash of their ids."""
    return f"of the runs {hashlib.sha256(' '.join(run_ids).encode()).hexdigest()[:16]}"


def markdown(table: Sequence[Sequence[str]], left: Collection[str]) -> str:
    """A Markdown table; the first line is its head, the columns of `left` are aligned to the left."""
    rule = ["---" if name in left else "---:" for name in table[0]]
    head, *body = [[cell.replace("|", "\\|") for cell in line] for line in table]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *body))


def _heading(column: Column) -> str:
    return f"{capital(column.label)} ({column.unit})" if column.unit else column.label


def _main_table(measured: Measured) -> str:
    ablation = measured.ablation
    table = [["Row", "Seeds", *map(_heading, ablation.columns), _reported_head(ablation)]]
    run = set(measured.results["row"])
    for row in (row for row in ablation.rows if row.main or row.key in run):
        done = len(measured.seeds(row.key))
        of = len(ablation.seeds)
        seeds = f"{done} of {of} seeds" if done < of else str(done) if done == of else f"{done} ({done - of} added²)"
        values = [_value(measured, row, column) for column in ablation.columns]
        table.append([row.label, seeds, *values, _reported(ablation, row)])
    return markdown(table, left=["Row"])


def _value(measured: Measured, row: Row, column: Column) -> str:
    own = measured.results[measured.results["row"] == row.key]
    if column.metric not in own or (values := own[column.metric].dropna()).empty:
        return NOT_MEASURED
    mean = values.mean() * column.scale
    # Three digits that count, or all of a larger whole number.
    text = f"{mean:.1f}" if column.unit == "%" else f"{mean:,.0f}" if abs(mean) >= 100 else f"{mean:.3g}"
    # Only what was asked of the test set in the domain is drawn again; other columns are means over seeds.
    if interval := measured.column_interval(row.key, column):
        text += f" ({interval.low * column.scale:.1f} to {interval.high * column.scale:.1f})"
        text += "" if interval.over_seeds else "¹"
    return text


def _reported_head(ablation: Ablation) -> str:
    by_metric = {column.metric: column for column in ablation.columns}
    metrics = dict.fromkeys(entry.metric for entry in ablation.reported)
    shown = [f"{by_metric[m].label}, {by_metric[m].unit}" if m in by_metric else m for m in metrics]
    notes = dict.fromkeys(entry.note for entry in ablation.reported if entry.note)
    return f"Reported ({'; '.join([*shown, *notes])})" if metrics else "Reported"


def _reported(ablation: Ablation, row: Row) -> str:
    scales = {column.metric: column.scale for column in ablation.columns}
    entries = [entry for entry in ablation.reported if entry.row == row.key]
    values = [
        NOT_FOUND if entry.value is None else f"{entry.value * scales.get(entry.metric, 1.0):.1f}" for entry in entries
    ]
    return ", ".join(values) or NOT_IN_PAPER


def _caption(measured: Measured) -> str:
    ablation = measured.ablation
    sources = dict.fromkeys(entry.source for entry in ablation.reported if entry.value is not None)
    counts = [len(measured.seeds(row)) for row in set(measured.results["row"])]
    sentences = ["Means over seeds."]
    if measured.counted:
        groups = measured.counted[1].groups
        rated = [column.label for column in ablation.columns if column.interval]
        beside = f"{' and '.join(rated)} {'its 95% interval' if len(rated) == 1 else 'their 95% intervals'}"
        sentences = [f"Means over seeds; beside {beside}, over new seeds and new {groups} at once."]
        if 1 in counts:
            sentences.append(f"¹ One seed: an interval over {groups} only, too narrow for any claim on the row.")
    if max(counts) > len(ablation.seeds):
        why = (
            " Seeds were added by looking at the claim (below), for which the 95% intervals of these rows are not "
            "corrected."
        )
        sentences.append(
            f"² Beyond the {len(ablation.seeds)} seeds of the study: these rows rest on more than the others."
            f"{why if measured.looks else ''}"
        )
    if sources:
        sentences.append(
            f"Reported: the paper's own numbers, of another model on other test sets, never to be compared with ours "
            f"line by line ({'; '.join(sources)}). {NOT_FOUND.capitalize()}: in no source at hand."
        )
    return " ".join(sentences)


def _provenance(measured: Measured) -> str:
    lines, frame = measured.results, measured.utterances
    seeds = ", ".join(str(seed) for seed in sorted(set(lines["seed"])))
    others = f"; out of domain: {', '.join(measured.other_corpora)}" if measured.other_corpora else ""
    tested = ""
    if measured.counted:
        metric = measured.counted[1]
        counts = frame["id"].nunique(), frame["group"].nunique()
        tested = f", {counts[0]} test {metric.items} ({counts[1]} {metric.groups})"
    return (
        f"Corpus: {', '.join(measured.corpora)}{tested}{others}. Seeds {seeds}; {len(lines)} cells; "
        f"{_dates(set(lines['run_id']))}."
    )


def _dates(run_ids: set[str]) -> str:
    starts = [run.start for run in store.read_runs() if run.run_id in run_ids]
    if not starts:
        return "their runs are not in the store of this machine, so without a date"
    first, last = (datetime.datetime.fromtimestamp(at, datetime.UTC).date() for at in (min(starts), max(starts)))
    return f"run on {first}" if first == last else f"run from {first} to {last}"


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


def _form_and_size(measured: Measured, claim: Contrast, control: Contrast) -> str:
    """How much of the growth of the claim's gap is the projector's form and how much its size; empty without the cells.

    Against a control of the same size what is left is form. The rest is the interaction between the two baselines,
    (baseline - control)[high] - (baseline - control)[low], which has an interval of its own. All three are of the seeds
    that all six cells have: of others they would not add up.
    """
    rates = (claim.low_rate, claim.high_rate)
    if claim.candidate != control.candidate or rates != (control.low_rate, control.high_rate):
        return ""
    frame = unlooked(measured)
    try:
        shared = common_seeds(frame[frame["row"].isin({*claim.rows, *control.rows})])
        of_size = replace(claim, candidate=control.baseline)
        intervals = [pair.effect(shared).interval for pair in (claim, control, of_size)]
    except LabError:
        return ""
    whole, form, size = (
        f"{points(i.estimate, '+')} ({points(i.low, '+')} to {points(i.high, '+')})" for i in intervals
    )
    on = f", on seeds {_first_seeds(measured)} alone" if measured.looks else ""
    return (
        f"**Form and size.** In percentage points with 95% intervals{on}: of the growth of the gap to "
        f"{claim.baseline}, {whole} points, {form} are left against {control.baseline}, which is as large (form), and "
        f"{size} lie between those two (size, and whatever else tells them apart)."
    )


def comparisons(measured: Measured, contrasts: Sequence[Comparison]) -> str:
    """A line a pair of which both rows were run: those declared, and for a study of rates one at every rate."""
    run = set(measured.results["row"])
    labels = {row.key: row.label for row in measured.ablation.rows}
    tables: dict[tuple[tuple[str, ...], str], dict[tuple[str, str], list[str]]] = {}
    for one in contrasts:
        head = ("Candidate", "Baseline", "Advantage (points)")
        pairs = {(one.baseline, one.candidate): [labels.get(one.candidate, ""), labels.get(one.baseline, "")]}
        if isinstance(one, Contrast):
            head = ("Same rate, baseline − candidate", "n", "Difference (points)")
            pairs = {
                (f"{one.baseline}_{rate}", f"{one.candidate}_{rate}"): [f"{one.baseline} − {one.candidate}", str(rate)]
                for rate in sorted(set(measured.results["downsample_rate"]))
            }
        there = {pair: words for pair, words in pairs.items() if run.issuperset(pair)}
        tables.setdefault((head, one.metric), {}).update(there)
    found = (_compared(measured, pairs, head, metric) for (head, metric), pairs in tables.items())
    return "\n\n".join(text for text in found if text)


def _compared(measured: Measured, pairs: Mapping[tuple[str, str], list[str]], head: Sequence[str], metric: str) -> str:
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
    left = [name for name in head[:2] if name != "n"]
    for words, line in zip(pairs.values(), table.to_dict("records"), strict=True):
        interval = f"{points(line['low'], '+')} to {points(line['high'], '+')}"
        p_value = "< 0.001" if line["p_value_holm"] < 0.001 else f"{line['p_value_holm']:.3f}"
        lines.append([*words, points(line["difference"], "+"), interval, p_value])
    seeds = int(table["num_seeds"].iloc[0])
    chosen = f" ({_first_seeds(measured)}, which no look chose)" if measured.looks else ""
    return (
        f"{markdown(lines, left)}\n\nOn the same {METRICS[metric].items} and {seeds} seed{'s' * (seeds > 1)}{chosen}; "
        f"above 0 the candidate makes fewer errors; p corrected for the {len(table)} comparisons, intervals not."
    )


def _first_seeds(measured: Measured) -> str:
    """The seeds of the first look."""
    return ", ".join(str(seed) for seed in measured.looks[0].seeds)
