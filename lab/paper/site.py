"""The pages of the documentation that the repository's own files hold already, as Markdown by path.

Nothing is written to a folder: `docs/hooks.py` gives the pages to mkdocs. What reproduces is the page of `lab report`.
One page has every dict that names parts, data, training or measures: which dicts there are, and where the paper has
what, stands in components.toml; what an entry is comes from the docstring of the class or function behind it. An entry
that the file does not know is said to be not in the paper.
"""

import dataclasses
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lab import paths
from lab.errors import LabError
from lab.paper.report import TITLE, results
from lab.study.reach import our_modules

FILE = Path(__file__).with_name("components.toml")
NOT_IN_THE_PAPER = "not in the paper"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Components:
    """A dict of components as components.toml declares it."""

    title: str
    module: str
    dict: str
    otherwise: str = NOT_IN_THE_PAPER
    places: Mapping[str, str] = dataclasses.field(default_factory=lambda: MappingProxyType({}))
    words: Mapping[str, str] = dataclasses.field(default_factory=lambda: MappingProxyType({}))

    def entries(self) -> Mapping[str, Any]:
        """The dict itself."""
        entries: Mapping[str, Any] = getattr(import_module(self.module), self.dict)
        if lost := sorted({*self.places, *self.words} - set(entries)):
            raise LabError(
                f"{FILE.name} speaks of {', '.join(lost)}, which {self.module}.{self.dict} does not have; it has "
                f"{', '.join(entries)}"
            )
        return entries

    def place(self, key: str, entry: Any) -> str:
        """Where the paper has an entry: what the file says, else the entry itself (a stage, a benchmark's cells)."""
        cells = getattr(entry, "cells", ())
        stated = dict.fromkeys(f"{cell.table.replace('_', ' ')}, {cell.place}" for cell in cells)
        return self.places.get(key) or getattr(entry, "paper", "") or "; ".join(stated) or self.otherwise

    def what(self, key: str, entry: Any) -> str:
        """What an entry is: words of the file, else the first paragraph of its docstring, else its fields."""
        if found := self.words.get(key) or _first_paragraph(documented(entry)):
            return found
        if hasattr(entry, "models") and hasattr(entry, "kind"):  # a benchmark
            return f"{entry.kind}; data: {entry.source}"
        return type(entry()).__name__ if callable(entry) else _fields(entry)


@cache
def components() -> Mapping[str, Components]:
    """Every dict of components by the anchor of its section, in the order of the file."""
    return {slug: Components(**table) for slug, table in tomllib.loads(FILE.read_text(encoding="utf-8")).items()}


def documented(entry: Any) -> Any:
    """The class or function of the project that an entry is or holds first; None where it is data alone."""
    held = entry if isinstance(entry, tuple) else (entry,)
    if dataclasses.is_dataclass(entry) and not isinstance(entry, type):
        held = tuple(vars(entry).values())
    # A partial has another class's docstring.
    found = (getattr(one, "func", one) for one in held if callable(one))
    ours = (one for one in found if getattr(one, "__module__", "").startswith(("lab.", "standins.")))
    return next((one for one in ours if one.__doc__), None)


def _first_paragraph(documented: Any) -> str:
    return " ".join((getattr(documented, "__doc__", "") or "").strip().split("\n\n")[0].split()) if documented else ""


def _fields(entry: Any) -> str:
    """Data in words: the fields that are not as by default."""
    if isinstance(entry, tuple):
        return ", ".join(map(_fields, entry))
    if isinstance(entry, Mapping):
        return ", ".join(f"{name} {_fields(value)}" for name, value in entry.items())
    if not dataclasses.is_dataclass(entry):
        return "not found" if entry is None else str(entry)
    own = [
        (one.name, getattr(entry, one.name)) for one in dataclasses.fields(entry) if one.name not in ("name", "paper")
    ]
    told = [(name, value) for name, value in own if value not in (None, (), {}, "", False) and not callable(value)]
    return "; ".join(f"{name.replace('_', ' ')}: {_fields(value)}" for name, value in told) or "as by default"


def generated_pages() -> dict[str, str]:
    """Every page by its path below the site."""
    return {
        "components.md": component_page(),
        "results.md": f"# {TITLE}\n\n<div>\n{results()}\n</div>\n",
        **{reference_path(name): f"# {name}\n\n::: {name}\n" for name in modules()},
    }


def figure_files() -> dict[str, Path]:
    """The drawn figures by their path below the site."""
    return {f"figures/{path.name}": path for path in sorted((paths.repository_root() / "figures").glob("*.svg"))}


def modules() -> list[str]:
    """The modules that have a page of the reference, by dotted name."""
    return [name for name in our_modules() if "." in name and not name.rsplit(".", 1)[-1].startswith("_")]


def reference_path(name: str) -> str:
    """Where the page of a module lies."""
    return f"reference/{name.replace('.', '/')}.md"


def component_page() -> str:
    """Every dict of components: where it is, what each entry is, and where the paper has that."""
    lines = [
        "# Components",
        "",
        "What can be chosen by name: adding one is one class or function, and its line in a dict.",
    ]
    for slug, page in components().items():
        where = f"`{page.dict}` in [`{page.module}`]({reference_path(page.module)})"
        lines += [
            "",
            f"## {page.title} {{#{slug}}}",
            "",
            f"{_first_paragraph(import_module(page.module))} {where}.",
            "",
        ]
        lines += ["| Name | What it is | Place in the paper |", "|---|---|---|"]
        for key, entry in page.entries().items():
            cells = (f"`{key}`", _escape(page.what(key, entry)), _escape(page.place(key, entry)))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    """Words as a cell of a Markdown table holds them."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
