"""Tables and figures as files: where they lie, how figures are drawn, and whether they still say what was measured.

`figures/NAME.py` has a function `draw`. That of a study draws the results of a rung, and its files name their runs. One
that shows no run has `facts()`, a mapping as JSON has it, taken from built components or declared data; it draws that,
and its files name the hash of the facts. A written table names its runs too. Code that would draw the same otherwise is
no reason to draw anew.
"""

import hashlib
import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from lab import paths
from lab.errors import LabError, choose
from lab.paper.measured import load_measured
from lab.paper.tables import names_runs, table_path
from lab.study.ablation import Ablation, ablation_files, load_ablation
from lab.study.results import read_lines

NO_RUNG = "cpu"  # what `lab figures` says where nobody says anything
ENDINGS = ("svg", "png")


@dataclass(frozen=True, kw_only=True)
class DrawnFile:
    """A table or figure, its rung where it has one, and the runs that the results now name."""

    path: Path
    ablation: str = ""
    rung: str = ""
    state: Literal["matches", "no longer matches", "missing"]
    run_ids: tuple[str, ...] = ()


def figure_stem(ablation: Ablation, rung: str) -> Path:
    """`figures/NAME` (`NAME.RUNG` but for the first rung); in `mlruns/figures` where a rung is not recorded."""
    if not ablation.rung(rung).recorded:
        return paths.mlruns_dir() / "figures" / ablation.name
    first = ablation.rungs[0].name == rung
    return paths.repository_root() / "figures" / (ablation.name if first else f"{ablation.name}.{rung}")


def figure_scripts() -> dict[str, Path]:
    """The files that draw a figure, by the figure's name."""
    return {path.stem: path for path in sorted((paths.repository_root() / "figures").glob("[a-z]*.py"))}


def load_script(path: Path) -> ModuleType:
    """A figure's own file as a module."""
    spec = importlib.util.spec_from_file_location(f"figures.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def draw_figure(script: Path, rung: str = NO_RUNG) -> list[Path]:
    """Draw the figure of that script as SVG and PNG; the same results or facts give the same bytes."""
    from lab.paper.style import paper_style, save

    figure, name = load_script(script), script.stem
    if not hasattr(figure, "facts"):
        ablation = load_ablation(name)
        shown: Any = load_measured(ablation, rung)
        stem = figure_stem(ablation, rung)
        told = {"Title": f"{name}, rung {rung}", "Description": _names_runs(shown.results["run_id"])}
    elif rung == NO_RUNG:
        shown = figure.facts()
        stem = paths.repository_root() / "figures" / name
        title = f"{(figure.__doc__ or '').partition(' of ')[0]} of arXiv 2410.08565, redrawn"
        told = {"Title": title, "Description": f"{_names_facts(shown)}; no run of this project"}
    else:
        raise LabError(f"figure {name!r} shows components and data, which have no rung {rung!r}; leave it out")
    with paper_style():
        files = save(figure.draw(shown), stem, told)
    for path in files:
        print(f"figure: {path}")
    return files


def _names_runs(run_ids: Iterable[str]) -> str:
    return f"MLflow runs: {', '.join(run_ids)}"


def _names_facts(facts: Mapping[str, Any]) -> str:
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return f"sha256 of the facts {hashlib.sha256(text.encode()).hexdigest()}"


def drawn(names: Iterable[str] | None = None) -> list[DrawnFile]:
    """Every table and figure that there should be: those of all recorded rungs with results, and those without runs.

    `names` are those of ablations, and of figures that show no run; all where None.
    """
    every = {**ablation_files(), **figure_scripts()}
    found: list[DrawnFile] = []
    for name in every if names is None else names:
        script = choose(every, name, "figure")
        if name in ablation_files():
            found += _of_study(load_ablation(name))
        else:
            found += _pictures(script.with_suffix(""), _names_facts(load_script(script).facts()))
    return found


def _of_study(ablation: Ablation) -> Iterator[DrawnFile]:
    lines = read_lines(ablation, ablation.rungs[0].name)
    for rung in (rung.name for rung in ablation.rungs if rung.recorded):
        own = [line for line in lines if line["rung"] == rung]
        if not own:
            continue
        runs = tuple(line["run_id"] for line in own)
        shared: dict[str, Any] = {"ablation": ablation.name, "rung": rung, "run_ids": runs}
        yield _drawn(table_path(ablation, rung), names_runs(runs), **shared)
        if ablation.name in figure_scripts():
            yield from _pictures(figure_stem(ablation, rung), _names_runs(runs), **shared)


def _pictures(stem: Path, said: str, **shared: Any) -> Iterator[DrawnFile]:
    for ending in ENDINGS:
        yield _drawn(stem.with_name(f"{stem.name}.{ending}"), said, **shared)


def _drawn(path: Path, said: str, **shared: Any) -> DrawnFile:
    if not path.exists():
        return DrawnFile(path=path, state="missing", **shared)
    fits = said.encode() in path.read_bytes()
    return DrawnFile(path=path, state="matches" if fits else "no longer matches", **shared)


def resting_on(run: str) -> list[DrawnFile]:
    """The tables and figures that rest on a run: its MLflow id, or as many of its first letters as tell it apart."""
    found = drawn(ablation_files())
    matching = sorted({run_id for one in found for run_id in one.run_ids if run_id.startswith(run)})
    if not run or len(matching) != 1:
        many = f"{len(matching)} runs begin with it" if matching else "no file of ablations/results names such a run"
        raise LabError(
            f"run {run!r}: {many}; give the id of one, as `lab paper` shows it, "
            "or MLflow (runs of rung smoke stand in no table)"
        )
    return [one for one in found if matching[0] in one.run_ids]
