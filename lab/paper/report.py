"""One HTML page of everything: studies with tables, figures, verdicts, runs and log, and the paper's tables.

It is made of what other commands wrote, and measures nothing. Styles and pictures stand in the page itself, so that it
opens from a file, prints, and asks no server for anything. The documentation has the same page under its own menu.
"""

import base64
import html
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from markdown_it import MarkdownIt

from lab import paths
from lab.paper.figure_frame import figure_stem
from lab.paper.freshness import Drawn, drawn
from lab.paper.ledger.cells import chosen, tables
from lab.paper.ledger.evaluated import grid
from lab.paper.ledger.formats import FORMATS
from lab.paper.ledger.pages import pages
from lab.paper.tables import table_path
from lab.study.ablation import Ablation, Rung, ablation_files, load_ablation
from lab.study.results import Line, read_lines
from lab.study.store import RunRecord, read_runs

_ENTRY = re.compile(r"^## (?P<date>\d{4}-\d\d-\d\d) · (?P<about>.+)$", re.MULTILINE)
_CLAIM = re.compile(
    r"^\*\*(?P<title>[^*]+?)\.\*\* (?P<said>(?:Holds|Does not hold|Undecided|Not judged yet)\b.+)$", re.MULTILINE
)
_SAID_ABOVE = re.compile(
    r"^\*\*(?:Claim\.\*\* |[^*]+\.\*\* (?:Holds|Does not hold|Undecided|Not judged yet)\b).+$", re.MULTILINE
)


TITLE = "What of the Baichuan-Omni report reproduces, and what does not"
MLFLOW = "http://127.0.0.1:5000"


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
    path = report_path() if path is None else path
    path.parent.mkdir(parents=True, exist_ok=True)
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    written = f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by <code>lab report</code>."
    page = _PAGE.format(style=style, title=TITLE, written=written, body=results(mlflow))
    return paths.write_whole(path, page)


def results(mlflow: str = MLFLOW) -> str:
    """What stands below the title of the page, as HTML.

    Raises:
        LabError: a results file that was changed by hand.
    """
    ablations = sorted(map(load_ablation, ablation_files()), key=_place_in_paper)
    found = drawn()
    runs = {run.run_id: run for run in read_runs()}
    body = [
        *_head(ablations, found),
        *(part for ablation in ablations for part in _study(ablation, found, runs, mlflow)),
        '<h2 id="paper">The paper\'s tables</h2>',
        _rendered(FORMATS["markdown"](pages(chosen(())), grid())),
    ]
    return "\n".join(body)


def _place_in_paper(ablation: Ablation) -> int:
    """Of the table that has its rows; the studies of section 3, which has no table, come before those of section 4."""
    order = list(tables())
    return min((order.index(entry.cell.partition(" / ")[0]) for entry in ablation.reported if entry.cell), default=-1)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p class="soft">{written}</p>
{body}
</body>
</html>
"""


def _head(ablations: Sequence[Ablation], found: Sequence[Drawn]) -> Iterator[str]:
    yield (
        "<p>A claim holds where the interval of the difference lies on its side of zero; it does not hold where the "
        "interval lies on the other side, or rules out every effect large enough to matter; else it is undecided. A "
        "small rung tests a claim at its own scale and never counts as the paper's number.</p>"
    )
    links = [*((ablation.name, ablation.name) for ablation in ablations), ("paper", "the paper's tables")]
    yield "<nav><ul>" + "".join(f'<li><a href="#{name}">{said}</a></li>' for name, said in links) + "</ul></nav>"
    rows = []
    for ablation in ablations:
        begun = {line["rung"] for line in read_lines(ablation, ablation.rungs[0].name)}
        said: list[str] = []
        without: dict[str, list[str]] = {"no table yet": [], "not run": []}
        for rung in _recorded(ablation):
            claims = written_claims(table_path(ablation, rung.name))
            said += [
                f"{rung.name}: {html.escape(title)}: <b>{verdict.partition(':')[0].lower()}</b>"
                for title, verdict in claims
            ]
            if not claims:
                without["no table yet" if rung.name in begun else "not run"].append(rung.name)
        said += [f"{state}: {', '.join(rungs)}" for state, rungs in without.items() if rungs]
        rows.append([f'<a href="#{ablation.name}">{ablation.name}</a>', html.escape(ablation.claim), "<br>".join(said)])
    yield _table(["Study", "Claim", "What came out, at which rung"], rows)
    if old := [one for one in found if one.state == "no longer matches"]:
        names = ", ".join(html.escape(one.path.name) for one in old)
        yield f'<p class="verdict">No longer what their runs measured, draw them anew: {names}.</p>'


def _study(ablation: Ablation, found: Sequence[Drawn], runs: dict[str, RunRecord], mlflow: str) -> Iterator[str]:
    yield f'<h2 id="{ablation.name}">{ablation.name}</h2>'
    command = f"<code>lab reproduce {ablation.name}</code>"
    yield f'<p class="soft">{html.escape(ablation.paper)}; {command}</p><p>{html.escape(ablation.claim)}</p>'
    lines = read_lines(ablation, ablation.rungs[0].name)
    for rung in _recorded(ablation):
        own = [line for line in lines if line["rung"] == rung.name]
        yield f"<h3>Rung {html.escape(rung.name)}</h3>"
        if not own:
            yield f'<p class="soft">Not run: {html.escape(rung.description)}.</p>'
            continue
        table = table_path(ablation, rung.name)
        for title, said in written_claims(table):
            yield f'<p class="verdict"><b>{html.escape(title)}.</b> {html.escape(said)}</p>'
        stem = figure_stem(ablation, rung.name)
        picture = stem.with_name(f"{stem.name}.svg")
        if picture.exists():
            written = base64.b64encode(picture.read_bytes()).decode()
            described = f"Figure of {ablation.name} at rung {rung.name}: the numbers stand in the table beneath it"
            yield f'<figure><img alt="{described}" src="data:image/svg+xml;base64,{written}"></figure>'
        if table.exists():
            yield _rendered(_SAID_ABOVE.sub("", table.read_text(encoding="utf-8")))
        yield _cost(own, runs, mlflow)
    yield f"<details><summary>Rows ({len(ablation.rows)})</summary>{_rows(ablation)}</details>"
    if entries := log_entries(ablation.name):
        yield f"<details><summary>The log ({len(entries)})</summary>"
        yield from (_rendered(entry.replace("\n## ", "\n#### ").replace("## ", "#### ", 1)) for entry in entries)
        yield "</details>"


def _rows(ablation: Ablation) -> str:
    """Only what differs from the base is written."""
    head = ["Key", "Label", "Changes", "Run by default"]
    rows = []
    for row in ablation.rows:
        changes = ", ".join(f"{name} = {value!r}" for name, value in row.changes.items())
        rows.append([html.escape(row.key), html.escape(row.label), html.escape(changes), "yes" if row.main else "no"])
    return _table(head, rows)


def _recorded(ablation: Ablation) -> list[Rung]:
    return [rung for rung in ablation.rungs if rung.recorded]


def written_claims(path: Path) -> list[tuple[str, str]]:
    """Title and verdict (`Holds: ...`) of each claim, as a written table has them; none where there is no table."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [(found["title"], found["said"]) for found in _CLAIM.finditer(text)]


