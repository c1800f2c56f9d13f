"""The pages of the documentation that the repository's own files hold already, as Markdown by path.

Nothing is written to a folder: `docs/hooks.py` gives the pages to mkdocs. Components come from the dicts that name
them, what reproduces is the page of `lab report`.
"""

from importlib import import_module
from pathlib import Path

from lab import paths
from lab.paper.components import components, documented, escape, first_paragraph
from lab.paper.report import TITLE, results


def generated_pages() -> dict[str, str]:
    """Every page by its path below the site."""
    return {
        **{f"components/{slug}.md": component_page(slug) for slug in components()},
        "results.md": f"# {TITLE}\n\n<div>\n{results()}\n</div>\n",
        **{reference_path(name): f"# {name}\n\n::: {name}\n" for name in modules()},
    }


def figure_files() -> dict[str, Path]:
    """The drawn figures by their path below the site."""
    return {f"figures/{path.name}": path for path in sorted((paths.repository_root() / "figures").glob("*.svg"))}


def modules() -> list[str]:
    """All modules of the library, by dotted name."""
    root = paths.repository_root()
    files = sorted((root / "lab").rglob("*.py"))
    names = [".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for path in files]
    return [name for name in names if name != "lab" and not name.rsplit(".", 1)[-1].startswith("_")]


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
