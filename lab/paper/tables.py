"""The Markdown table of an ablation: ours with intervals and costs, the paper's numbers apart, and the verdict.

`write_tables` puts it into `ablations/results/NAME.RUNG.md` and between the README's markers; `read_written` reads it
again. Rates are fractions in every file and percent only here.
"""

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from lab import paths
from lab.errors import LabError
from lab.evaluation.verdict import Outcome
from lab.paper.claims import Claim, Contrast, capital, judge, load_contrasts
from lab.paper.comparisons import comparisons, first_seeds, form_and_size, markdown
from lab.paper.looking import judge_looked, unlooked
from lab.paper.measured import Measured, fingerprint, load_measured
from lab.study import store
from lab.study.ablation import Ablation, Column, Row, load_ablation
from lab.study.adaptive import read_looks
from lab.study.results import Line, results_path

NOT_MEASURED = "–"
NOT_FOUND = "not found"
NOT_IN_PAPER = "not in the paper"
_OUTCOMES: Mapping[str, Outcome] = {capital(outcome): outcome for outcome in get_args(Outcome)}
CLAIM = re.compile(
    rf"^\*\*(?P<title>[^*]+?)\.\*\* (?P<said>(?:{'|'.join(_OUTCOMES)}|Not judged yet)\b.+)$", re.MULTILINE
)
"""What a written table says of a claim."""
_VALUE = re.compile(r"(?P<mean>-?[\d.]+) \((?P<low>-?[\d.]+) to (?P<high>-?[\d.]+)\)(?P<single>¹?)")


def table_path(ablation: Ablation, rung: str) -> Path:
    """`ablations/results/NAME.RUNG.md`, or for a rung that is not recorded one beside the store."""
    return results_path(ablation, rung).with_name(f"{ablation.name}.{rung}.md")


def markers(name: str) -> tuple[str, str]:
    """The lines of the README between which the table of ablation `name` stands."""
    return f"<!-- lab:{name}:begin -->", f"<!-- lab:{name}:end -->"


def write_tables(name: str, rung: str) -> Path:
    """Write the table of one rung; the first rung's also into the README. Says which, and returns the first.

    A table whose results, declaration and code are what they were is left as it is.

    Raises:
        LabError: an unknown ablation or rung, no results, a results file changed by hand, or a README without the
            markers (which is left as it is; the table's own file is written).
    """
    ablation = load_ablation(name)
    inputs = f"<!-- written by `lab tables {name} --rung {rung}` from {fingerprint(ablation, rung)} -->"
    path = table_path(ablation, rung)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if inputs not in text:
        text = f"{inputs}\n\n{render(load_measured(ablation, rung), load_contrasts(name))}"
        paths.write_whole(path, text)
    print(f"table: {path}")
    if rung == ablation.rungs[0].name:
        readme = paths.repository_root() / "README.md"
        write_between_markers(readme, name, text)
        print(f"table: {readme}")
    return path


def write_between_markers(readme: Path, name: str, text: str) -> None:
    """Replace what stands between the markers of ablation `name`; nothing else of the file changes.

    Raises:
        LabError: the file or a marker is missing, or they stand twice or in the wrong order; it is left as it is.
    """
    begin, end = markers(name)
    content = readme.read_text(encoding="utf-8") if readme.exists() else ""
    if content.count(begin) != 1 or content.count(end) != 1 or content.index(begin) > content.index(end):
        raise LabError(
            f"{readme} must hold the two lines {begin} and {end}, each once and in this order, for the table to stand "
            "between them; it is left as it is"
        )
    before, _, rest = content.partition(begin)
    _, _, after = rest.partition(end)
    changed = f"{before}{begin}\n{text.strip()}\n{end}{after}"
    if changed != content:
        paths.write_whole(readme, changed)


def render(measured: Measured, contrasts: Sequence[Claim]) -> str:
    """The table and what is said beneath it, as Markdown."""
    ablation, rung = measured.ablation, measured.ablation.rung(measured.rung)
    parts = [f"**{ablation.paper}.** Rung `{rung.name}`: {rung.description}."]
    parts.append(_main_table(measured))
    parts.append(_caption(measured))
    parts.append(comparisons(measured, contrasts))
    parts.append(f"**Claim.** {ablation.claim}")
    parts += [f"**{title}.** {judged}" for title, judged in judged_claims(measured, contrasts)]
    rates = [contrast for contrast in contrasts if isinstance(contrast, Contrast)]
    if len(rates) > 1 and (split := form_and_size(rates[0], rates[1], unlooked(measured))):
        on = f", on seeds {first_seeds(measured)} alone" if measured.looks else ""
        parts.append(f"**Form and size.** In percentage points with 95% intervals{on}: {split}.")
    parts.append(_provenance(measured))
    return "\n\n".join(part for part in parts if part) + "\n"


