"""The account of a recipe's step: no row leaves a shard uncounted, and some of those that leave can be read.

Section 3 of the paper. What `lab.data.filters.filtering` says of one shard is checked here, and added up over all.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from lab.data.filters.filtering import NUM_EXAMPLES, Filtered
from lab.errors import LabError

EXCERPT_CHARACTERS = 80

Account = dict[str, Any]


def check_balance(what: str, num_rows: int, rows: pa.Table, result: Filtered) -> None:
    """Refuse a step that loses rows of a shard, or that does not say why.

    Raises:
        LabError: rows in, rows that stay and rows dropped by reason do not agree.
    """
    report, kept = result.report, int(result.keep.sum())
    counts = (rows.num_rows, report.num_samples, len(result.keep), kept + report.num_dropped)
    if set(counts) != {num_rows}:
        raise LabError(
            f"{what} does not balance: {num_rows} rows were expected, "
            f"{rows.num_rows} went in, {report.num_samples} are in its report, {kept} stay and "
            f"{report.num_dropped} are "
            "dropped; every row has to stay or be counted as dropped"
        )


def examples(rows: pa.Table, result: Filtered) -> dict[str, list[dict[str, str]]]:
    """Of each reason the first rows, to be read in the card: their ids and how their texts begin."""
    wanted = {name for reason, names in result.report.examples.items() if reason != "kept" for name in names}
    texts = [field.name for field in rows.schema if pa.types.is_string(field.type) and field.name != "source"]
    found = {}
    places = [place for place, name in enumerate(rows["id"].to_pylist()) if name in wanted] if wanted else []
    for row in rows.select(texts).take(pa.array(places, pa.int64())).to_pylist():
        found[row["id"]] = {name: (text or "")[:EXCERPT_CHARACTERS] for name, text in row.items()}
    examples = result.report.examples.items()
    return {reason: [found[name] for name in names] for reason, names in examples if reason != "kept"}


def merged(accounts: Sequence[Account]) -> Account:
    """One account of all shards, in their order."""
    dropped: Counter[str] = Counter()
    examples: dict[str, list[Any]] = {}
    numbers: Counter[str] = Counter()
    for account in accounts:
        dropped.update(account["dropped"])
        numbers.update(account["numbers"])
        for reason, rows in account["examples"].items():
            shown = examples.setdefault(reason, [])
            shown += rows[: NUM_EXAMPLES - len(shown)]
    return {
        "rows_in": sum(account["rows_in"] for account in accounts),
        "rows": sum(account["rows"] for account in accounts),
        "dropped": dict(dropped),
        "examples": examples,
        "numbers": dict(numbers),
    }
