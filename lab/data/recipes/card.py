"""The folder of built data: its rows as Parquet, their media, and the card that says where they come from.

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

import pyarrow as pa
from filelock import FileLock

from lab.data.filters.filtering import LeftOut
from lab.data.instructions.instructions import drawn_evenly, is_inside, media_of, samples_of, split_of_group
from lab.data.parquet import read_parquet
from lab.data.recipes.engines import read_json, write_json
from lab.data.recipes.recipe import Recipe
from lab.data.sample import Sample, media_file
from lab.data.sources import OuterSource
from lab.data.splits import Split
from lab.errors import LabError
from lab.paths import cache_dir, mlruns_dir, scratch_folder, write_whole

CARD = "card.json"
PAGE = "README.md"
# Else `datasets` takes a folder with many pictures for one of pictures.
_DATA_FILES = '---\nconfigs:\n- config_name: default\n  data_files: "*.parquet"\n---\n'
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
            for content in _own_media(read_parquet([shard], ["messages"])):
                if not (made / content).exists():
                    (made / content).parent.mkdir(exist_ok=True)
                    kept = media_file(cache_dir() / content)
                    (shutil.copytree if kept.is_dir() else shutil.copyfile)(kept, made / content)
        write_json(made / CARD, card)
        write_whole(made / PAGE, _DATA_FILES + page(card))
        if folder.exists():
            folder.rename(Path(scratch, "former"))
        made.rename(folder)


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a folder, after a look at whether its rows and their media are all there.

    Raises:
        LabError: the folder has no card, a damaged shard, other rows than the card says, or no longer all media.
    """
    card: dict[str, Any] | None = read_json(folder / CARD) if folder.is_dir() else None
    if card is None:
        raise LabError(f"{folder} has no {CARD}; expected a folder that `lab data build` made")
    shards = sorted(folder.glob("*.parquet"))
    table = read_parquet(shards, ["id", "messages"]) if shards else pa.table({})
    if table.num_rows != card["rows"]:
        raise LabError(
            f"{folder} has {table.num_rows} rows in {len(shards)} shards, its card says {card['rows']}; build it again"
        )
    if gone := [content for content in _own_media(table) if not (folder / content).exists()]:
        raise LabError(f"{folder / gone[0]} is not there, as are {len(gone) - 1} other media of rows; build it again")
    return card


def _own_media(rows: pa.Table) -> list[str]:
    """The media that lie in the folder of these rows, each once."""
    return sorted({content for found in media_of(rows) for content in found if is_inside(content)})


def _folder(name: str) -> Path:
    """Of a recipe's name or of a folder."""
    built = mlruns_dir() / "data" / name
    return built if built.is_dir() else Path(name)


def _of_side(split: Split, count: int, name: str) -> tuple[list[Sample], LeftOut]:
    """Rows of that side, or whose group is where their source has no sides; drawn evenly from all."""
    folder, card = _folder(name), read_card(_folder(name))
    rows = read_parquet(sorted(folder.glob("*.parquet"))).to_pylist()
    found = [row for row in rows if (row.get("split") or split_of_group(row["group"])) == split]
    if not found:
        raise LabError(f"{folder} has {card['rows']} rows and none of the side {split!r}; name it in a source's split")
    return list(samples_of(drawn_evenly(found, count), folder)), LeftOut()


def _check(name: str) -> None:
    read_card(_folder(name))


BUILT = OuterSource(
    read=_of_side,
    check=_check,
    state=lambda name: read_card(_folder(name))["rows_hash"],
    any_size=True,
)
"""A source of samples of what was built; what stands behind its name is a recipe's name or a folder."""
