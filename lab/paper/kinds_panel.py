"""Accuracy by kind of question, as numbers; their shade is how much of the way from chance to 100% they are."""

import textwrap

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from lab.paper.measured import Measured

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
    of_kind = guessed.groupby("kind", sort=False)[["guessed", "num_questions"]].sum()
    kinds = list(of_kind.index)
    chance = 100 * (of_kind["guessed"] / of_kind["num_questions"]).to_numpy()
    counts = frame.groupby("kind")["question"].nunique()
    sums = frame.groupby(["row", "kind"])[["wrong_answers", "num_questions"]].sum()
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
