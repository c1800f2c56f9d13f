"""Rows of one's own: tried in a notebook, kept beside the ablation in `ablations/NAME.rows.toml`, run like any other.

    [threshold_of_mine]
    label = "Gaussian, k = 1.2"
    changes = { loss_filter = "gaussian", k = 1.2 }

They are no main rows: `lab reproduce NAME --rows threshold_of_mine` runs them, or `--rows all`.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab import paths
from lab.errors import LabError
from lab.study.ablation import Ablation, Row, own_rows_file

_SCALARS = (str, bool, int, float)


def save_own_row(ablation: Ablation, key: str, label: str, changes: Mapping[str, Any]) -> Path:
    """Write one more row into the ablation's file; nothing that stands there is changed.

    Args:
        ablation: as `load_ablation` gives it, its own rows included.
        key: a new one.
        label: what tables call it.
        changes: what differs from `base`; texts, numbers, true or false.

    Raises:
        LabError: an empty label, a value that TOML has no plain word for, or what `Ablation` refuses.
    """
    if not label.strip():
        raise LabError(f"row {key!r} has no label; expected what a table is to call it")
    for parameter, value in changes.items():
        if not isinstance(value, _SCALARS):
            raise LabError(f"{parameter} of row {key!r} is {value!r}; expected a text, a number, true or false")
    row = Row(key=key, label=label, changes=dict(changes), main=False)
    dataclasses.replace(ablation, rows=(*ablation.rows, row))  # refuses what does not fit
    path = own_rows_file(ablation.name)
    before = path.read_text(encoding="utf-8").rstrip() + "\n\n" if path.exists() else ""
    # A line break within a text would end it; JSON's other escapes are TOML's.
    written = ", ".join(f"{parameter} = {json.dumps(value)}" for parameter, value in changes.items())
    paths.write_whole(path, f"{before}[{key}]\nlabel = {json.dumps(label)}\nchanges = {{ {written} }}\n")
    return path


def free_key(ablation: Ablation, wanted: str) -> str:
    """A key made of some words that no row has yet: a number is put behind where one has."""
    stem = re.sub(r"[^a-z0-9]+", "_", wanted.lower()).strip("_") or "row"
    taken = {row.key for row in ablation.rows}
    numbered = (f"{stem}_{number}" for number in range(2, len(taken) + 3))
    return stem if stem not in taken else next(key for key in numbered if key not in taken)
