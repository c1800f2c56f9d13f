"""What may stand beneath a figure of rows: accuracy by kind of question, or the losses that a filter saw."""

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from lab.data.filters.loss_filters import Losses, loss_bounds, normality
from lab.errors import LabError
from lab.paper.measured import Measured
from lab.paper.row_figure import draw_rows
from lab.paper.style import GREY, STYLES, style_of
from lab.study.results import load_utterances

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

LABEL_LETTERS = 44
# Beyond so many kinds their names no longer stand side by side.
UPRIGHT_KINDS = 10


def kinds_height(measured: Measured) -> float:
    """Inches."""
    return 1.45 + 0.3 * measured.utterances["row"].nunique()


def draw_kinds(figure: FigureBase, measured: Measured) -> None:
    """One line a row that was run, one column a kind, and what guessing gives beneath; percent, over all seeds."""
    frame = measured.utterances
    run = set(frame["row"])
    rows = {row.key: row.label for row in measured.ablation.rows if row.key in run}
    guessed = frame.assign(guessed=frame["num_questions"] / frame["num_choices"])
    of_kind = guessed.groupby("task", sort=False)[["guessed", "num_questions"]].sum()
    kinds = list(of_kind.index)
    chance = 100 * (of_kind["guessed"] / of_kind["num_questions"]).to_numpy()
    counts = frame.groupby("task")["id"].nunique()
    sums = frame.groupby(["row", "task"])[["wrong_answers", "num_questions"]].sum()
    accuracy = 100 * (1 - sums["wrong_answers"] / sums["num_questions"]).unstack().loc[list(rows), kinds].to_numpy()
    axes = figure.subplots()
    _fill(axes, accuracy, chance)
    names = [f"{textwrap.fill(kind.replace('_', ' '), 9)}\n({counts[kind]})" for kind in kinds]
    turned = 0 if len(kinds) <= UPRIGHT_KINDS else 90
    axes.set_xticks(range(len(kinds)), names, fontsize="small", rotation=turned)
    labels = [*rows.values(), "chance"]
    axes.set_yticks(range(len(labels)), [textwrap.fill(label, LABEL_LETTERS) for label in labels], fontsize="small")
    axes.tick_params(length=0, top=False, bottom=False)
    figure.suptitle(
        "Accuracy (%) by kind of question, with the number of questions; shade: the way from chance to 100",
        x=0.01,
        ha="left",
        fontsize="medium",
    )


def _fill(axes: Axes, accuracy: Float[np.ndarray, "rows kinds"], chance: Float[np.ndarray, " kinds"]) -> None:
    above = np.clip((accuracy - chance) / (100 - chance), 0, 1)
    shades = np.vstack([above, np.zeros_like(chance)])
    axes.imshow(shades, cmap="Blues", vmin=0, vmax=1.25, aspect="auto")
    for at, line in enumerate(np.vstack([accuracy, chance])):
        for kind, value in enumerate(line):
            colour = "white" if shades[at, kind] > 0.7 else "black"
            axes.text(kind, at, f"{value:.0f}", ha="center", va="center", color=colour, fontsize="small")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.axhline(len(accuracy) - 0.5, color="white", linewidth=3)


HEIGHT = 3.0
PAPERS_ROW = "gaussian_1"
NUM_BINS = 48
CLEAN = "clean"


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
    return draw_rows(measured, title, (HEIGHT, _draw_seen) if was_run else None)


def _draw_seen(figure: FigureBase, measured: Measured) -> None:
    """The losses that the paper's own row saw."""
    frame = seen_losses(measured, PAPERS_ROW)
    losses = frame["loss"].to_numpy(np.float64)
    judged = Losses(frame["id"].tolist(), losses)
    low, high = loss_bounds(judged, "gaussian", k=measured.ablation.resolve(PAPERS_ROW, measured.rung).as_dict()["k"])
    draw_losses(figure, losses, (losses >= low) & (losses <= high), (low, high), frame["fault"].tolist())


def draw_losses(
    figure: FigureBase,
    losses: Float[np.ndarray, " samples"],
    kept: Bool[np.ndarray, " samples"],
    bounds: Sequence[float],
    kinds: Sequence[str],
) -> None:
    """Left: all losses, the fit, and the bounds beyond which they are dropped. Right: the same losses by `kinds`.

    What was planted in a sample is its kind, `CLEAN` where nothing was.
    """
    fit, middle = normality(losses), np.median(losses)
    edges = np.linspace(0.0, float(losses.max()), NUM_BINS + 1)
    every, by_kind = figure.subplots(1, 2)
    below, above = ~kept & (losses < middle), ~kept & (losses >= middle)
    for chosen, colour, label in (
        (kept, STYLES[0].colour, "kept"),
        (below, STYLES[1].colour, f"below: {np.mean(below):.0%} dropped"),
        (above, STYLES[3].colour, f"above: {np.mean(above):.0%} dropped"),
    ):
        every.hist(losses[chosen], bins=edges, color=colour, alpha=0.75, label=label)
    at = np.linspace(edges[0], edges[-1], 200)
    height = len(losses) * (edges[1] - edges[0]) / (fit.std * math.sqrt(2 * math.pi))
    every.plot(at, height * np.exp(-0.5 * ((at - fit.mean) / fit.std) ** 2), color="black", label="fitted Gaussian")
    for bound in bounds:
        every.axvline(bound, color=GREY, linestyle=(0, (4, 3)), linewidth=1.0)
    every.set(xlabel="loss of the answer (nats a token)", ylabel="training instructions")
    every.legend(fontsize="small")
    for at_kind, kind in enumerate(sorted(set(kinds), key=lambda kind: (kind != CLEAN, kind))):
        own, drawn = losses[np.array([one == kind for one in kinds])], style_of(at_kind)
        name = f"{kind.replace('_', ' ')} ({len(own)})"
        style = {"color": drawn.colour, "linestyle": drawn.line, "label": name}
        by_kind.hist(own, bins=edges, density=True, histtype="step", **style)
    for bound in bounds:
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
