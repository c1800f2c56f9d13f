"""The pages of the documentation that the repository's own files hold already, as Markdown by path.

Nothing is written to a folder: `docs/hooks.py` gives the pages to mkdocs. Components come from the dicts that name
them, studies from their declarations, tables, figures and log, and what reproduces from the ledger.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from lab import paths
from lab.paper.freshness import ablation_names
from lab.paper.ledger.cells import chosen
from lab.paper.ledger.formats import markdown as ledger_markdown
from lab.paper.ledger.pages import pages as ledger_pages
from lab.study.ablation import Ablation, load_ablation

COMPONENTS = {
    "audio_projectors": ("Audio projectors", "lab.parts.audio_projectors", "AUDIO_PROJECTORS"),
    "visual_projectors": ("Visual projectors", "lab.parts.visual_projectors", "VISUAL_PROJECTORS"),
    "audio_encoders": ("Audio encoders", "lab.parts.audio_encoders", "AUDIO_ENCODERS"),
    "vision_encoders": ("Vision encoders", "lab.parts.vision_encoders", "VISION_ENCODERS"),
    "vision_towers": ("Vision encoders of our own", "lab.training.vision_towers", "VISION_TOWERS"),
    "language_models": ("Language models", "lab.parts.language_models", "LANGUAGE_MODELS"),
    "packed_attention": ("Attention over packs", "lab.parts.packed_attention", "PACKED_ATTENTION"),
    "stages": ("Stages of training", "lab.training.stages", "PAPER_STAGES"),
    "curricula": ("Curricula", "lab.training.curricula", "CURRICULA"),
    "recipe_steps": ("Steps of a recipe", "lab.data.recipes.steps", "STEPS"),
    "loss_filters": ("Loss filters", "lab.data.filters.loss_filters", "LOSS_FILTERS"),
    "quality_rules": ("Quality rules", "lab.data.filters.quality", "QUALITY_RULES"),
    "speech_filters": ("Filters of spoken prompts", "lab.evaluation.speech_agreement", "SPEECH_FILTERS"),
    "speech_corpora": ("Speech corpora", "lab.data.speech.corpora", "CORPORA"),
    "instruction_sources": ("Instructions", "lab.data.instructions.instructions", "INSTRUCTION_SOURCES"),
    "vision_forms": ("Forms of pictures and video", "lab.data.vision_forms", "FORMS"),
    "vision_sources": ("Pictures and video", "lab.training.vision_examples", "EXAMPLES"),
    "normalizers": ("Text normalisers", "lab.evaluation.normalizers", "NORMALIZERS"),
}
"""Title, module and dict of each page of components."""

_PAPER = re.compile(r"[^.]*\b(?:section|figure|table)s? \d[\w.]*[^.]*", re.IGNORECASE)


def generated_pages() -> dict[str, str]:
    """Every page by its path below the site."""
    return {
        **{f"components/{slug}.md": component_page(slug) for slug in COMPONENTS},
        **{f"ablations/{name}.md": ablation_page(load_ablation(name)) for name in ablation_names()},
        "log.md": without_local_links(log()),
        "reproduces.md": reproduces_page(),
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
    title, module_name, attribute = COMPONENTS[slug]
    module = import_module(module_name)
    entries: Mapping[str, Any] = getattr(module, attribute)
    lines = [
        f"# {title}",
        first_paragraph(module.__doc__),
        f"The {len(entries)} entries of `{attribute}` in [`{module_name}`](../{reference_path(module_name)}).",
        "",
        "| Name | What it is | Place in the paper | Defined by |",
        "|---|---|---|---|",
    ]
    of_all = in_paper(module.__doc__)
    for key, entry in entries.items():
        made_by = documented(entry)
        text = first_paragraph(made_by.__doc__) if made_by else fields(entry)
        where = stated(entry) or (in_paper(made_by.__doc__) if made_by else "") or of_all or "no section named"
        name = f"{made_by.__module__}.{made_by.__qualname__}" if made_by else ""
        defined = (f"`{name}`" if "._" in name else f"[`{made_by.__name__}`][{name}]") if made_by else f"`{attribute}`"
        lines.append(f"| `{key}` | {escape(text)} | {escape(where)} | {defined} |")
    return "\n".join(lines[:2]) + "\n\n" + "\n".join(lines[2:]) + "\n"


def escape(text: str) -> str:
    """Words as a cell of a Markdown table holds them."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def documented(entry: Any) -> Any:
    """The class or function that an entry is, or the first one that it holds; None where it is data alone."""
    held = vars(entry).values() if dataclasses.is_dataclass(entry) and not isinstance(entry, type) else (entry,)
    if isinstance(entry, tuple):
        held = entry
    # A partial has another class's docstring.
    found = (getattr(one, "func", one) for one in held if callable(one))
    return next(
        (one for one in found if one.__doc__ and hasattr(one, "__qualname__") and "<" not in one.__qualname__), None
    )