def judged_claims(measured: Measured, contrasts: Sequence[Claim]) -> list[tuple[str, str]]:
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

    def interval(self, row: str, column: Column) -> tuple[float, float, bool] | None:
        """Its ends in the table's unit, and whether it is over seeds; None where none is written."""
        found = _VALUE.match(self.rows.get(row, {}).get(_heading(column), ""))
        return (float(found["low"]), float(found["high"]), not found["single"]) if found else None

    def claim(self, title: str) -> tuple[Outcome | None, str]:
        """Its outcome and its sentence; None and nothing where the table says nothing of it."""
        sentence = self.claims.get(title, "")
        return _OUTCOMES.get(sentence.partition(":")[0]), sentence


def read_written(ablation: Ablation, rung: str, lines: Sequence[Line]) -> Written:
    """What stands in the table of a rung; nothing where none was written, or one of other results than `lines`.

    Raises:
        LabError: the file of looks was changed by hand, so that the table's verdict rests on nothing.
    """
    read_looks(ablation, rung)
    path = table_path(ablation, rung)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    grid = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    head = next((line for line in grid if line[0] == "Row"), [])
    by_label = {line[0]: dict(zip(head, line, strict=True)) for line in grid if len(line) == len(head)}
    rows = {row.key: by_label[row.label] for row in ablation.rows if row.label in by_label}
    if not all(_fits(ablation, rows.get(row, {}), lines, row) for row in {line["row"] for line in lines}):
        return Written()
    return Written(rows=rows, claims=written_claims(text))


def _fits(ablation: Ablation, cells: Mapping[str, str], lines: Sequence[Line], row: str) -> bool:
    mine = [line for line in lines if line["row"] == row]
    expected = {"Seeds": str(len(mine))}
    for column in (column for column in ablation.columns if column.interval):
        mean = sum(float(line[column.metric]) for line in mine) / len(mine) * column.scale
        expected[_heading(column)] = f"{mean:.1f}"
    return all(cells.get(heading, "").partition(" ")[0] == value for heading, value in expected.items())


def _heading(column: Column) -> str:
    return f"{capital(column.label)} ({column.unit})" if column.unit else column.label


def _main_table(measured: Measured) -> str:
    ablation, lines = measured.ablation, measured.results
    columns = ablation.columns
    table = [["Row", "Seeds", *map(_heading, columns), _reported_head(ablation)]]
    run = set(lines["row"])
    for row in (row for row in ablation.rows if row.main or row.key in run):
        done = len(measured.seeds(row.key))
        of = len(ablation.seeds)
        seeds = f"{done} of {of} seeds" if done < of else str(done) if done == of else f"{done} ({done - of} added²)"
        values = [_value(measured, row, column) for column in columns]
        table.append([row.label, seeds, *values, _reported(ablation, row)])
    return markdown(table, left=["Row"])


def _value(measured: Measured, row: Row, column: Column) -> str:
    own = measured.results[measured.results["row"] == row.key]
    if column.metric not in own or (values := own[column.metric].dropna()).empty:
        return NOT_MEASURED
    percent = column.unit == "%"
    text = f"{values.mean() * column.scale:.1f}" if percent else _number(values.mean() * column.scale)
    # Only what was asked of the test set in the domain is drawn again; other columns are means over seeds.
    if interval := measured.column_interval(row.key, column):
        text += f" ({interval.low * column.scale:.1f} to {interval.high * column.scale:.1f})"
        text += "" if interval.over_seeds else "¹"
    return text


def _number(value: float) -> str:
    """Three digits that count, or all of a larger whole number."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


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
    if measured.counted:
        groups = measured.counted[1].groups
        beside = " and ".join(f"{column.label} its" for column in ablation.columns if column.interval)
        sentences = [f"Means over seeds; beside {beside} 95% interval, over new seeds and new {groups} at once."]
        if any(len(measured.seeds(row)) == 1 for row in set(measured.results["row"])):
            sentences.append(f"¹ One seed: an interval over {groups} only, too narrow for any claim on the row.")
    else:
        sentences = ["Means over seeds."]
    if any(len(measured.seeds(row)) > len(ablation.seeds) for row in set(measured.results["row"])):
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
    if wrong := measured.mismatches():
        sentences.append(f"Warning: utterances and results differ in {'; '.join(wrong)}.")
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
    starts = [run.start for run in store.read_runs(()) if run.run_id in run_ids]
    if not starts:
        return "their runs are not in the store of this machine, so without a date"
    first, last = (datetime.datetime.fromtimestamp(at, datetime.UTC).date() for at in (min(starts), max(starts)))
    return f"run on {first}" if first == last else f"run from {first} to {last}"
