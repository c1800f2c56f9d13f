"""Figure 6 of the report: error against downsample rate, a line a projector, the paper's points in a panel apart."""

from statistics import fmean
from typing import TYPE_CHECKING

from lab.paper.comparisons import rows_by_rate
from lab.paper.figure_frame import WIDTH, seeds_run, write_heading
from lab.paper.measured import Measured
from lab.study.ablation import Ablation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRIC = "test_character_error_rate"
REPORTED_TITLE = "Baichuan-Omni report,\n1.5B model, mean WER over\nits ASR sets (secondary source)"
# Factors on the x axis, so that error bars at one rate stand side by side: from one to the next, and over all of them.
DODGE, WIDEST = 1.06, 1.3


def draw(measured: Measured) -> "Figure":
    """Ours on the left, the paper's on the right; the axes are not shared, as the numbers cannot be compared."""
    from matplotlib.figure import Figure

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
    from lab.paper.style import draw_seeds, style_of

    ablation, run = measured.ablation, set(measured.results["row"])
    every = rows_by_rate(ablation, measured.rung, (row.key for row in ablation.rows))
    looks = {name: style_of(at) for at, name in enumerate(every)}
    there = {name: {n: row for n, row in sorted(rows.items()) if row in run} for name, rows in every.items()}
    there = {name: rows for name, rows in there.items() if rows}
    step = min(DODGE, WIDEST ** (1 / len(there)))
    for at, (name, rows) in enumerate(there.items()):
        own, shift = looks[name], step ** (at - (len(there) - 1) / 2)
        seeds = [(n * shift, measured.values(row, METRIC, 100)) for n, row in rows.items()]
        means = [fmean(values) for _, values in seeds]
        intervals = [measured.interval(row, "character_error_rate") for row in rows.values()]
        bars = [
            [max(0.0, mean - 100 * i.low) if i else 0.0 for mean, i in zip(means, intervals, strict=True)],
            [max(0.0, 100 * i.high - mean) if i else 0.0 for mean, i in zip(means, intervals, strict=True)],
        ]
        axes.errorbar(
            [place for place, _ in seeds],
            means,
            yerr=bars,
            color=own.colour,
            marker=own.marker,
            linestyle=own.line,
            elinewidth=1.0,
            label=name,
        )
        for place, values in seeds:
            draw_seeds(axes, [place * step**0.45] * len(values), values, own.colour)
    _rate_axis(axes, sorted({n for rows in there.values() for n in rows}))
    axes.set_ylabel("test CER (%)")
    axes.set_title(f"{', '.join(measured.corpora)}, test set\n{seeds_run(measured)} (small points), 95% intervals")


def draw_reported(axes: "Axes", ablation: Ablation) -> None:
    """The paper's points, in black: another model, other test sets, another metric."""
    rate = {entry.row: int(ablation.row(entry.row).changes["downsample_rate"]) for entry in ablation.reported}
    points = [(rate[entry.row], 100 * entry.value) for entry in ablation.reported if entry.value is not None]
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
