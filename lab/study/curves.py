"""A run's curve, whether it trains, still runs (both its spool) or is done (the store), without importing mlflow."""

import json
from contextlib import suppress

from lab.study import live, store


def read_curve(run_id: str, name: str) -> list[tuple[int, float]]:
    """The points (step, value) of a metric by rising step; none where the run has not logged it."""
    spooled: dict[int, float] = {}
    with suppress(FileNotFoundError), (store.spool_dir(run_id) / "metrics.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            with suppress(ValueError):  # a line that is being written
                metric, step, value, _ = json.loads(line)
                if metric == name:
                    spooled[step] = value
    if spooled:
        return sorted(spooled.items())
    training = live.read_live(store.spool_dir(run_id)) if name == "loss" else []
    return training or store.read_metric(run_id, name)