def fields(entry: Any) -> str:
    """Data in words: field = value."""
    if dataclasses.is_dataclass(entry) and not isinstance(entry, type):
        values = ((field.name, getattr(entry, field.name)) for field in dataclasses.fields(entry))
        shown = (f"{name} = {value}" for name, value in values if value is not None and not callable(value))
        return ", ".join(shown)
    return "; ".join(map(fields, entry)) if isinstance(entry, tuple) else str(entry)


def stated(entry: Any) -> str:
    """What an entry says itself of its place in the paper or of its source."""
    return next((value for name in ("paper", "source") if isinstance(value := getattr(entry, name, None), str)), "")


def first_paragraph(text: str | None) -> str:
    """The first paragraph on one line."""
    return " ".join((text or "").strip().split("\n\n")[0].split())


def in_paper(text: str | None) -> str:
    """The first words of a docstring that name a section, figure or table, without the sentence's dressing."""
    found = _PAPER.search(" ".join((text or "").split()))
    if not found:
        return ""
    place = re.search(
        r"(?:section|figure|table)s? \d+(?:\.\d+)*(?: and (?:figure |table |section )?\d+(?:\.\d+)*)?", found[0], re.I
    )
    return place[0].lower() if place else ""


def ablation_page(ablation: Ablation) -> str:
    """One study: claim, table, verdicts, figure, rows, rungs, and its entries in the log."""
    root = paths.repository_root()
    name = ablation.name
    parts = [
        f"# {name}",
        f"{ablation.paper}.",
        f"**Claim.** {ablation.claim}",
        f"    lab reproduce {name}",
        "## Results",
    ]
    tables = sorted((root / "ablations" / "results").glob(f"{name}.*.md"))
    parts += [re.sub(r"<!--.*?-->\n?", "", table.read_text(encoding="utf-8")).strip() for table in tables]
    if not tables:
        parts.append("Declared and tested, not run yet.")
    elif (root / "figures" / f"{name}.svg").exists():
        parts.append(f"![{name}](../figures/{name}.svg)")
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
    if entries := list(log_entries(name)):
        parts += ["## Log", *(without_local_links(entry) for entry in entries)]
    return "\n\n".join(parts) + "\n"


def log() -> str:
    """What people wrote of the studies."""
    return (paths.repository_root() / "ablations" / "LOG.md").read_text(encoding="utf-8")


def log_entries(name: str) -> Iterator[str]:
    """The entries of a study, one level deeper than in the log."""
    for entry in re.split(r"^(?=## )", log(), flags=re.MULTILINE)[1:]:
        if re.search(rf"\b{re.escape(name)}\b(?!_)", entry.splitlines()[0]):
            yield "#" + entry.strip()


def reproduces_page() -> str:
    """The studies' written verdicts, then every cell of the paper's tables."""
    parts = [
        "# What reproduces and what does not",
        "Written from `ablations/results` and by `lab paper`. A small rung tests a claim at its own scale; it never "
        "counts as the paper's number.",
        "## The claims of the studies",
    ]
    for name in ablation_names():
        parts.append(f"### [{name}](ablations/{name}.md)")
        written = sorted((paths.repository_root() / "ablations" / "results").glob(f"{name}.*.md"))
        parts += [verdicts(path) for path in written] or ["Declared and tested, not run yet."]
    parts += ["## The paper's tables, cell by cell", ledger_markdown(ledger_pages(chosen(())))]
    return "\n\n".join(parts) + "\n"


def verdicts(path: Path) -> str:
    """The claim of a written table and the verdicts below it."""
    text = path.read_text(encoding="utf-8")
    lines = text[text.index("**Claim.**") :].splitlines()
    rung = path.name.split(".")[1]
    return "\n\n".join([f"Rung `{rung}`.", *(line for line in lines if line.startswith("**"))])


def without_local_links(text: str) -> str:
    """Links to files of the repository become their names; the site holds other pages."""

    def replaced(match: re.Match[str]) -> str:
        return match[0] if "://" in match[2] else match[1]

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)]+)\)", replaced, text)
