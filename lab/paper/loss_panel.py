"""The losses that a filter saw: their histogram with the Gaussian fitted to them, and what falls off on either side."""

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import FigureBase

from lab.data.filters.loss_columns import losses_in_memory
from lab.data.filters.loss_filters import loss_bounds
from lab.data.filters.loss_fit import normality
from lab.errors import LabError
from lab.paper.measured import Measured
from lab.paper.row_figure import draw_rows
from lab.paper.style import GREY, LOOKS, look
from lab.study.results import load_utterances

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

HEIGHT = 3.0
PAPERS_ROW = "gaussian_1"
NUM_BINS = 48


def seen_losses(measured: Measured, row: str) -> "pandas.DataFrame":
    """The training instructions of a row's first seed, with their losses, planted faults and whether they were kept.

    Raises:
        LabError: the row was not run.
    """
    if row not in set(measured.results["row"]):
        raise LabError(f"row {row!r} of {measured.ablation.name!r} has no results at rung {measured.rung!r}; run it")
    frame = load_utterances(measured.ablation, measured.rung, [row])
    frame = frame[frame["split"] == "train"]
    return frame[frame["seed"] == frame["seed"].min()]


def draw_filters(measured: Measured, title: str) -> "Figure":
    """A line a row; beneath, the losses with the fitted Gaussian, once the paper's own row was run."""
    was_run = PAPERS_ROW in set(measured.results["row"])
    below = (HEIGHT, partial(draw_losses, row=PAPERS_ROW)) if was_run else None
    return draw_rows(measured, title, below)


def draw_losses(figure: FigureBase, measured: Measured, row: str) -> None:
    """Left: all losses, the fit, and the bounds at the row's k. Right: the same losses by what was planted."""
    frame = seen_losses(measured, row)
    losses = frame["loss"].to_numpy(np.float64)
    low, high = loss_bounds(
        losses_in_memory(frame["question"].tolist(), losses),
        "gaussian",
        k=measured.ablation.resolve(row, measured.rung)["k"],
    )
    fit = normality(losses)
    edges = np.linspace(0.0, float(losses.max()), NUM_BINS + 1)
    every, by_kind = figure.subplots(1, 2)
    for values, colour, label in (
        (losses[(losses >= low) & (losses <= high)], LOOKS[0].colour, "kept"),
        (losses[losses < low], LOOKS[1].colour, f"below: {np.mean(losses < low):.0%} dropped"),
        (losses[losses > high], LOOKS[3].colour, f"above: {np.mean(losses > high):.0%} dropped"),
    ):
        every.hist(values, bins=edges, color=colour, alpha=0.75, label=label)
    at = np.linspace(edges[0], edges[-1], 200)
    height = len(losses) * (edges[1] - edges[0]) / (fit.std * math.sqrt(2 * math.pi))
    every.plot(at, height * np.exp(-0.5 * ((at - fit.mean) / fit.std) ** 2), color="black", label="fitted Gaussian")
    for bound in (low, high):
        every.axvline(bound, color=GREY, linestyle=(0, (4, 3)), linewidth=1.0)
    every.set(xlabel="loss of the answer (nats a token)", ylabel="training instructions")
    every.legend(fontsize="small")
    kinds = ["clean", *sorted(set(frame["kind"]) - {"clean"})]
    for at_kind, kind in enumerate(kinds):
        own, drawn = frame.loc[frame["kind"] == kind, "loss"], look(at_kind)
        name = f"{kind.replace('_', ' ')} ({len(own)})"
        style = {"color": drawn.colour, "linestyle": drawn.line, "label": name}
        by_kind.hist(own, bins=edges, density=True, histtype="step", **style)
    for bound in (low, high):
        by_kind.axvline(bound, color=GREY, linestyle=(0, (4, 3)), linewidth=1.0)
    by_kind.set(xlabel="loss of the answer (nats a token)", ylabel="density")
    by_kind.legend(fontsize="small")
    tested = "" if fit.p_value is None else f", normality test p = {fit.p_value:.1g}"
    figure.suptitle(
        f"Losses before training: skewness {fit.skewness:+.2f}, excess kurtosis {fit.excess_kurtosis:+.2f}, "
        f"{fit.distance:.2f} from the Gaussian{tested}",
        x=0.01,
        ha="left",
        fontsize="medium",
    )
