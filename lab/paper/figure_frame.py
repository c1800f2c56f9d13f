"""What all figures share: where their files lie, when they are drawn anew, what they say of themselves, a heading."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lab import paths
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
