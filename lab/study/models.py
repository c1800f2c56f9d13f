"""The models that cells kept: `artifacts/model` of their runs, found by the run's id or its beginning."""

from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.study import store

# Of ids in messages, and enough of one to name a run.
_LETTERS = 8
_LEAST_LETTERS = 4
_SHOWN = 10
FOLDER, DESCRIPTION = "model", "model.json"


@dataclass(frozen=True)
class KeptModel:
    """A saved model: its folder, and what it is called in messages and results."""

    folder: Path
    title: str


def find_model(name: str) -> KeptModel | None:
    """The saved model of a folder, or of the run whose id begins with `name`; None where `name` is neither.

    Raises:
        LabError: more than one run begins so, or the run has kept no model.
    """
    if (Path(name) / DESCRIPTION).is_file():
        return KeptModel(Path(name), name)
    if len(name) < _LEAST_LETTERS:
        return None
    found = [run for run in store.read_runs() if run.run_id.startswith(name)]
    if not found:
        return None
    if len(found) > 1:
        raise LabError(f"{len(found)} runs begin with {name!r}: {', '.join(map(_title, found[:_SHOWN]))}; write more")
    kept = _kept(found[0])
    if kept is None:
        raise LabError(f"run {_title(found[0])} has kept no model ({found[0].status}); {kept_models()}")
    return kept


def open_model(name: str) -> KeptModel:
    """As `find_model`; there has to be one.

    Raises:
        LabError: as `find_model`, or there is neither such a run nor such a folder; the message lists the choices.
    """
    if (kept := find_model(name)) is None:
        raise LabError(f"there is no folder {name} with a saved model, and no run whose id begins so; {kept_models()}")
    return kept


def kept_models() -> str:
    """The runs that kept a model, the newest first, as the rest of a sentence."""
    runs = [run for run in reversed(store.read_runs()) if _kept(run) is not None]
    if not runs:
        return f"no run in {store.database().parent} has kept one: train a cell with `lab reproduce`"
    more = f", and {len(runs) - _SHOWN} more" if len(runs) > _SHOWN else ""
    return f"runs that kept one: {', '.join(map(_title, runs[:_SHOWN]))}{more}"


def _kept(run: store.RunRecord) -> KeptModel | None:
    folder = run.artifact(FOLDER)
    return KeptModel(folder, _title(run)) if (folder / DESCRIPTION).is_file() else None


def _title(run: store.RunRecord) -> str:
    named = [run.tags[name] for name in ("ablation", "row") if run.tags.get(name)]
    seed = [f"seed {run.tags['seed']}"] if "seed" in run.tags else []
    told = ", ".join([*named, *seed]) or run.tags.get("kind", "by hand")
    return f"{run.run_id[:_LETTERS]} ({told})"
