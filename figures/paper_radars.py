"""Figure 1 of the report: every benchmark, and the mean of each modality, of the paper's own numbers alone."""

import hashlib
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lab import paths
from lab.errors import LabError
from lab.paper.figure_frame import WIDTH
from lab.paper.ledger.cells import FILES
from lab.paper.radars import KINDS, MODELS, Kind, benchmarks, means
from lab.study.identity import source_hash
from lab.study.reach import lab_modules

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.projections.polar import PolarAxes

NO_RUNG = "cpu"  # what `lab figures` says where nobody says anything
TITLE = "Figure 1 redrawn: the paper's own numbers (tables 2 to 6), none measured by this project"
FOOTNOTE = (
    "Scaled as in the paper, (x - min + 10) / (max - min + 10) over the models drawn, error rates turned about: the "
    "best is at 1. A curve is broken where its model has no value. Left: the paper draws 11 of these 13 image sets; "
    "which, is not found. MME is in points, where the formula's 10 hardly counts. WenetSpeech by CER: VITA has no WER. "
    "Right: means first, scaled after, images without MME; Qwen2-VL's video as the paper's authors ran it. The paper's "
    "audio axis could not be reproduced. Source: primary, the authors' table images; the KeSpeech mean is derived."
)
FOOTNOTE_LETTERS = 158
DRAWN_BY = ("lab.paper.ledger.cells", "lab.paper.radar_panel", "lab.paper.radars", "lab.paper.style")


def main(rung: str = NO_RUNG) -> list[Path]:
    """Draw figures/paper_radars.svg and .png; files that were drawn from the same data and code are left as they are.

    Raises:
        LabError: a rung is asked for; the paper's numbers have none.
    """
    if rung != NO_RUNG:
        raise LabError(
            f"figure 'paper_radars' shows the paper's own numbers, which have no rung {rung!r}; leave it out"
        )
    stem = paths.repository_root() / "figures" / "paper_radars"
    inputs = fingerprint()
    files = [stem.with_name(f"{stem.name}.{ending}") for ending in ("svg", "png")]
    if not all(path.exists() and inputs.encode() in path.read_bytes() for path in files):
        from lab.paper.style import paper_style, save

        hashes = ", ".join(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in FILES)
        metadata = {
            "Title": "Figure 1 of arXiv 2410.08565, redrawn",
            "Description": f"drawn from {inputs}; sha256 of {hashes}; no run of this project",
        }
        with paper_style():
            files = save(draw(), stem, metadata)
    for path in files:
        print(f"figure: {path}")
    return files


def fingerprint() -> str:
    """16 hexadecimal digits of the data and the code that draws it."""
    parts = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (*FILES, Path(__file__))]
    modules = {name: path for name, path in lab_modules(("paper",)).items() if name in DRAWN_BY}
    parts += [f"{name} {digest}" for name, digest in source_hash(modules).items()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def draw() -> "Figure":
    """Both radars, a legend for both, and how they are scaled."""
    from matplotlib.figure import Figure

    from lab.paper.radar_panel import draw_radar, shade
    from lab.paper.style import LOOKS

    figure = Figure(figsize=(WIDTH, 6.2))
    left: PolarAxes = figure.add_axes((0.135, 0.265, 0.395, 0.548), projection="polar")
    right: PolarAxes = figure.add_axes((0.735, 0.47, 0.215, 0.298), projection="polar")
    looks = dict(zip(MODELS, LOOKS, strict=False))
    every = benchmarks()
    curves = {model: [benchmark.scaled.get(model) for benchmark in every] for model in MODELS}
    shade(left, [benchmark.kind for benchmark in every], labels_at=1.58)
    draw_radar(left, [benchmark.label for benchmark in every], curves, looks)
    by_kind = means()
    drawn = [model for model in MODELS if any(model in values for values in by_kind.values())]
    draw_radar(
        right,
        ["image", "video", "audio:\nnot found"],
        {m: [by_kind[kind].get(m) for kind in KINDS] for m in drawn},
        looks,
        rings_at=1,
    )
    write_values(figure, by_kind, drawn)
    figure.legend(*left.get_legend_handles_labels(), loc="lower center", bbox_to_anchor=(0.5, 0.1), ncols=4)
    figure.suptitle(TITLE, x=0.01, ha="left", fontsize="medium")
    figure.text(0.332, 0.905, "Every benchmark", ha="center", fontsize="medium")
    figure.text(0.842, 0.905, "Mean of each modality", ha="center", fontsize="medium")
    footnote = textwrap.fill(FOOTNOTE, FOOTNOTE_LETTERS)
    figure.text(0.01, 0.01, footnote, ha="left", va="bottom", fontsize="x-small")
    return figure


def write_values(figure: "Figure", by_kind: Mapping[Kind, Mapping[str, float]], drawn: list[str]) -> None:
    """The values of the right radar as a small table beneath it."""
    heights = [0.385 - 0.035 * line for line in range(1 + len(drawn))]
    columns: list[tuple[str, list[str]]] = [("", drawn)]
    columns += [(kind, [f"{by_kind[kind][m]:.3f}" if by_kind[kind] else "–" for m in drawn]) for kind in KINDS]
    for x, (head, values) in zip((0.67, 0.87, 0.93, 0.99), columns, strict=True):
        for height, text in zip(heights, (head, *values), strict=True):
            figure.text(x, height, text, ha="left" if not head else "right", fontsize="small")


if __name__ == "__main__":
    main()
