"""The cells of an ablation: one row at one seed, with every parameter resolved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lab import paths
from lab.errors import LabError, choose
from lab.study.ablation import Ablation
from lab.training.parameters import Parameters


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
    """`notebooks/NOTEBOOK.ipynb` of the checkout.

    Raises:
        LabError: it is not there; the message lists the notebooks.
    """
    folder = paths.repository_root() / "notebooks"
    return choose({path.stem: path for path in sorted(folder.glob("*.ipynb"))}, ablation.notebook, "notebook")
