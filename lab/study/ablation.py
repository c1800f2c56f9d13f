"""An ablation of the paper declared as data: rows, rungs, columns, reported numbers; and its cells.

A parameter's value is looked up in three places: `base`, then the rung (how large the study is run), then the row (what
is compared); the seed is added last. A row and a rung may not change the same parameter: whichever won, either the
rows would differ in something that the rung was meant to hold equal, or a small rung would not be small for that row.
Where a rung has another starting point for what the rows compare (the paper's 48 frames), it says so in `base`.
"""

import importlib
import json
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from lab import paths
from lab.errors import LabError, choose
from lab.training.parameters import Parameters

_SCALARS = (str, bool, int, float)
_KEY = re.compile(r"[a-z0-9][a-z0-9_]*")  # keys become names of files


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: the paper's printed label and only what differs from `base`."""

    key: str
    label: str
    changes: Mapping[str, Any]
    main: bool = True
    """Part of the main study; the others are added by `--rows all`."""
    cost: float = 1.0
    """Roughly how long a cell takes, relative to the other rows: dear cells are started first."""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One size of the same study, from seconds on two cores to the paper's own."""

    name: str
    description: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    base: Mapping[str, Any] = field(default_factory=dict)
    """What `base` is at this rung for parameters that rows change: those rows keep their own value."""
    workers: int | None = None
    """Cells at once where the user does not say; None: as many as there are cores."""
    recorded: bool = True
    """Results go to the tracked `ablations/results`; a smoke rung's stay in `mlruns/results`."""

    def __post_init__(self) -> None:
        if twice := sorted(self.changes.keys() & self.base.keys()):
            raise LabError(f"rung {self.name!r} has {', '.join(twice)} in `changes` and in `base`; leave one out")


@dataclass(frozen=True, kw_only=True)
class Column:
    """One metric of the table; what is printed is `scale` times what was measured."""

    metric: str
    label: str
    unit: str
    better: Literal["lower", "higher"]
    scale: float = 1.0
    interval: str = ""
    """The rate of `lab.evaluation.statistics.METRICS` that it is, or is one minus of: it is shown with an interval."""
    test: str = ""
    """Of a study with several tests, the one that it is of."""


