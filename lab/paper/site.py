"""The pages of the documentation that the repository's own files hold already, as Markdown by path.

Nothing is written to a folder: `docs/hooks.py` gives the pages to mkdocs. Components come from the dicts that name
them, studies from their declarations, tables, figures and log, and what reproduces from the ledger.
"""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from lab import paths
from lab.paper.components import components, documented, escape, first_paragraph
from lab.paper.freshness import ablation_names
from lab.paper.ledger.cells import chosen
from lab.paper.ledger.evaluated import grid
from lab.paper.ledger.formats import markdown as ledger_markdown
from lab.paper.ledger.pages import pages as ledger_pages
from lab.paper.report import log_entries, written_claims
from lab.study.ablation import Ablation, load_ablation

PACKAGES = ("lab", "standins")

NOT_RUN = "Declared and tested, not run yet."


def generated_pages() -> dict[str, str]:
    """Every page by its path below the site."""
    return {
        **{f"components/{slug}.md": component_page(slug) for slug in components()},
        **{f"ablations/{name}.md": ablation_page(load_ablation(name)) for name in ablation_names()},
        "log.md": without_local_links(log()),
        "reproduces.md": reproduces_page(),
        **{reference_path(name): f"# {name}\n\n::: {name}\n" for name in modules()},
    }


def figure_files() -> dict[str, Path]:
    """The drawn figures by their path below the site."""
    return {f"figures/{path.name}": path for path in sorted((paths.repository_root() / "figures").glob("*.svg"))}


def modules() -> list[str]:
    """All modules of the library and of what stands in for the hub, by dotted name."""
    root = paths.repository_root()
    files = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    names = [".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for path in files]
    return [name for name in names if name not in PACKAGES and not name.rsplit(".", 1)[-1].startswith("_")]


def reference_path(name: str) -> str:
    """Where the page of a module lies."""
    return f"reference/{name.replace('.', '/')}.md"


def component_page(slug: str) -> str:
    """A dict of components: what each is, where the paper has it, and where it is defined."""
    page = components()[slug]
    entries = page.entries()
    number = "One entry" if len(entries) == 1 else f"The {len(entries)} entries"
    lines = [
        f"# {page.title}",
        "",
        first_paragraph(import_module(page.module).__doc__),
        "",
        f"{number} of `{page.dict}` in [`{page.module}`](../{reference_path(page.module)}).",
        "",
        "| Name | What it is | Place in the paper | Defined by |",
        "|---|---|---|---|",
    ]
    for key, entry in entries.items():
        made_by = documented(entry)
        name = f"{made_by.__module__}.{made_by.__qualname__}" if made_by else ""
        public = made_by and "._" not in name
        defined = f"[`{made_by.__name__}`][{name}]" if public else f"`{made_by.__name__ if made_by else page.dict}`"
        lines.append(f"| `{key}` | {escape(page.what(key, entry))} | {escape(page.place(key, entry))} | {defined} |")
    return "\n".join(lines) + "\n"


def ablation_page(ablation: Ablation) -> str:
    """One study: claim, table, verdicts, figure, rows, rungs, and its entries in the log."""
    root = paths.repository_root()
    name = ablation.name
    parts = [
        f"# {name}",
        f"{ablation.paper}.",
        f"**Claim.** {ablation.claim}",
        f"    lab reproduce {name}",
        f"Declared in `ablations/{name}.py`; one cell is one run of `notebooks/{ablation.notebook}.ipynb`, "
        f"its line is in `ablations/results/{name}.csv`.",
        "## Results",
    ]
    tables = written_tables(name)
    parts += [re.sub(r"<!--.*?-->\n?", "", table.read_text(encoding="utf-8")).strip() for table in tables]
    if not tables:
        parts.append(NOT_RUN)
    elif (root / "figures" / f"{name}.svg").exists():
        parts.append(f"[![{name}](../figures/{name}.svg)](../figures/{name}.svg)")
    changed = [(row, ", ".join(f"{key} = {value!r}" for key, value in row.changes.items())) for row in ablation.rows]
    parts.append("## Rows\n\nOnly what differs from the base is written.")
    parts.append(
        "| Key | Label | Changes | Run by default |\n|---|---|---|---|\n"
        + "\n".join(
            f"| `{row.key}` | {escape(row.label)} | {escape(changes)} | {'yes' if row.main else 'no'} |"
            for row, changes in changed
        )
    )
    parts.append("## Rungs")
    parts.append("\n".join(f"- `{rung.name}`: {rung.description}" for rung in ablation.rungs))
    if entries := log_entries(name):
        # One level deeper than in the log.
        parts += ["## Log", *(without_local_links(f"#{entry}") for entry in entries)]
    return "\n\n".join(parts) + "\n"


def log() -> str:
    """What people wrote of the studies."""
    return (paths.repository_root() / "ablations" / "LOG.md").read_text(encoding="utf-8")


def reproduces_page() -> str:
    """The studies' written verdicts, first in a table, then in full, then every cell of the paper's tables."""
    names = ablation_names()
    parts = [
        "# What reproduces and what does not",
        "Written from `ablations/results` and by `lab paper`. A small rung tests a claim at its own scale; it never "
        "counts as the paper's number.",
        "Holds: the interval of the difference lies on the claim's side of zero. Does not hold: it lies on the other "
        "side, or rules out every effect large enough to matter. Undecided: neither.",
        "| Study | What is compared | Verdict (rung) |\n|---|---|---|\n"
        + "\n".join(line for name in names for line in verdict_rows(load_ablation(name))),
        "## The claims of the studies",
    ]
    for name in names:
        parts.append(f"### [{name}](ablations/{name}.md)")
        parts += [verdicts(path) for path in written_tables(name)] or [NOT_RUN]
    parts += ["## The paper's tables, cell by cell", ledger_markdown(ledger_pages(chosen(())), grid())]
    return "\n\n".join(parts) + "\n"


def written_tables(name: str) -> list[Path]:
    """The tables of a study that `lab tables` wrote, one a rung."""
    return sorted((paths.repository_root() / "ablations" / "results").glob(f"{name}.*.md"))


def verdict_rows(ablation: Ablation) -> Iterator[str]:
    """A line a verdict: `holds`, `does not hold` or `undecided`, as the written table begins its sentence."""
    place = ablation.paper.partition(", ")[2] or ablation.paper
    first = f"[{ablation.name}](ablations/{ablation.name}.md), {place}"
    for path in written_tables(ablation.name):
        for title, said in written_claims(path):
            yield f"| {first} | {escape(title)} | {said.partition(':')[0].lower()} (`{rung_of(path)}`) |"
            first = ""
    if not written_tables(ablation.name):
        yield f"| {first} | | not run yet |"


def rung_of(path: Path) -> str:
    """NAME.RUNG.md -> RUNG."""
    return path.name.split(".")[1]


def verdicts(path: Path) -> str:
    """The claim of a written table and the verdicts below it."""
    text = path.read_text(encoding="utf-8")
    lines = text[text.index("**Claim.**") :].splitlines()
    return "\n\n".join([f"Rung `{rung_of(path)}`.", *(line for line in lines if line.startswith("**"))])


def without_local_links(text: str) -> str:
    """Links to files of the repository become their names; the site holds other pages."""

    def replaced(match: re.Match[str]) -> str:
        return match[0] if "://" in match[2] else match[1]

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)]+)\)", replaced, text)
