"""Whether tables and figures still say what the runs behind them measured, and which of them rest on a run.

A figure names the runs that it was drawn from; a written table is held against the means and seeds of the results file.
Code that would draw them otherwise is no reason: the numbers are the same. A figure
without runs names the hash of its facts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lab import paths
from lab.errors import LabError, choose
from lab.paper.figure_frame import facts_checksum, figure_scripts, figure_stem, load_script
from lab.paper.tables import read_written, table_path
from lab.study.ablation import Ablation, ablation_files, load_ablation
from lab.study.results import read_lines

State = Literal["matches", "no longer matches", "missing"]


@dataclass(frozen=True, kw_only=True)
class DrawnFile:
    """A table or figure of one rung, its state, and the runs that the results now name."""

    path: Path
    ablation: str
    rung: str
    state: State
    run_ids: tuple[str, ...]


def drawn(names: list[str] | None = None) -> list[DrawnFile]:
    """Every table and figure that there should be: those of all recorded rungs with results.

    Args:
        names: of ablations; all where None.

    Raises:
        LabError: an unknown ablation, or a results file that was changed by hand.
    """
    return [one for name in (names or ablation_files()) for one in _of(load_ablation(name))]


def drawn_of_data(names: list[str] | None = None) -> list[DrawnFile]:
    """Every figure that shows no run: it matches where its files name the hash of what it says now.

    Args:
        names: of such figures; all where None.

    Raises:
        LabError: another name.
    """
    scripts = {name: path for name, path in figure_scripts().items() if name not in ablation_files()}
    found = []
    for name in scripts if names is None else names:
        script = choose(scripts, name, "figure")
        facts = facts_checksum(load_script(script).facts()).encode()
        for ending in ("svg", "png"):
            path = script.with_name(f"{name}.{ending}")
            fits = path.exists() and facts in path.read_bytes()
            found.append(DrawnFile(path=path, ablation="", rung="", state=_state(path, fits=fits), run_ids=()))
    return found


def _of(ablation: Ablation) -> Iterator[DrawnFile]:
    lines = read_lines(ablation, ablation.rungs[0].name)
    has_figure = (paths.repository_root() / "figures" / f"{ablation.name}.py").exists()
    for rung in (rung for rung in ablation.rungs if rung.recorded):
        own = [line for line in lines if line["rung"] == rung.name]
        if not own:
            continue
        runs = tuple(line["run_id"] for line in own)
        shared = {"ablation": ablation.name, "rung": rung.name, "run_ids": runs}
        table = table_path(ablation, rung.name)
        written = bool(read_written(ablation, rung.name, own).rows)
        yield DrawnFile(path=table, state=_state(table, fits=written), **shared)  # type: ignore[arg-type]
        if has_figure:
            stem = figure_stem(ablation, rung.name)
            named = f"MLflow runs: {', '.join(runs)}".encode()
            for ending in ("svg", "png"):
                figure = stem.with_name(f"{stem.name}.{ending}")
                fits = figure.exists() and named in figure.read_bytes()
                yield DrawnFile(path=figure, state=_state(figure, fits=fits), **shared)  # type: ignore[arg-type]


def _state(path: Path, *, fits: bool) -> State:
    if not path.exists():
        return "missing"
    return "matches" if fits else "no longer matches"


def resting_on(run: str) -> list[DrawnFile]:
    """The tables and figures that rest on a run.

    Args:
        run: its MLflow id, or as many of its first letters as tell it apart.

    Raises:
        LabError: no results file names such a run, or several do.
    """
    found = drawn()
    matching = sorted({run_id for one in found for run_id in one.run_ids if run_id.startswith(run)})
    if not run or len(matching) != 1:
        many = f"{len(matching)} runs begin with it" if matching else "no file of ablations/results names such a run"
        raise LabError(
            f"run {run!r}: {many}; give the id of one, as `lab paper` shows it, "
            "or MLflow (runs of rung smoke stand in no table)"
        )
    return [one for one in found if matching[0] in one.run_ids]
