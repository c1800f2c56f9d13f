"""What the tests of recipes share: rows with planted faults, and recipe files over them."""

import json
from pathlib import Path
from typing import Any

from lab.data.parquet import read_parquet
from lab.data.recipes.recipe import Recipe, read_recipe
from lab.data.recipes.run import hash_all, hash_rows

HEAD = 'name = "toy"\nshard_rows = {shard_rows}\n'
SOURCE = '[[source]]\nname = "{name}"\nfrom = "files"\npath = "{path}"\nlicence = "MIT"\n'


def planted_rows(count: int) -> list[dict[str, Any]]:
    """Every 10th answer is empty, and every 7th row says what the one two before it says."""
    rows: list[dict[str, Any]] = []
    for number in range(count):
        row = {
            "id": f"r{number}",
            "prompt": f"how many are {number}",
            "answer": f"there are {number} " + "x " * (number % 5),
        }
        if number % 10 == 3:
            row["answer"] = " "
        if number % 7 == 6:
            row.update({name: rows[-2][name] for name in ("prompt", "answer")})
        rows.append(row)
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def hash_folder(folder: Path) -> str:
    """Of the rows as they are now; a card's `rows_hash` is what they were when they were built."""
    return hash_all(hash_rows(read_parquet([path])) for path in sorted(folder.glob("*.parquet")))


def toy_recipe(
    folder: Path, steps: str = "", *, paths: tuple[str, ...] = ("rows.jsonl",), shard_rows: int = 20, more: str = ""
) -> Recipe:
    text = HEAD.format(shard_rows=shard_rows) + more
    text += "".join(SOURCE.format(name=f"s{number}", path=path) for number, path in enumerate(paths)) + steps
    (folder / "toy.toml").write_text(text, encoding="utf-8")
    return read_recipe(folder / "toy.toml")


ALL_STEPS = """
[[step]]
use = "not_empty"
[[step]]
use = "exact_duplicates"
[[step]]
use = "length_between"
most = 6
[[step]]
use = "sample"
num_samples = 40
seed = 3
[[step]]
use = "pack"
budget = 120
"""
