"""The pages of the documentation that the repository's own files hold already, as Markdown by path.

Nothing is written to a folder: `docs/hooks.py` gives the pages to mkdocs. What reproduces is the page of `lab report`.
There is a page for every dict that names parts, data, training or measures: which dicts there are, and where the paper
has what, stands in components.toml; what an entry is comes from the docstring of the class or function behind it. An
entry that the file does not know is said to be not in the paper.
"""

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers import PreTrainedConfig

from lab import paths
from lab.errors import LabError
from lab.paper.report import TITLE, results
from lab.study.reach import our_modules

FILE = Path(__file__).with_name("components.toml")
NOT_IN_THE_PAPER = "not in the paper"
ROOMS = {
    "parts": "The model",
    "data": "Data",
    "training": "Training",
    "evaluation": "Measures",
    "standins": "Stand-ins",
}
_SIZES = (
    "d_model",
    "encoder_layers",
    "num_mel_bins",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "image_size",
    "patch_size",
    "vocab_size",
)


@dataclass(frozen=True, kw_only=True)
class Components:
    """A dict of components as components.toml declares it."""

    slug: str
    title: str
    module: str
    dict: str
    otherwise: str = NOT_IN_THE_PAPER
    places: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    words: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def room(self) -> str:
        """The room of `lab/` that holds the dict, or `standins`: a key of `ROOMS`."""
        package, room, *_ = self.module.split(".")
        return room if package == "lab" else package

    def entries(self) -> Mapping[str, Any]:
        """The dict itself.

        Raises:
            LabError: `places` or `words` have a name that the dict lacks.
        """
        entries: Mapping[str, Any] = getattr(import_module(self.module), self.dict)
        if lost := sorted({*self.places, *self.words} - set(entries)):
            raise LabError(
                f"{FILE.name} speaks of {', '.join(lost)} of {self.slug!r}, which {self.module}.{self.dict} does not "
                f"have; it has {', '.join(entries)}"
            )
        return entries

    def place(self, key: str, entry: Any) -> str:
        """Where the paper has an entry; of one that is another publication's, where that has it."""
        place = self.places.get(key) or _stated(entry) or self.otherwise
        published = isinstance(source := getattr(entry, "source", None), str) and callable(
            getattr(entry, "score", None)
        )
        return f"{place}; this is {source}" if published else place

    def what(self, key: str, entry: Any) -> str:
        """What an entry is, in a sentence."""
        return self.words.get(key) or in_words(entry)


@cache
def components() -> Mapping[str, Components]:
    """Every dict of components by the name of its page, in the order of the file."""
    tables = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return MappingProxyType({slug: Components(slug=slug, **table) for slug, table in tables.items()})


def documented(entry: Any) -> Any:
    """The class or function of the project that an entry is or holds first; None where it is data alone."""
    held: Sequence[Any] = (entry,)
    if isinstance(entry, tuple):
        held = entry
    elif dataclasses.is_dataclass(entry) and not isinstance(entry, type):
        held = tuple(vars(entry).values())
    # A partial has another class's docstring.
    found = (getattr(one, "func", one) for one in held if callable(one))
    ours = (one for one in found if getattr(one, "__module__", "").startswith(("lab.", "standins.")))
    return next((one for one in ours if one.__doc__ and "<" not in getattr(one, "__qualname__", "<")), None)


def in_words(entry: Any) -> str:
    """What an entry is: the first paragraph of its docstring, else its fields."""
    if made_by := documented(entry):
        return first_paragraph(made_by.__doc__)
    if hasattr(entry, "models") and hasattr(entry, "kind"):  # a benchmark
        return f"{entry.kind}; data: {entry.source}"
    if callable(entry) and isinstance(made := entry(), PreTrainedConfig):
        sizes = made.to_dict()
        return f"{type(made).__name__}; {_pairs({name: sizes[name] for name in _SIZES if sizes.get(name)})}"
    return fields(entry)


def fields(entry: Any) -> str:
    """Data in words, `field: value`; fields that are as by default are left out, unless all are."""
    if isinstance(entry, tuple):
        return "; ".join(map(fields, entry))
    if not dataclasses.is_dataclass(entry) or isinstance(entry, type):
        return str(entry)
    values = {one.name: getattr(entry, one.name) for one in dataclasses.fields(entry)}
    told = {
        name: value
        for name, value in values.items()
        if value not in (None, (), {}, "") and not callable(value) and name not in ("name", "paper")
    }
    default = {one.name: one.default for one in dataclasses.fields(entry)}
    own = {name: value for name, value in told.items() if value != default[name]}
    return _pairs(own or told) or "as by default"


def _pairs(values: Mapping[str, Any]) -> str:
    return "; ".join(f"{name.replace('_', ' ')}: {_value(value)}" for name, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        if all(each is None for each in value.values()):
            return f"{', '.join(value)} (numbers not found)"
        return ", ".join(f"{key} {_value(each)}" for key, each in value.items())
    if isinstance(value, tuple | list):
        return ", ".join(map(_value, value)) or "none"
    if value is None:
        return "not found"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _stated(entry: Any) -> str:
    """What an entry says itself of its place: a stage its section, a benchmark the cells it fills."""
    if isinstance(paper := getattr(entry, "paper", None), str):
        return paper
    if cells := getattr(entry, "cells", ()):
        tables = dict.fromkeys(cell.table.replace("_", " ", 1).replace("_", " and ") for cell in cells)
        return "; ".join(f"{table}, {', '.join(dict.fromkeys(c.place for c in cells))}" for table in tables)
    return ""


def first_paragraph(text: str | None) -> str:
    """The first paragraph on one line."""
    return " ".join((text or "").strip().split("\n\n")[0].split())


def escape(text: str) -> str:
    """Words as a cell of a Markdown table holds them."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


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
    """The modules that have a page of the reference, by dotted name."""
    return [name for name in our_modules() if "." in name and not name.rsplit(".", 1)[-1].startswith("_")]


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
