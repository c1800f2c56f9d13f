"""Figure 1 of the report: every benchmark, and the mean of each modality, of the paper's own numbers alone."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.paper.data_figure import DataFigure
from lab.paper.figure_frame import WIDTH
from lab.paper.radars import KINDS, MODELS, Kind, radars

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.projections.polar import PolarAxes

TITLE = "Figure 1 redrawn: the paper's own numbers (tables 2 to 6), none measured by this project"
FOOTNOTE = (
    "Scaled as in the paper, (x - min + 10) / (max - min + 10) over the models drawn, error rates turned about: the "
    "best is at 1. A curve is broken where its model has no value. Left: the paper draws 11 of these 13 image sets; "
    "which, is not found. MME is in points, where the formula's 10 hardly counts. WenetSpeech by CER: VITA has no WER. "
    "Right: means first, scaled after, images without MME; Qwen2-VL's video as the paper's authors ran it. The paper's "
    "audio axis could not be reproduced. Source: primary, the authors' table images; the KeSpeech mean is derived."
)
FOOTNOTE_LETTERS = 158


def draw(facts: Mapping[str, Any]) -> "Figure":
    """Both radars, a legend for both, and how they are scaled."""
    from matplotlib.figure import Figure

    from lab.paper.radar_panel import draw_radar, shade
    from lab.paper.style import LOOKS

    figure = Figure(figsize=(WIDTH, 6.2))
    left: PolarAxes = figure.add_axes((0.135, 0.265, 0.395, 0.548), projection="polar")
    right: PolarAxes = figure.add_axes((0.735, 0.47, 0.215, 0.298), projection="polar")
    looks = dict(zip(MODELS, LOOKS, strict=False))
    every = facts["benchmarks"]
    curves = {model: [axis["values"].get(model) for axis in every] for model in MODELS}
    shade(left, [axis["kind"] for axis in every], labels_at=1.58)
    draw_radar(left, [axis["label"] for axis in every], curves, looks)
    by_kind = facts["means"]
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


FIGURE = DataFigure(script=Path(__file__), title="Figure 1 of arXiv 2410.08565, redrawn", facts=radars, draw=draw)
main = FIGURE.main


if __name__ == "__main__":
    main()
