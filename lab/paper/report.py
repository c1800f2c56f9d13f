"""One HTML page of everything: studies with tables, figures, verdicts, runs and log, and the paper's tables.

It is made of what other commands wrote, and measures nothing. Styles and pictures stand in the page itself, so that it
opens from a file, prints, and asks no server for anything. The documentation has the same page under its own menu.
`results.html` has its layout, `report.html` the page around it.
"""

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from lab import paths
from lab.paper.figures import drawn, figure_stem
from lab.paper.ledger.cells import chosen, tables
from lab.paper.ledger.formats import FORMATS
from lab.paper.ledger.ours import grid
from lab.paper.ledger.pages import pages
from lab.paper.tables import CLAIM, table_path, written_claims
from lab.study.ablation import Ablation, ablation_files, load_ablation
from lab.study.results import Line, read_lines
from lab.study.store import RunRecord, read_runs

TITLE = "What of the Baichuan-Omni report reproduces, and what does not"
MLFLOW = "http://127.0.0.1:5000"

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


def write_report(path: Path | None = None, *, mlflow: str = MLFLOW) -> Path:
    """Write the page (to `mlruns/report.html` where None) and return where it is.

    `mlflow` is the address of MLflow's page, which runs are linked to; it is `make mlflow` that serves it.
    """
    written = f"{datetime.now(UTC):%Y-%m-%d %H:%M}"
    page = _TEMPLATES.get_template("report.html").render(title=TITLE, written=written, results=results(mlflow))
    return paths.write_whole(path or paths.mlruns_dir() / "report.html", page)


def results(mlflow: str = MLFLOW) -> Markup:
    """What stands below the title of the page, as HTML."""
    runs = {run.run_id: run for run in read_runs()}
    ablations = sorted(map(load_ablation, ablation_files()), key=_place_in_paper)
    page = _TEMPLATES.get_template("results.html").render(
        studies=[_study(ablation, runs, mlflow) for ablation in ablations],
        old=[one.path.name for one in drawn(ablation_files()) if one.state == "no longer matches"],
        tables=_rendered(FORMATS["markdown"](pages(chosen(())), grid())),
    )
    return Markup(page)


def _place_in_paper(ablation: Ablation) -> int:
    """Of the table that has its rows; the studies of section 3, which has no table, come before those of section 4."""
    order = list(tables())
    return min((order.index(entry.cell.partition(" / ")[0]) for entry in ablation.reported if entry.cell), default=-1)


def _study(ablation: Ablation, runs: Mapping[str, RunRecord], mlflow: str) -> dict[str, Any]:
    lines = read_lines(ablation, ablation.rungs[0].name)
    rungs = []
    for rung in (rung for rung in ablation.rungs if rung.recorded):
        table, stem = table_path(ablation, rung.name), figure_stem(ablation, rung.name)
        text = table.read_text(encoding="utf-8") if table.exists() else ""
        picture = stem.with_name(f"{stem.name}.svg")
        at_rung = {
            "rung": rung,
            "claims": written_claims(text),
            "picture": base64.b64encode(picture.read_bytes()).decode() if picture.exists() else "",
            "table": _rendered(_SAID_ABOVE.sub("", text)),
            "runs": [_run(line, runs.get(line["run_id"]), mlflow) for line in lines if line["rung"] == rung.name],
        }
        rungs.append(at_rung)
    log = [_rendered(re.sub("^## ", "#### ", entry, flags=re.MULTILINE)) for entry in log_entries(ablation.name)]
    return {"ablation": ablation, "rungs": rungs, "log": log}


def run_address(mlflow: str, run_id: str) -> str:
    """Where MLflow's page shows a run."""
    return f"{mlflow}/#/runs/{run_id}?workflowType=machine_learning"


def _run(line: Line, run: RunRecord | None, mlflow: str) -> list[str]:
    """A cell with the link to its run, the machine and the seconds that it took, where the run is in this store."""
    shown = line["run_id"][:12]
    if run is None:
        return [line["row"], line["seed"], shown, "–", "–"]
    link = Markup('<a href="{}">{}</a>').format(run_address(mlflow, run.run_id), shown)
    seconds = "–" if run.seconds is None else f"{run.seconds:.0f}"
    return [line["row"], line["seed"], link, run.tags.get("host", "unknown"), seconds]


def log_entries(name: str) -> list[str]:
    """The entries of `ablations/LOG.md` whose heading names the ablation, in the file's order."""
    path = paths.repository_root() / "ablations" / "LOG.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    entries = re.split(r"^(?=## \d{4}-\d\d-\d\d · )", text, flags=re.MULTILINE)[1:]
    return [entry.strip() for entry in entries if re.search(rf"\b{re.escape(name)}\b", entry.partition("\n")[0])]


def _rendered(markdown: str) -> Markup:
    """Markdown as HTML; what is HTML in it is shown as text, and wide tables scroll in a box of their own.

    Links to files of the repository become their names: the page is read elsewhere.
    """
    words = _COMMENT.sub("", _LINK.sub(r"\1", markdown))
    made = MarkdownIt("commonmark", {"html": False}).enable("table").render(words)
    return Markup(made.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>"))
