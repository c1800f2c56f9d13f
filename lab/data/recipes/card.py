"""The card of built data: what went in, what each step dropped and why, licences, hashes, versions.

Section 3 of the paper says of its data hardly more than their number; a card is what a study of a filter cites instead.
`card.json` has everything, `README.md` the same to be read (a folder of the hub shows it).
"""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from lab.data.recipes.cache import Stage
from lab.data.recipes.recipe import Recipe
from lab.errors import LabError

CARD = "card.json"
PAGE = "README.md"
PACKAGES = ("omni-lab", "pyarrow", "numpy", "datasets", "datasketch", "ray")


def package_versions() -> dict[str, str]:
    """Of Python and of the packages that rows pass through; those that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def make_card(
    recipe: Recipe, stages: Sequence[Stage], versions: Mapping[str, list[str]], engine: str
) -> dict[str, Any]:
    """The card of a recipe's stages, the first of which is the reading; `versions` has one for each part of a source.

    Raises:
        LabError: the rows that went in are not those that came out and those that were dropped.
    """
    read, *steps = stages
    dropped = sum(sum(stage.account["dropped"].values()) for stage in steps)
    rows_in, rows = read.account["rows"], stages[-1].account["rows"]
    if rows_in != rows + dropped:
        raise LabError(f"recipe {recipe.name!r} does not balance: {rows_in} rows in, {rows} out, {dropped} dropped")
    return {
        "name": recipe.name,
        "description": recipe.description,
        "rows_in": rows_in,
        "rows": rows,
        "dropped": dropped,
        "rows_hash": stages[-1].hash,
        "sources": [
            {
                "name": source.name,
                "kind": type(source).__name__.lower(),
                "licence": source.told_licence(),
                **read.account["by_source"][source.name],
                "versions": versions[source.name],
            }
            for source in recipe.sources
        ],
        "read": _stage(read),
        "steps": [
            {"use": step.use, "version": step.version, "parameters": step.parameters(), **_stage(stage)}
            for step, stage in zip(recipe.steps, steps, strict=True)
        ],
        "shard_rows": recipe.shard_rows,
        "engine": engine,
        "packages": package_versions(),
    }


def _stage(stage: Stage) -> dict[str, Any]:
    names = ("rows_in", "rows", "dropped", "examples", "numbers", "seconds", "cached")
    return {**{name: stage.account[name] for name in names}, "rows_hash": stage.hash}


def page(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    lines = [f"# {card['name']}", "", *([card["description"], ""] if card["description"] else [])]
    lines += [
        f"{card['rows']:,} rows of {card['rows_in']:,}; {card['dropped']:,} dropped. SHA-256 of the rows: "
        f"`{card['rows_hash']}`.",
        "",
        "| source | rows | licence | version or hash |",
        "|---|---|---|---|",
    ]
    for source in card["sources"]:
        shown = "; ".join(source["versions"][:3]) + (" ..." if len(source["versions"]) > 3 else "")
        lines.append(f"| {source['name']} ({source['kind']}) | {source['rows']:,} | {source['licence']} | {shown} |")
    for source in card["sources"]:
        if source["skipped"]:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in source["skipped"].items())
            lines += ["", f"Left out by the source {source['name']} itself: {reasons}."]
    lines += ["", "| step | parameters | in | out | dropped |", "|---|---|---|---|---|"]
    for step in card["steps"]:
        settings = ", ".join(f"{name} = {_shown(value)}" for name, value in step["parameters"].items())
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in step["dropped"].items() if count) or "none"
        lines.append(f"| {step['use']} | {settings} | {step['rows_in']:,} | {step['rows']:,} | {reasons} |")
    for number, step in enumerate(card["steps"], 1):
        if step["numbers"]:
            numbers = ", ".join(f"{name} {value:,}" for name, value in step["numbers"].items())
            lines += ["", f"Step {number} ({step['use']}): {numbers}."]
    for number, step in enumerate(card["steps"], 1):
        for reason, rows in step["examples"].items():
            lines += ["", f"Dropped by step {number} ({step['use']}), {reason}:", ""]
            lines += [f"- {_row(row)}" for row in rows]
    lines += ["", "Made with " + ", ".join(f"{name} {number}" for name, number in card["packages"].items()) + "."]
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _row(row: Mapping[str, str]) -> str:
    texts = " / ".join(" ".join(text.split()) or "(empty)" for name, text in row.items() if name != "id")
    return f"`{row['id']}`: {texts}"
