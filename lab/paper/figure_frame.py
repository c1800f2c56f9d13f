"""What all figures share: where their files lie, when they are drawn anew, what they say of themselves, a heading.

A figure of a study is drawn from the results of a rung. One that shows no run says a mapping of facts, taken from built
components or declared data, and their hash stands in its files: code that would draw the same facts otherwise is no
reason to draw them anew.
"""

import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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


def draw_figure(script: Path, rung: str, draw: "Callable[[Measured], Figure]") -> list[Path]:
    """Draw a rung's results as SVG and PNG; files that were drawn from the same results are left as they are.

    Args:
        script: the figure's own file, whose stem names the ablation; the files are drawn anew when it changes.
        draw: called within `lab.paper.style.paper_style`.

    Raises:
        LabError: as `load_measured`.
    """
    ablation = load_ablation(script.stem)
    stem = figure_stem(ablation, rung)
    inputs = fingerprint(ablation, rung, [script])
    files = [stem.with_name(f"{stem.name}.{ending}") for ending in ("svg", "png")]
    if not all(path.exists() and inputs.encode() in path.read_bytes() for path in files):
        from lab.paper.style import paper_style, save

        measured = load_measured(ablation, rung)
        with paper_style():
            files = save(draw(measured), stem, describe(measured, inputs))
    for path in files:
        print(f"figure: {path}")
    return files


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
    import textwrap

    rung = measured.ablation.rung(measured.rung)
    lines = textwrap.wrap(f"Rung {rung.name}: {rung.description}", HEADING_LETTERS)
    figure.suptitle(f"{title}\n" + "\n".join(lines), x=0.01, ha="left", fontsize="medium")


def seeds_run(measured: Measured) -> str:
    """As in "3 seeds" or, where rows differ, "3 to 6 seeds"."""
    counts = measured.results.groupby("row")["seed"].nunique()
    few, many = int(counts.min()), int(counts.max())
    return f"{few} to {many} seeds" if few < many else "1 seed" if many == 1 else f"{many} seeds"


NO_RUNG = "cpu"  # what `lab figures` says where nobody says anything


@dataclass(frozen=True, kw_only=True)
class DataFigure:
    """A figure of facts.

    `script` is its own file, whose stem names it; `facts` gives what it says, as JSON has it; `draw` is called with
    them within `lab.paper.style.paper_style`.
    """

    script: Path
    title: str
    facts: Callable[[], Mapping[str, Any]]
    draw: "Callable[[Mapping[str, Any]], Figure]"

    def checksum(self) -> str:
        """The SHA-256 of the facts."""
        return _checksum(self.facts())

    def main(self, rung: str = NO_RUNG) -> list[Path]:
        """Draw figures/NAME.svg and .png; the same facts give the same bytes.

        Raises:
            LabError: a rung is asked for; such a figure has none.
        """
        from lab.paper.style import paper_style, save

        name = self.script.stem
        if rung != NO_RUNG:
            raise LabError(f"figure {name!r} shows components and data, which have no rung {rung!r}; leave it out")
        facts = self.facts()
        told = f"sha256 of the facts {_checksum(facts)}; no run of this project"
        with paper_style():
            stem = paths.repository_root() / "figures" / name
            files = save(self.draw(facts), stem, {"Title": self.title, "Description": told})
        for path in files:
            print(f"figure: {path}")
        return files


def _checksum(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def figure_scripts() -> dict[str, Path]:
    """The files that draw a figure, by the figure's name."""
    return {path.stem: path for path in sorted((paths.repository_root() / "figures").glob("[a-z]*.py"))}


def load_script(path: Path) -> ModuleType:
    """A figure's own file as a module; it has `main(rung)`, and a `DataFigure` as `FIGURE` where it shows no run."""
    spec = importlib.util.spec_from_file_location(f"figures.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
