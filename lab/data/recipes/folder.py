"""The folder of built data: shards and card, all of the new ones or all of the old, whatever kills the build.

`datasets.load_dataset(FOLDER)` and any other reader of Parquet opens it as it is.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from lab.data.recipes.card import CARD, PAGE, page
from lab.data.recipes.hashes import hash_all, hash_rows
from lab.data.recipes.shards import open_parquet, read_json, read_shard, write_json
from lab.errors import LabError


def check_free(folder: Path) -> None:
    """Refuse a folder that is no built data: it would be replaced.

    Raises:
        LabError: as said.
    """
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
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        check_free(folder)
        unfinished, former = (folder.with_name(f".{folder.name}.{end}") for end in ("unfinished", "former"))
        for rest in (unfinished, former):
            shutil.rmtree(rest, ignore_errors=True)
        unfinished.mkdir()
        for number, shard in enumerate(shards):
            target = unfinished / f"shard-{number:05d}.parquet"
            try:  # one copy on the disk serves cache and folder
                os.link(shard, target)
            except OSError:
                shutil.copyfile(shard, target)
        write_json(unfinished / CARD, card)
        (unfinished / PAGE).write_text(page(card), encoding="utf-8", newline="\n")
        if folder.exists():
            folder.rename(former)
        unfinished.rename(folder)
        shutil.rmtree(former, ignore_errors=True)


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a folder, after a look at whether its rows are all there.

    Raises:
        LabError: the folder has no card, a damaged shard, or other rows than the card says.
    """
    card: dict[str, Any] | None = read_json(folder / CARD) if folder.is_dir() else None
    if card is None:
        raise LabError(f"{folder} has no {CARD}; expected a folder that `lab data build` made")
    shards = sorted(folder.glob("*.parquet"))
    rows = sum(open_parquet(path).metadata.num_rows for path in shards)
    if rows != card["rows"]:
        raise LabError(
            f"{folder} has {rows} rows in {len(shards)} shards, its card says {card['rows']}; build it again"
        )
    return card


def hash_folder(folder: Path) -> str:
    """Hash the rows as they are now; the card's `rows_hash` is what they were when they were built.

    Raises:
        LabError: a damaged shard.
    """
    return hash_all(hash_rows(read_shard([path])) for path in sorted(folder.glob("*.parquet")))