def run_address(mlflow: str, run_id: str) -> str:
    """Where MLflow's page shows a run."""
    return f"{mlflow}/#/runs/{run_id}?workflowType=machine_learning"


def _cost(lines: Sequence[Line], runs: dict[str, RunRecord], mlflow: str) -> str:
    """What was run where and what it took; of runs that are not in this store, what the results file says."""
    here = [runs[line["run_id"]] for line in lines if line["run_id"] in runs]
    seconds = sum(run.seconds or 0.0 for run in here)
    hosts = Counter(run.tags.get("host", "unknown") for run in here)
    said = f"{len(lines)} cells"
    if here:
        where = ", ".join(f"{count} on {html.escape(host)}" for host, count in hosts.most_common())
        said += f"; {seconds / 60:.0f} minutes of {len(here)} runs in this store ({where})"
    elsewhere = len(lines) - len(here)
    if elsewhere:
        trained = sum(float(line.get("training_seconds") or 0.0) for line in lines)
        said += f"; {elsewhere} run elsewhere ({trained / 60:.0f} minutes of training in all, by the results file)"
    rows = []
    for line in lines:
        run = runs.get(line["run_id"])
        identity = html.escape(line["run_id"][:12])
        if run is not None:
            link = run_address(mlflow, line["run_id"])
            identity = f'<a href="{html.escape(link)}">{identity}</a>'
        took = f"{run.seconds:.0f}" if run is not None and run.seconds is not None else "–"
        rows.append([html.escape(line["row"]), html.escape(line["seed"]), identity, took])
    inner = _table(["Row", "Seed", "Run", "Seconds"], rows)
    return f'<p class="soft">{said}.</p><details><summary>Runs</summary>{inner}</details>'


def log_entries(name: str) -> list[str]:
    """The entries of `ablations/LOG.md` whose heading names the ablation, in the file's order."""
    path = paths.repository_root() / "ablations" / "LOG.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    starts = [found.start() for found in _ENTRY.finditer(text)]
    ends = [*starts, len(text)][1:]
    entries = [text[begin:end].strip() for begin, end in zip(starts, ends, strict=True)]
    return [entry for entry in entries if re.search(rf"\b{re.escape(name)}\b", entry.partition("\n")[0])]


def _rendered(markdown: str) -> str:
    """Markdown as HTML; what is HTML in it is shown as text, and wide tables scroll in a box of their own."""
    made = (
        MarkdownIt("commonmark", {"html": False})
        .enable("table")
        .render(_without_comments(_without_local_links(markdown)))
    )
    return made.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")


def _without_local_links(text: str) -> str:
    """Links to files of the repository become their names: the page is read elsewhere."""

    def replaced(match: re.Match[str]) -> str:
        return match[0] if "://" in match[2] else match[1]

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)]+)\)", replaced, text)


def _without_comments(markdown: str) -> str:
    return re.sub(r"<!--.*?-->", "", markdown, flags=re.DOTALL)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Of cells that are HTML already."""
    top = "".join(f"<th>{html.escape(title)}</th>" for title in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
