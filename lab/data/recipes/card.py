"""The folder of built data: its rows as Parquet, and the card that says where they come from.

A card has what went in, what each step dropped and why, licences, hashes, versions: what a study of a filter cites.
`card.json` has everything, `README.md` the same to be read (a folder of the hub shows it), and
`datasets.load_dataset(FOLDER)` opens the rows. The folder is all new or all old, whatever kills the build.
"""

import platform
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from filelock import FileLock

from lab.data.parquet import read_parquet
from lab.data.recipes.engines import read_json, write_json
from lab.data.recipes.recipe import Recipe
from lab.errors import LabError
from lab.paths import scratch_folder, write_whole

CARD = "card.json"
PAGE = "README.md"
PACKAGES = ("omni-lab", "pyarrow", "numpy", "datasets", "datasketch", "faiss-cpu", "ray")


def package_versions() -> dict[str, str]:
    """Of Python and of the packages that rows pass through; those that are not installed are left out."""
    installed = {found.name: found.version for found in distributions()}
    return {"python": platform.python_version(), **{name: installed[name] for name in PACKAGES if name in installed}}


def make_card(
    recipe: Recipe, accounts: Sequence[Mapping[str, Any]], versions: Mapping[str, list[str]], engine: str
) -> dict[str, Any]:
    """The card of a recipe from the accounts of its reading and of its steps; `versions` are of the sources' parts."""
    read, *steps = accounts
    sources = [
        {
            "name": source.name,
            "kind": type(source).__name__.lower(),
            "licence": source.licence,
            **read["by_source"][source.name],
            "versions": versions[source.name],
        }
        for source in recipe.sources
    ]
    return {
        "name": recipe.name,
        "description": recipe.description,
        "rows_in": read["rows"],
        "rows": accounts[-1]["rows"],
        "dropped": sum(sum(account["dropped"].values()) for account in steps),
        "rows_hash": accounts[-1]["rows_hash"],
        "sources": sources,
        "read": {name: told for name, told in read.items() if name != "by_source"},
        "steps": [
            {"use": step.use, "version": step.version, "parameters": step.parameters(), **account}
            for step, account in zip(recipe.steps, steps, strict=True)
        ],
        "shard_rows": recipe.shard_rows,
        "engine": engine,
        "packages": package_versions(),
    }


def page(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    lines = [f"# {card['name']}", "", *([card["description"], ""] if card["description"] else [])]
    lines += [
        f"{card['rows']:,} rows of {card['rows_in']:,}; {card['dropped']:,} dropped. SHA-256 of the rows: "
        f"`{card['rows_hash']}`.",
        "",
        "| source | rows | licence | version or hash | left out by the source itself |",
        "|---|---|---|---|---|",
    ]
    for source in card["sources"]:
        shown = "; ".join(source["versions"][:3]) + (" ..." if len(source["versions"]) > 3 else "")
        lines.append(
            f"| {source['name']} ({source['kind']}) | {source['rows']:,} | {source['licence']} | {shown} | "
            f"{_counts(source['skipped'])} |"
        )
    details: list[str] = []
    for source in card["sources"]:
        for reason, names in source["left_out"].items():
            details += ["", f"Left out by {source['name']}, {reason}:", "", *(f"- `{name}`" for name in names)]
    lines += ["", "| step | parameters | in | out | dropped |", "|---|---|---|---|---|"]
    for number, step in enumerate(card["steps"], 1):
        settings = ", ".join(f"{name} = {_shown(value)}" for name, value in step["parameters"].items())
        lines.append(
            f"| {step['use']} | {settings} | {step['rows_in']:,} | {step['rows']:,} | {_counts(step['dropped'])} |"
        )
        if step["numbers"]:
            details += ["", f"Step {number} ({step['use']}): {_counts(step['numbers'])}."]
        for reason, rows in step["examples"].items():
            details += ["", f"Dropped by step {number} ({step['use']}), {reason}:", "", *map(_row, rows)]
    made_with = ", ".join(f"{name} {number}" for name, number in card["packages"].items())
    return "\n".join([*lines, *details, "", f"Made with {made_with}."]) + "\n"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items() if count) or "none"


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _row(row: Mapping[str, str]) -> str:
    texts = " / ".join(" ".join(row[name].split()) or "(empty)" for name in ("prompt", "answer"))
    return f"- `{row['id']}`: {texts}"


def check_free(folder: Path) -> None:
    """Raise a LabError for a folder that is no built data: it would be replaced."""
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / CARD).exists())):
        raise LabError(f"{folder} is there and is no folder of a recipe; name another with --out, or remove it")


def publish(folder: Path, shards: Sequence[Path], card: Mapping[str, Any]) -> None:
    """Put shards and card in place of those that are there.

    Raises:
        LabError: the folder holds something else.
        OSError: it cannot be written; what was there stays.
    """
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        FileLock(folder.with_name(f".{folder.name}.lock")),
        scratch_folder(folder) as scratch,
    ):
        check_free(folder)
        made = Path(scratch, "made")
        made.mkdir()
        for number, shard in enumerate(shards):
            shutil.copyfile(shard, made / f"shard-{number:05d}.parquet")
        write_json(made / CARD, card)
        write_whole(made / PAGE, page(card))
        if folder.exists():
            folder.rename(Path(scratch, "former"))
        made.rename(folder)


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a folder, after a look at whether its rows are all there.

    Raises:
        LabError: the folder has no card, a damaged shard, or other rows than the card says.
    """
    card: dict[str, Any] | None = read_json(folder / CARD) if folder.is_dir() else None
    if card is None:
        raise LabError(f"{folder} has no {CARD}; expected a folder that `lab data build` made")
    shards = sorted(folder.glob("*.parquet"))
    rows = len(read_parquet(shards, ["id"])) if shards else 0
    if rows != card["rows"]:
        raise LabError(
            f"{folder} has {rows} rows in {len(shards)} shards, its card says {card['rows']}; build it again"
        )
    return card
