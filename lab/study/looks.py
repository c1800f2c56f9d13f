"""The looks that were taken at a claim: `ablations/results/NAME.RUNG.looks.json`, written by `lab`, never by hand.

They stand beside the results file and travel with it, because a claim decided at the third look must not be read as one
that was looked at once. Like that file, it is written whole or not at all, with a SHA-256 of what it holds. A copy is
kept with the study's run in MLflow; where the two differ the longer counts, since a look that was taken stays taken,
whatever an older checkout holds.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from lab import paths
from lab.errors import LabError
from lab.study import tracking
from lab.study.ablation import Ablation
from lab.study.results import results_path


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at the first contrast of an ablation; effects are fractions."""

    number: int
    """From 1, over all looks that were ever taken at this claim."""
    planned: int
    """How many were meant to be taken when the first was."""
    seeds: tuple[int, ...]
    confidence: float
    """Of the interval: 1 - this look's share of the level."""
    effect: float
    low: float
    high: float
    outcome: str
    """holds, does not hold, or undecided."""
    data: str
    """A hash of what was looked at: looking at the same once more is no new look."""
    when: str
    """ISO 8601, UTC."""


def looks_path(ablation: Ablation, rung: str) -> Path:
    """The tracked file, or for a rung that is not recorded one beside the store."""
    return results_path(ablation, rung).with_name(f"{ablation.name}.{rung}.looks.json")


def read_looks(ablation: Ablation, rung: str) -> tuple[Look, ...]:
    """Every look that was taken, in order; none where none was.

    Raises:
        LabError: the file was changed by hand. It is left as it is.
    """
    path = looks_path(ablation, rung)
    in_file: tuple[Look, ...] = ()
    if path.exists():
        found = _parse(path.read_text(encoding="utf-8"))
        if found is None:
            shown = path.relative_to(paths.repository_root()) if path.is_relative_to(paths.repository_root()) else path
            raise LabError(
                f"{shown} was changed by hand (its checksum does not fit); it is left as it is. Restore it with `git "
                f"checkout {shown}`, or remove it where the study's run in MLflow has the looks as well"
            )
        in_file = found
    return max(in_file, _kept_in_store(ablation, rung), key=len)


def _kept_in_store(ablation: Ablation, rung: str) -> tuple[Look, ...]:
    study = tracking.find_study(ablation.name, rung)
    if study is None or not (copy := study.artifact("looks.json")).exists():
        return ()
    return _parse(copy.read_text(encoding="utf-8")) or ()


def _checksum(looks: Sequence[Mapping[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(list(looks), sort_keys=True).encode()).hexdigest()


def _parse(text: str) -> tuple[Look, ...] | None:
    """The looks, None where it is not what `lab` wrote."""
    try:
        content = json.loads(text)
        if content["sha256"] != _checksum(content["looks"]):
            return None
        return tuple(Look(**{**entry, "seeds": tuple(entry["seeds"])}) for entry in content["looks"])
    except (ValueError, KeyError, TypeError):
        return None


def record_look(ablation: Ablation, rung: str, look: Look) -> tuple[Look, ...]:
    """Add a look to the file and to the copy in the store; returns all.

    One of the same data that stands there already (another sweep took it meanwhile) is not added.

    Raises:
        LabError: the file was changed by hand; or it is not the next look, as another sweep took one meanwhile.
    """
    path = looks_path(ablation, rung)
    paths.mlruns_dir().mkdir(parents=True, exist_ok=True)
    with FileLock(paths.mlruns_dir() / f"looks-{ablation.name}-{rung}.lock"):
        taken = read_looks(ablation, rung)
        if taken and taken[-1].data == look.data:
            return taken
        if look.number != len(taken) + 1:
            raise LabError(
                f"another sweep looked at the claim of {ablation.name!r} meanwhile ({len(taken)} looks are recorded, "
                f"this was to be look {look.number}); run it again to go on from there"
            )
        looks = (*taken, look)
        entries = [asdict(one) for one in looks]
        text = json.dumps({"sha256": _checksum(entries), "looks": entries}, indent=1) + "\n"
        paths.write_whole(path, text)
        if (study := tracking.find_study(ablation.name, rung)) is not None:
            tracking.Recorder().keep(study.run_id, "looks.json", text)
    return looks
