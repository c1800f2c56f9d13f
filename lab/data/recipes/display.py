"""What a build of a recipe shows: bars in a terminal, a line a stage elsewhere, and its summary at the end."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def showing() -> Iterator[Callable[[str, int, int], None]]:
    """A `Progress` for `lab.data.recipes.run.build`, shown as long as the context is open."""
    if not sys.stdout.isatty():
        yield _lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("shards"),
        TimeElapsedColumn(),
    )
    with Progress(*columns) as bars:
        known: dict[str, Any] = {}

        def progress(stage: str, number: int, total: int) -> None:
            if stage not in known:
                known[stage] = bars.add_task(stage, total=total)
            bars.update(known[stage], completed=number, total=total)

        yield progress


def _lines() -> Callable[[str, int, int], None]:
    begun: dict[str, float] = {}

    def progress(stage: str, number: int, total: int) -> None:
        begun.setdefault(stage, time.monotonic())
        if number == total:
            print(f"{stage}: {total} shards, {time.monotonic() - begun[stage]:.1f} s", flush=True)

    return progress


def print_summary(card: Mapping[str, Any]) -> None:
    """The sources and steps of a card as a table: rows in, rows out, what was dropped and why."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{card['name']}: {card['rows']:,} rows of {card['rows_in']:,}", title_justify="left")
    for title in ("stage", "in", "out", "dropped", "seconds"):
        table.add_column(title, justify="left" if title in ("stage", "dropped") else "right")
    for source in card["sources"]:
        left_out = _counts(source["skipped"])
        told = f"left out by the source: {left_out}" if left_out else ""
        table.add_row(f"source {source['name']} ({source['licence']})", "", f"{source['rows']:,}", told, "")
    for step in card["steps"]:
        seconds = "cached" if step["cached"] else f"{step['seconds']:.1f}"
        table.add_row(step["use"], f"{step['rows_in']:,}", f"{step['rows']:,}", _counts(step["dropped"]), seconds)
    console = Console()
    console.print(table, highlight=False)
    console.print(f"rows' SHA-256: {card['rows_hash']}", highlight=False, soft_wrap=True)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items() if count)


def print_plan(stages: Sequence[tuple[str, str]]) -> None:
    """What a build would do."""
    width = max(len(name) for name, _ in stages)
    for name, state in stages:
        print(f"{name:{width}}  {state}")