@dataclass(frozen=True, kw_only=True)
class Reported:
    """A number of the paper, never mixed with ours; `value` is None where it was not found."""

    row: str
    metric: str
    value: float | None
    source: str
    note: str = ""
    cell: str = ""
    """The key of its cell in the ledger of the paper's tables (`lab.paper.ledger`)."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How to find out what a cell takes where none was timed: by two that do only a little of the work."""

    parameter: str
    """The one that counts the work, such as `steps`."""
    values: tuple[int, int]
    """What it is in the two trial cells: as small as it may be, and large enough for the difference to be measured."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """What else a cell so short needs."""

    def __post_init__(self) -> None:
        few, more = self.values
        if not 0 < few < more:
            raise LabError(f"the values of a trial are two, above 0 and the smaller first; got {few} and {more}")


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """One table or figure of the paper as an experiment.

    Raises:
        LabError: the declaration contradicts itself (see the module's first lines); each message names the rows, the
            rung and the parameter.
    """

    name: str
    paper: str
    claim: str
    notebook: str
    """Its stem: `notebooks/NOTEBOOK.ipynb`."""
    seeds: tuple[int, ...]
    base: Parameters
    """The parameters of the kind of study, with what every row has where it says nothing else; its seed is not used."""
    rungs: tuple[Rung, ...]
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    reported: tuple[Reported, ...] = ()
    trial: Trial | None = None
    golden: Mapping[str, Any] = field(default_factory=dict)
    """What a golden run changes of a cell (see `lab.study.golden`): a few steps, a few samples. None where empty.

    It has these values whatever a row says.
    """

    def __post_init__(self) -> None:
        self._check_names()
        for row in self.rows:
            self._check_changes(row.changes, f"row {row.key!r}")
        for rung in self.rungs:
            self._check_changes({**rung.base, **rung.changes}, f"rung {rung.name!r}")
        if self.trial is not None:
            self._check_changes({self.trial.parameter: self.trial.values[0], **self.trial.changes}, "the trial")
        self._check_changes(self.golden, "`golden`")
        for row in self.rows:
            for rung in self.rungs:
                if both := sorted(row.changes.keys() & rung.changes.keys()):
                    raise LabError(
                        f"row {row.key!r} and rung {rung.name!r} of {self.name!r} both change {', '.join(both)}; "
                        "a parameter belongs to the rows (what is compared) or to the rungs (how large it is run)"
                    )
        for rung in self.rungs:
            seen: dict[str, str] = {}
            for row in self.rows:
                same = seen.setdefault(repr(self.resolve(row.key, rung.name)), row.key)
                if same != row.key:
                    raise LabError(
                        f"rows {same!r} and {row.key!r} of {self.name!r} have the same parameters at rung "
                        f"{rung.name!r}; leave one out, or write what differs into its `changes`"
                    )

    def _check_names(self) -> None:
        names = {
            "row": [row.key for row in self.rows],
            "rung": [rung.name for rung in self.rungs],
            "seed": [str(seed) for seed in self.seeds],
        }
        for name in [self.name, *names["row"], *names["rung"]]:
            if not _KEY.fullmatch(name):
                raise LabError(f"{name!r} in ablation {self.name!r} is not a key: use small letters, digits and _")
        for what, values in names.items():
            if not values:
                raise LabError(f"ablation {self.name!r} has no {what}")
            if twice := sorted({value for value in values if values.count(value) > 1}):
                raise LabError(f"ablation {self.name!r} has the {what} {', '.join(twice)} twice")
        for reported in self.reported:
            choose(dict.fromkeys(names["row"]), reported.row, f"row in `reported` of {self.name!r}:")

    def _check_changes(self, changes: Mapping[str, Any], where: str) -> None:
        for parameter in changes:
            choose(dict.fromkeys(self.parameters), parameter, f"parameter in {where} of {self.name!r}:")
        try:
            replace(self.base, **changes)
        except LabError as error:
            raise LabError(f"{where} of {self.name!r}: {error}") from None

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of what a row may change: all parameters but the seed, which stands in `seeds` alone."""
        return tuple(name for name in self.base.names() if name != "seed")

    def row(self, key: str) -> Row:
        """The row of that key; an unknown one raises a LabError that lists the choices."""
        return choose({row.key: row for row in self.rows}, key, f"row of {self.name!r}:")

    def rung(self, name: str) -> Rung:
        """The rung of that name; an unknown one raises a LabError that lists the choices."""
        return choose({rung.name: rung for rung in self.rungs}, name, f"rung of {self.name!r}:")

    def resolve(self, row: str, rung: str, seed: int = 0) -> Parameters:
        """The parameters of a cell."""
        at = self.rung(rung)
        return replace(self.base, **{**at.base, **at.changes, **self.row(row).changes, "seed": seed})

    @property
    def varied(self) -> tuple[str, ...]:
        """The parameters that define a row, in their order."""
        changed = {parameter for row in self.rows for parameter in row.changes}
        return tuple(parameter for parameter in self.parameters if parameter in changed)


def ablation_files() -> dict[str, Path]:
    """The files that declare an ablation, by its name."""
    return {path.stem: path for path in sorted((paths.repository_root() / "ablations").glob("[a-z]*.py"))}


def load_module(name: str) -> ModuleType:
    """Import `ablations/NAME.py`, which holds `ablation` and `prepare`; a LabError where it does not."""
    path = choose(ablation_files(), name, "ablation")
    # Read anew each time; declarations import what they share, `ablations._vision`, from the checkout's own folder.
    for module in [module for module in sys.modules if module.partition(".")[0] == "ablations"]:
        del sys.modules[module]
    package = sys.modules["ablations"] = ModuleType("ablations")
    package.__path__ = [str(path.parent)]
    importlib.invalidate_caches()
    declared = importlib.import_module(f"ablations.{name}")
    if not isinstance(getattr(declared, "ablation", None), Ablation):
        raise LabError(f"ablations/{name}.py declares no `ablation = Ablation(...)`")
    if declared.ablation.name != name:
        raise LabError(f"ablations/{name}.py declares the ablation {declared.ablation.name!r}; one stem names both")
    return declared


def own_rows_file(name: str) -> Path:
    """Where rows of one's own stand, tried in a notebook or written by hand; they run like any other.

        [threshold_of_mine]
        label = "Gaussian, k = 1.2"
        changes = { loss_filter = "gaussian", k = 1.2 }

    They are no main rows: `lab reproduce NAME --rows threshold_of_mine` runs them, or `--rows all`.
    """
    return paths.repository_root() / "ablations" / f"{name}.rows.toml"


def read_own_rows(name: str) -> tuple[Row, ...]:
    """The rows of the ablation's file, in its order, none without one; a LabError where it is not of that form."""
    path = own_rows_file(name)
    if not path.exists():
        return ()
    try:
        tables = tomllib.loads(paths.read_text(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LabError(f"{path} is no TOML file ({error}); mend or delete it") from error
    for key, entry in tables.items():
        parts = {name: type(value) for name, value in entry.items()} if isinstance(entry, dict) else {}
        if parts != {"label": str, "changes": dict}:
            raise LabError(f"row {key!r} of {path} is not made of a label (text) and changes (parameter = value)")
    return tuple(Row(key=key, **entry, main=False) for key, entry in tables.items())


def load_ablation(name: str) -> Ablation:
    """The `ablation` that `ablations/NAME.py` declares, with the rows of `NAME.rows.toml`, else a LabError."""
    ablation: Ablation = load_module(name).ablation
    own = read_own_rows(name)
    return replace(ablation, rows=(*ablation.rows, *own)) if own else ablation


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
    replace(ablation, rows=(*ablation.rows, row))  # refuses what does not fit
    path = own_rows_file(ablation.name)
    before = paths.read_text(path).rstrip() + "\n\n" if path.exists() else ""
    # A line break within a text would end it; JSON's other escapes are TOML's.
    written = ", ".join(f"{parameter} = {json.dumps(value)}" for parameter, value in changes.items())
    paths.write_whole(path, f"{before}[{key}]\nlabel = {json.dumps(label)}\nchanges = {{ {written} }}\n")
    return path


def free_key(ablation: Ablation, wanted: str) -> str:
    """A key made of some words that no row has yet: a number is put behind where one has."""
    stem = re.sub(r"[^a-z0-9]+", "_", wanted.lower()).strip("_") or "row"
    taken = {row.key for row in ablation.rows}
    return next(key for key in chain([stem], (f"{stem}_{number}" for number in count(2))) if key not in taken)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training and measuring of the notebook; `key` and `ingredients` come from `identity.identify`."""

    ablation: str
    row: str
    rung: str
    seed: int
    parameters: Mapping[str, Any]
    key: str = ""
    ingredients: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """How a message names the cell."""
        return f"{self.row}, seed {self.seed}"


def cells(
    ablation: Ablation,
    rung: str,
    rows: str | Sequence[str] = "main",
    seeds: Sequence[int] | None = None,
) -> list[Cell]:
    """The chosen cells in the order of the declaration, the seeds of a row together.

    Args:
        rows: "main", "all", or the keys of the rows.
        seeds: the ablation's own where None.

    Raises:
        LabError: an unknown rung or row (the choices are listed), a negative or repeated seed, or no cell at all.
    """
    ablation.rung(rung)
    known = {row.key: row for row in ablation.rows}
    sets = {"main": [row.key for row in ablation.rows if row.main], "all": list(known)}
    chosen = sets.get(rows, [rows]) if isinstance(rows, str) else list(rows)
    for key in chosen:
        choose(known, key, f"row of {ablation.name!r} (or main, all):")
    used = tuple(ablation.seeds if seeds is None else seeds)
    if any(isinstance(seed, bool) or not isinstance(seed, int) or seed < 0 for seed in used):
        raise LabError(f"seeds are whole numbers from 0, separated by commas; got {', '.join(map(str, used))}")
    if len(set(used)) < len(used):
        raise LabError(f"a seed is given twice: {', '.join(map(str, used))}")
    if not chosen or not used:
        raise LabError(f"no cell of {ablation.name!r} is chosen: give at least one row and one seed")
    every = ((row.key, seed) for row in ablation.rows if row.key in chosen for seed in used)
    return [
        Cell(
            ablation=ablation.name,
            row=row,
            rung=rung,
            seed=seed,
            parameters=ablation.resolve(row, rung, seed).as_dict(),
        )
        for row, seed in every
    ]


def typed(ablation: Ablation, cells: Sequence[Cell]) -> list[Parameters]:
    """The parameters of cells as code takes them."""
    return [replace(ablation.base, **cell.parameters) for cell in cells]


def notebook_path(ablation: Ablation) -> Path:
    """`notebooks/NOTEBOOK.ipynb` of the checkout; a LabError that lists those there are."""
    folder = paths.repository_root() / "notebooks"
    return choose({path.stem: path for path in sorted(folder.glob("*.ipynb"))}, ablation.notebook, "notebook")
