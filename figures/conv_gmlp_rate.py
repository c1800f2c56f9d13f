"""Figure 6 of the report: error against downsample rate, a line a projector, the paper's points in a panel apart."""

from pathlib import Path
from typing import TYPE_CHECKING

from lab.paper.figure_frame import WIDTH, draw_figure, seeds_run, write_heading
from lab.paper.measured import Measured
from lab.study.ablation import Ablation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRIC = "test_character_error_rate"
LABELS = {
    "conv_gmlp": "Conv-GMLP",
    "mean_pool_mlp": "Mean pooling + MLP",
    "mean_pool_gmlp": "Mean pooling + gated MLP (capacity control)",
    "conv_gmlp_budget": "Conv-GMLP, parameters as at n = 2",
    "frame_concat_mlp": "Frames concatenated + SwiGLU",
    "conv1d_mlp": "Strided convolution + MLP",
    "q_former": "Windowed Q-Former",
}
REPORTED_TITLE = "Baichuan-Omni report,\n1.5B model, mean WER over\nits ASR sets (secondary source)"
# Factors on the x axis, so that error bars at one rate stand side by side: from one to the next, and over all of them.
DODGE, WIDEST = 1.06, 1.3


def main(rung: str = "cpu") -> list[Path]:
    """Draw the rung's results; see `draw_figure`."""
    return draw_figure(Path(__file__), rung, draw)


def draw(measured: Measured) -> "Figure":
    """Ours on the left, the paper's on the right; the axes are not shared, as the numbers cannot be compared."""
    from matplotlib.figure import Figure

    projectors = measured.results["projector"].nunique()
    figure = Figure(figsize=(WIDTH, 4.4 if projectors <= 3 else 5.2), layout="constrained")
    ours, reported = figure.subplots(1, 2, width_ratios=(2.6, 1.0))
    draw_ours(ours, measured)
    draw_reported(reported, measured.ablation)
    handles, labels = ours.get_legend_handles_labels()
    figure.legend(handles, labels, handlelength=3.5, loc="outside lower left", ncols=3 if len(handles) <= 3 else 2)
    write_heading(figure, measured, "Error against downsample rate")
    return figure


def draw_ours(axes: "Axes", measured: Measured) -> None:
    """One line a projector: means with 95% intervals, single seeds as small points."""
    from lab.paper.style import LOOKS, draw_seeds

    lines = measured.results
    there = [projector for projector in LABELS if projector in set(lines["projector"])]
    step = min(DODGE, WIDEST ** (1 / len(there)))
    for at, projector in enumerate(there):
        look = LOOKS[list(LABELS).index(projector)]
        shift = step ** (at - (len(there) - 1) / 2)
        cells = lines[lines["projector"] == projector].sort_values("downsample_rate")
        points = cells.groupby("downsample_rate")[METRIC].mean() * 100
        intervals = [
            measured.interval(cells.loc[cells["downsample_rate"] == rate, "row"].iloc[0], "character_error_rate")
            for rate in points.index
        ]
        bars = [
            [max(0.0, mean - 100 * i.low) if i else 0.0 for mean, i in zip(points, intervals, strict=True)],
            [max(0.0, 100 * i.high - mean) if i else 0.0 for mean, i in zip(points, intervals, strict=True)],
        ]
        axes.errorbar(
            points.index * shift,
            points,
            yerr=bars,
            color=look.colour,
            marker=look.marker,
            linestyle=look.line,
            elinewidth=1.0,
            label=LABELS[projector],
        )
        draw_seeds(axes, cells["downsample_rate"] * shift * step**0.45, cells[METRIC] * 100, look.colour)
    _rate_axis(axes, sorted(set(lines["downsample_rate"])))
    axes.set_ylabel("test CER (%)")
    axes.set_title(f"{', '.join(measured.corpora)}, test set\n{seeds_run(measured)} (small points), 95% intervals")


def draw_reported(axes: "Axes", ablation: Ablation) -> None:
    """The paper's points, in black: another model, other test sets, another metric."""
    rates = {row.key: int(row.changes["downsample_rate"]) for row in ablation.rows}
    points = [(rates[entry.row], 100 * entry.value) for entry in ablation.reported if entry.value is not None]
    axes.plot(*zip(*sorted(points), strict=True), color="black", marker="*", markersize=9, linestyle=(0, (4, 2)))
    _rate_axis(axes, [rate for rate, _ in points])
    axes.margins(y=0.8)
    axes.locator_params(axis="y", nbins=6)
    axes.set_ylabel("WER (%)")
    axes.set_title(REPORTED_TITLE, fontsize="small")
    axes.text(0.04, 0.03, "Conv-GMLP;\npooling: not found", transform=axes.transAxes, fontsize="small")


def _rate_axis(axes: "Axes", rates: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(rates, [str(rate) for rate in rates])
    axes.minorticks_off()
    axes.set_xlim(min(rates) / 1.25, max(rates) * 1.25)
    axes.set_xlabel("downsample rate n")


if __name__ == "__main__":
    main()
