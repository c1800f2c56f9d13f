"""Figure 6 of the report: error against downsample rate, a line a projector, the paper's points in a panel apart."""

from typing import TYPE_CHECKING

from lab.paper.measured import Measured
from lab.paper.tables import rows_by_rate
from lab.study.ablation import Ablation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REPORTED_TITLE = "Baichuan-Omni report,\n1.5B model, mean WER over\nits ASR sets (secondary source)"


def draw(measured: Measured) -> "Figure":
    """Ours on the left, the paper's on the right; the axes are not shared, as the numbers cannot be compared."""
    from matplotlib.figure import Figure

    from lab.paper.row_figure import write_heading
    from lab.paper.style import WIDTH

    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    ours, reported = figure.subplots(1, 2, width_ratios=(2.6, 1.0))
    draw_ours(ours, measured)
    draw_reported(reported, measured.ablation)
    handles, labels = ours.get_legend_handles_labels()
    few = len(handles) <= 3
    figure.set_figheight(4.4 if few else 5.2)
    figure.legend(handles, labels, handlelength=3.5, loc="outside lower left", ncols=3 if few else 2)
    write_heading(figure, measured, "Error against downsample rate")
    return figure


def draw_ours(axes: "Axes", measured: Measured) -> None:
    """A line for all rows whose labels differ in n alone: means with 95% intervals, single seeds as small points."""
    from lab.paper.row_figure import draw_against, panel_title, row_scores
    from lab.paper.style import style_of

    scores = {score.key: score for score in row_scores(measured)}
    every = rows_by_rate(measured.ablation, measured.rung, (row.key for row in measured.ablation.rows))
    looks = {name: style_of(at) for at, name in enumerate(every)}
    run = {name: {n: scores[row] for n, row in sorted(rows.items()) if row in scores} for name, rows in every.items()}
    draw_against(axes, {name: rows for name, rows in run.items() if rows}, looks)
    axes.set(xlabel="downsample rate n", ylabel="test CER (%)")
    axes.set_title(panel_title(measured))


def draw_reported(axes: "Axes", ablation: Ablation) -> None:
    """The paper's points, in black: another model, other test sets, another metric."""
    from lab.paper.row_figure import number_axis

    rate = {entry.row: int(ablation.row(entry.row).changes["downsample_rate"]) for entry in ablation.reported}
    points = sorted((rate[entry.row], 100 * entry.value) for entry in ablation.reported if entry.value is not None)
    axes.plot(*zip(*points, strict=True), color="black", marker="*", markersize=9, linestyle=(0, (4, 2)))
    number_axis(axes, [n for n, _ in points])
    axes.margins(y=0.8)
    axes.locator_params(axis="y", nbins=6)
    axes.set(xlabel="downsample rate n", ylabel="WER (%)")
    axes.set_title(REPORTED_TITLE, fontsize="small")
    axes.text(0.04, 0.03, "Conv-GMLP;\npooling: not found", transform=axes.transAxes, fontsize="small")
