"""One HTML page of everything: studies with tables, figures, verdicts, runs and log, and the paper's tables.

It is made of what other commands wrote, and measures nothing. Styles and pictures stand in the page itself, so that it
opens from a file, prints, and asks no server for anything. The documentation has the same page under its own menu.
`results.html` has its layout, `report.html` the page around it.
"""

import base64
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from lab import paths
from lab.paper.figure_frame import figure_stem
from lab.paper.freshness import drawn
from lab.paper.ledger.cells import chosen, tables
from lab.paper.ledger.evaluated import grid
from lab.paper.ledger.formats import FORMATS
from lab.paper.ledger.pages import pages
from lab.paper.tables import CLAIM, table_path, written_claims
from lab.study.ablation import Ablation, Rung, ablation_files, load_ablation
from lab.study.results import Line, read_lines
from lab.study.store import RunRecord, read_runs

TITLE = "What of the Baichuan-Omni report reproduces, and what does not"
MLFLOW = "http://127.0.0.1:5000"

_ENTRY = re.compile(r"^## (?P<date>\d{4}-\d\d-\d\d) · (?P<about>.+)$", re.MULTILINE)
_SAID_ABOVE = re.compile(rf"^\*\*Claim\.\*\* .+$|{CLAIM.pattern}", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?![^)]*://)[^)]+\)")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)


def report_path() -> Path:
    """Where the report lies: `mlruns/report.html`."""
    return paths.mlruns_dir() / "report.html"


def write_report(path: Path | None = None, *, mlflow: str = MLFLOW) -> Path:
    """Write the page and return where it is.

    Args:
        path: of the page; `report_path()` where None.
        mlflow: the address of MLflow's page, which runs are linked to; it is `make mlflow` that serves it.

    Raises:
        LabError: a results file that was changed by hand.
    """
    written = f"{datetime.now(UTC):%Y-%m-%d %H:%M}"
    page = _TEMPLATES.get_template("report.html").render(title=TITLE, written=written, results=results(mlflow))
    return paths.write_whole(path or report_path(), page)


def results(mlflow: str = MLFLOW) -> Markup:
    """What stands below the title of the page, as HTML.

    Raises:
        LabError: a results file that was changed by hand.
    """
    runs = {run.run_id: run for run in read_runs()}
    ablations = sorted(map(load_ablation, ablation_files()), key=_place_in_paper)
    page = _TEMPLATES.get_template("results.html").render(
        studies=[_study(ablation, runs, mlflow) for ablation in ablations],
        old=[one.path.name for one in drawn() if one.state == "no longer matches"],
        tables=_rendered(FORMATS["markdown"](pages(chosen(())), grid())),
    )
    return Markup(page)


def _place_in_paper(ablation: Ablation) -> int:
    """Of the table that has its rows; the studies of section 3, which has no table, come before those of section 4."""
    order = list(tables())
    return min((order.index(entry.cell.partition(" / ")[0]) for entry in ablation.reported if entry.cell), default=-1)


@dataclass(frozen=True, kw_only=True)
class _AtRung:
    """What there is of a study at a rung."""

    name: str
    description: str
    lines: Sequence[Line]
    claims: dict[str, str]
    picture: str
    table: Markup
    cost: str
    runs: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class _Study:
    ablation: Ablation
    rungs: Sequence[_AtRung]
    rows: Sequence[Sequence[str]]
    log: Sequence[Markup]


def _study(ablation: Ablation, runs: dict[str, RunRecord], mlflow: str) -> _Study:
    lines = read_lines(ablation, ablation.rungs[0].name)
    rows = []
    for row in ablation.rows:
        changes = ", ".join(f"{name} = {value!r}" for name, value in row.changes.items())
        rows.append([row.key, row.label, changes, "yes" if row.main else "no"])
    return _Study(
        ablation=ablation,
        rungs=[
            _at_rung(ablation, rung, [line for line in lines if line["rung"] == rung.name], runs, mlflow)
            for rung in ablation.rungs
            if rung.recorded
        ],
        rows=rows,
        log=[_rendered(re.sub("^## ", "#### ", entry, flags=re.MULTILINE)) for entry in log_entries(ablation.name)],
    )


def _at_rung(ablation: Ablation, rung: Rung, lines: Sequence[Line], runs: dict[str, RunRecord], mlflow: str) -> _AtRung:
    table, stem = table_path(ablation, rung.name), figure_stem(ablation, rung.name)
    text = table.read_text(encoding="utf-8") if table.exists() else ""
    picture = stem.with_name(f"{stem.name}.svg")
    return _AtRung(
        name=rung.name,
        description=rung.description,
        lines=lines,
        claims=written_claims(text),
        picture=base64.b64encode(picture.read_bytes()).decode() if picture.exists() else "",
        table=_rendered(_SAID_ABOVE.sub("", text)),
        cost=_cost(lines, runs),
        runs=[_run(line, runs.get(line["run_id"]), mlflow) for line in lines],
    )


def run_address(mlflow: str, run_id: str) -> str:
    """Where MLflow's page shows a run."""
    return f"{mlflow}/#/runs/{run_id}?workflowType=machine_learning"


def _run(line: Line, run: RunRecord | None, mlflow: str) -> list[str]:
    """A cell with the link to its run, where that is in this store."""
    run_id = line["run_id"]
    shown = run_id[:12]
    if run is not None:
        shown = Markup('<a href="{}">{}</a>').format(run_address(mlflow, run_id), shown)
    took = f"{run.seconds:.0f}" if run is not None and run.seconds is not None else "–"
    return [line["row"], line["seed"], shown, took]


def _cost(lines: Sequence[Line], runs: dict[str, RunRecord]) -> str:
    """What was run where and what it took; of runs that are not in this store, what the results file says."""
    here = [runs[line["run_id"]] for line in lines if line["run_id"] in runs]
    said = f"{len(lines)} cells"
    if here:
        hosts = Counter(run.tags.get("host", "unknown") for run in here)
        where = ", ".join(f"{count} on {host}" for host, count in hosts.most_common())
        seconds = sum(run.seconds or 0.0 for run in here)
        said += f"; {seconds / 60:.0f} minutes of {len(here)} runs in this store ({where})"
    if elsewhere := len(lines) - len(here):
        trained = sum(float(line.get("training_seconds") or 0.0) for line in lines)
        said += f"; {elsewhere} run elsewhere ({trained / 60:.0f} minutes of training in all, by the results file)"
    return said


def log_entries(name: str) -> list[str]:
    """The entries of `ablations/LOG.md` whose heading names the ablation, in the file's order."""
    path = paths.repository_root() / "ablations" / "LOG.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    starts = [found.start() for found in _ENTRY.finditer(text)]
    ends = [*starts, len(text)][1:]
    entries = [text[begin:end].strip() for begin, end in zip(starts, ends, strict=True)]
    return [entry for entry in entries if re.search(rf"\b{re.escape(name)}\b", entry.partition("\n")[0])]


def _rendered(markdown: str) -> Markup:
    """Markdown as HTML; what is HTML in it is shown as text, and wide tables scroll in a box of their own.

    Links to files of the repository become their names: the page is read elsewhere.
    """
    words = _COMMENT.sub("", _LINK.sub(r"\1", markdown))
    made = MarkdownIt("commonmark", {"html": False}).enable("table").render(words)
    return Markup(made.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>"))
