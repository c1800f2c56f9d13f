"""What all figures share: where their files lie, when they are drawn anew, what they say of themselves, a heading.

`figures/NAME.py` has a function `draw`. That of a study draws the results of a rung. One that shows no run has
`facts()`, a mapping as JSON has it, taken from built components or declared data, and draws that. Its files name the
hash of the facts: code that would draw the same facts otherwise is no reason to draw them anew.
"""

import hashlib
import importlib.util
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lab import paths
from lab.errors import LabError
from lab.paper.measured import Measured, fingerprint, load_measured, results_checksum
from lab.study.ablation import Ablation, load_ablation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches, and how many letters of the heading fit into them.
WIDTH = 8.6
HEADING_LETTERS = 106


def figure_stem(ablation: Ablation, rung: str) -> Path:
    """`figures/NAME` (`NAME.RUNG` but for the first rung); in `mlruns/figures` where a rung is not recorded."""
    if not ablation.rung(rung).recorded:
        return paths.mlruns_dir() / "figures" / ablation.name
    first = ablation.rungs[0].name == rung
    return paths.repository_root() / "figures" / (ablation.name if first else f"{ablation.name}.{rung}")


NO_RUNG = "cpu"  # what `lab figures` says where nobody says anything


def draw_figure(script: Path, rung: str = NO_RUNG) -> list[Path]:
    """Draw the figure of that script as SVG and PNG.

    The same results or facts give the same bytes; files that were drawn from the same results are left as they are.

    Raises:
        LabError: as `load_measured`; or a rung is asked for of a figure that shows no run.
    """
    figure, name = load_script(script), script.stem
    if not hasattr(figure, "facts"):
        ablation = load_ablation(name)
        stem = figure_stem(ablation, rung)
        inputs = fingerprint(ablation, rung, [script])
        files = [stem.with_name(f"{stem.name}.{ending}") for ending in ("svg", "png")]
        if not all(path.exists() and inputs.encode() in path.read_bytes() for path in files):
            measured = load_measured(ablation, rung)
            files = _draw(figure, measured, stem, describe(measured, inputs))
    elif rung == NO_RUNG:
        facts = figure.facts()
        told = {
            "Title": f"{(figure.__doc__ or '').partition(' of ')[0]} of arXiv 2410.08565, redrawn",
            "Description": f"sha256 of the facts {facts_checksum(facts)}; no run of this project",
        }
        files = _draw(figure, facts, paths.repository_root() / "figures" / name, told)
    else:
        raise LabError(f"figure {name!r} shows components and data, which have no rung {rung!r}; leave it out")
    for path in files:
        print(f"figure: {path}")
    return files


def _draw(figure: ModuleType, shown: Any, stem: Path, told: Mapping[str, str]) -> list[Path]:
    from lab.paper.style import paper_style, save  # with seaborn, which takes longer than to see that all is up to date

    with paper_style():
        return save(figure.draw(shown), stem, told)


def describe(measured: Measured, inputs: str) -> dict[str, str]:
    """What the files say of themselves."""
    runs = ", ".join(measured.results["run_id"])
    checksum = results_checksum(measured.ablation, measured.rung)
    return {
        "Title": f"{measured.ablation.name}, rung {measured.rung}",
        "Description": f"drawn from {inputs}; sha256 of the results: {checksum}; MLflow runs: {runs}",
    }


def write_heading(figure: "Figure", measured: Measured, title: str) -> None:
    """The title, and beneath it the rung with its description."""
    rung = measured.ablation.rung(measured.rung)
    lines = textwrap.wrap(f"Rung {rung.name}: {rung.description}", HEADING_LETTERS)
    figure.suptitle(f"{title}\n" + "\n".join(lines), x=0.01, ha="left", fontsize="medium")


def seeds_run(measured: Measured) -> str:
    """As in "3 seeds" or, where rows differ, "3 to 6 seeds"."""
    counts = measured.results.groupby("row")["seed"].nunique()
    few, many = int(counts.min()), int(counts.max())
    return f"{few} to {many} seeds" if few < many else "1 seed" if many == 1 else f"{many} seeds"


def facts_checksum(facts: Mapping[str, Any]) -> str:
    """The SHA-256 of the facts of a figure that shows no run."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


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
