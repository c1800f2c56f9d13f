"""A run's curve, whether it still runs (its spool) or is done (the store), without importing mlflow."""

import json
from contextlib import suppress

from lab.study import store


def read_curve(run_id: str, name: str) -> list[tuple[int, float]]:
    """The points (step, value) of a metric by rising step; none where the run has not logged it."""
    spooled: dict[int, float] = {}
    with suppress(FileNotFoundError), (store.spool_dir(run_id) / "metrics.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            with suppress(ValueError):  # a line that is being written
                metric, step, value, _ = json.loads(line)
                if metric == name:
                    spooled[step] = value
    return sorted(spooled.items()) if spooled else store.read_metric(run_id, name)
