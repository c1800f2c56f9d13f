"""A study of rows as a figure: a line a row with its seeds and interval, chance dashed, the paper's numbers apart.

Scores are in the units of the table (percent, not fractions). Beneath the rows may stand their accuracy by kind of
question, or the losses that a filter saw. Rows may be drawn against a number too (`draw_against`).
"""

import math
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np
import seaborn as sns
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from lab.data.filters.loss_filters import Losses, loss_bounds, normality
from lab.errors import LabError
from lab.paper.measured import Measured
from lab.paper.style import GREY, STYLES, WIDTH, SeriesStyle, draw_seeds, style_of
from lab.study.ablation import Ablation, Column, Reported
from lab.study.results import load_utterances

# What a label begins with where the row is no contender but what contenders are held against.
YARDSTICKS = ("Baseline", "Control")
DASHES = (0, (4, 3))
HEADING_LETTERS, LABEL_LETTERS, REPORTED_LETTERS, KIND_LETTERS = 106, 30, 22, 44  # that fit into a line
PAPERS_ROW, CLEAN = "gaussian_1", "clean"
NUM_BINS = 48

Beneath = tuple[float, Callable[[FigureBase], None]]
"""A panel beneath the rows: its height in inches, and what fills it."""


@dataclass(frozen=True, kw_only=True)
class RowScore:
    """One row that was run: the mean, the ends of its 95% interval (the mean where there is none), and its seeds."""

    key: str
    label: str
    mean: float
    low: float
    high: float
    seeds: tuple[float, ...]

    @property
    def is_yardstick(self) -> bool:
        """A baseline or a control: its label says so."""
        return self.label.startswith(YARDSTICKS)

    @property
    def reach(self) -> tuple[float, float]:
        """How far the interval reaches below and above the mean."""
        return max(0.0, self.mean - self.low), max(0.0, self.high - self.mean)


def score_column(measured: Measured) -> Column:
    """The column that is counted from single answers."""
    if measured.counted is None:
        raise LabError(
            f"a figure of rows shows the column whose `interval` is set, but ablation {measured.ablation.name!r} "
            "declares none"
        )
    return measured.counted[0]


def row_scores(measured: Measured, column: Column | None = None) -> list[RowScore]:
    """The rows that were run, in the order of their declaration; of the counted column where none is given."""
    column = column or score_column(measured)
    scores = []
    for row in measured.ablation.rows:
        if values := measured.values(row.key, column.metric, column.scale):
            mean, interval = fmean(values), measured.column_interval(row.key, column)
            low, high = (interval.low * column.scale, interval.high * column.scale) if interval else (mean, mean)
            scores.append(RowScore(key=row.key, label=row.label, mean=mean, low=low, high=high, seeds=values))
    return scores


def mean_chance(measured: Measured, column: Column | None = None) -> float | None:
    """What guessing gives, over all cells, at a column (else the counted one); None where it was not measured."""
    column = column or score_column(measured)
    name = f"{column.test or 'test'}_chance"
    return float(measured.results[name].mean()) * column.scale if name in measured.results else None


def panel_title(measured: Measured) -> str:
    """What was tested, and what points, bars and the line of chance are."""
    metric = measured.counted[1] if measured.counted else None
    counts = measured.results.groupby("row")["seed"].nunique()
    few, many = int(counts.min()), int(counts.max())
    seeds = f"{few} to {many} seeds" if few < many else "1 seed" if many == 1 else f"{many} seeds"
    over = f" over {metric.groups} alone" if metric and many == 1 else ""
    lines = [f"{', '.join(measured.corpora)}, test set", f"{seeds} (small points), 95% intervals{over}"]
    if (chance := mean_chance(measured)) is not None:
        lines.append(f"dashed: chance, {chance:.1f}%")
    return "\n".join(textwrap.fill(line, 70) for line in lines)


def write_heading(figure: Figure, measured: Measured, title: str) -> None:
    """The title, and beneath it the rung with its description."""
    rung = measured.ablation.rung(measured.rung)
    told = textwrap.fill(f"Rung {rung.name}: {rung.description}", HEADING_LETTERS)
    figure.suptitle(f"{title}\n{told}", x=0.01, ha="left", fontsize="medium")


def draw_rows(measured: Measured, title: str, beneath: Beneath | None = None) -> Figure:
    """The rows that were run, the paper's numbers to their right where there are any, `beneath` under both."""
    column = score_column(measured)
    scores, shown = row_scores(measured), stars(measured.ablation, column)
    height = max(
        1.3 + sum(0.2 + 0.15 * _num_lines(score.label, LABEL_LETTERS) for score in scores),
        1.4 + len(shown) * max([0.4, *(0.06 + 0.14 * _num_lines(label, REPORTED_LETTERS) for label, _ in shown)]),
    )
    further = beneath[0] if beneath else 0.0
    figure = Figure(figsize=(WIDTH, 0.9 + height + further), layout="constrained")
    top: FigureBase = figure
    if beneath:
        parts: Any = figure.subfigures(2, 1, height_ratios=(height, further))
        top, foot = parts
    widths = (1.9, 1.0) if shown else (1.0,)
    panels = top.subfigures(1, len(widths), width_ratios=widths, squeeze=False)[0]
    draw_scores(panels[0].subplots(), scores, mean_chance(measured))
    panels[0].suptitle(panel_title(measured), x=0.02, ha="left", fontsize="medium")
    for panel in panels[1:]:
        _draw_stars(panel.subplots(), shown)
        sources = "; ".join(dict.fromkeys(entry.source for entry in _found(measured.ablation, column)))
        text = f"The paper's numbers, of another model and other test sets ({sources})"
        text = textwrap.fill(text, 38, break_on_hyphens=False)
        panel.suptitle(text, x=0.02, ha="left", fontsize="small")
    if beneath:
        beneath[1](foot)
    for panel in panels:
        panel.axes[0].set_xlabel(f"{column.label} ({column.unit})")
    write_heading(figure, measured, title)
    write_footnote(figure, measured)
    return figure


def _num_lines(label: str, letters: int) -> int:
    return len(textwrap.wrap(label, letters))


def _label_lines(axes: Axes, labels: Sequence[str], letters: int, **look: Any) -> range:
    """One line a label from the top; returns their heights."""
    heights = range(len(labels), 0, -1)
    axes.set_yticks(heights, [textwrap.fill(label, letters) for label in labels], **look)
    axes.grid(False)
    axes.grid(axis="x")
    return heights


def draw_scores(axes: Axes, scores: Sequence[RowScore], chance: float | None) -> None:
    """The mean with its interval, and the single seeds beneath it; yardsticks in grey."""
    if chance is not None:
        axes.axvline(chance, color=GREY, linestyle=DASHES, linewidth=1.0, zorder=1)
    heights = _label_lines(axes, [score.label for score in scores], LABEL_LETTERS)
    for score, height in zip(scores, heights, strict=True):
        colour = GREY if score.is_yardstick else STYLES[0].colour
        marker = "s" if score.is_yardstick else STYLES[0].marker
        reach = [[end] for end in score.reach]
        look: Any = {"color": colour, "marker": marker, "elinewidth": 1.4, "linestyle": "none"}
        axes.errorbar(score.mean, height, xerr=reach, **look)
        draw_seeds(axes, score.seeds, [height - 0.27] * len(score.seeds), colour)
    axes.set_ylim(0.4, len(scores) + 0.6)
    axes.set_xlim(*(min(max(end, -1.0), 101.0) for end in axes.get_xlim()))


def draw_against(axes: Axes, series: Mapping[str, Mapping[float, RowScore]], looks: Mapping[str, SeriesStyle]) -> None:
    """Series of scores by a number, on a logarithmic axis; those at one number stand side by side."""
    step = min(1.06, 1.3 ** (1 / len(series)))
    for at, (name, scores) in enumerate(series.items()):
        own, shift = looks[name], step ** (at - (len(series) - 1) / 2)
        places = [number * shift for number in scores]
        bars = list(zip(*(score.reach for score in scores.values()), strict=True))
        look: Any = {"color": own.colour, "marker": own.marker, "linestyle": own.line, "elinewidth": 1.0}
        axes.errorbar(places, [score.mean for score in scores.values()], yerr=bars, label=name, **look)
        for place, score in zip(places, scores.values(), strict=True):
            draw_seeds(axes, [place * step**0.45] * len(score.seeds), score.seeds, own.colour)
    number_axis(axes, sorted({number for scores in series.values() for number in scores}))


def number_axis(axes: Axes, numbers: Sequence[float]) -> None:
    """A logarithmic axis with a tick at each of these numbers, which ascend."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [f"{number:.4g}" for number in numbers])
    axes.minorticks_off()
    axes.set_xlim(numbers[0] / 1.25, numbers[-1] * 1.25)


def _found(ablation: Ablation, column: Column) -> list[Reported]:
    return [entry for entry in ablation.reported if entry.metric == column.metric and entry.value is not None]


def stars(ablation: Ablation, column: Column) -> list[tuple[str, float]]:
    """The paper's numbers that were found, with labels; test set by test set where a row has several."""
    found = _found(ablation, column)
    several = Counter(entry.row for entry in found)
    notes = list(dict.fromkeys(entry.note for entry in found))
    found.sort(key=lambda entry: notes.index(entry.note) if several[entry.row] > 1 else -1)
    labelled = []
    for entry in found:
        label = ablation.row(entry.row).label
        if several[entry.row] > 1:
            first = label.split()[0][1:]
            # As within a sentence; "AnyRes" and "MLP" stay as they are.
            label = f"{entry.note}: {label if first != first.lower() else label[:1].lower() + label[1:]}"
        labelled.append((label, (entry.value or 0.0) * column.scale))
    return labelled


def _draw_stars(axes: Axes, shown: Sequence[tuple[str, float]]) -> None:
    heights = _label_lines(axes, [label for label, _ in shown], REPORTED_LETTERS, fontsize="small")
    axes.plot([value for _, value in shown], heights, color="black", marker="*", markersize=9, linestyle="none")
    above: Any = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center", "va": "bottom", "fontsize": "small"}
    for (_, value), height in zip(shown, heights, strict=True):
        axes.annotate(f"{value:.1f}", (value, height), **above)
    axes.set_ylim(0.4, len(shown) + 0.8)
    axes.margins(x=0.4)
    axes.locator_params(axis="x", nbins=4)


def footnote(ablation: Ablation, column: Column) -> str:
    """What the paper's numbers are of, and for which rows none was found."""
    found = _found(ablation, column)
    several = Counter(entry.row for entry in found)
    notes = dict.fromkeys(entry.note for entry in found if entry.note and several[entry.row] == 1)
    sentences = [f"Reported: {note}." for note in notes] if found else ["The paper's numbers: not found."]
    if found and (missing := [ablation.row(entry.row).label for entry in ablation.reported if entry.value is None]):
        sentences.append(f"Not found: {'; '.join(missing)}.")
    others = [entry for entry in ablation.reported if entry.metric != column.metric and entry.value is not None]
    if others:
        measures = ", ".join(dict.fromkeys(entry.metric for entry in others))
        sentences.append(f"The paper's numbers of other measures ({measures}) stand in the table alone.")
    return " ".join(sentences)


def write_footnote(figure: Figure, measured: Measured) -> None:
    """What is to be said of the paper's numbers, at the foot."""
    text = footnote(measured.ablation, score_column(measured))
    figure.supxlabel(textwrap.fill(text, HEADING_LETTERS + 12), x=0.01, ha="left", fontsize="small")


def kinds_beneath(measured: Measured) -> Beneath:
    """One line a row that was run, one column a kind of question, and what guessing gives beneath; over all seeds."""
    return 1.45 + 0.3 * measured.utterances["row"].nunique(), partial(_draw_kinds, measured=measured)


def _draw_kinds(figure: FigureBase, measured: Measured) -> None:
    frame = measured.utterances
    rows = {row.key: row.label for row in measured.ablation.rows if row.key in set(frame["row"])}
    guessed = frame.assign(guessed=frame["num_questions"] / frame["num_choices"])
    of_kind = guessed.groupby("task", sort=False)[["guessed", "num_questions"]].sum()
    kinds = list(of_kind.index)
    chance = 100 * (of_kind["guessed"] / of_kind["num_questions"]).to_numpy()
    counts = frame.groupby("task")["id"].nunique()
    sums = frame.groupby(["row", "task"])[["wrong_answers", "num_questions"]].sum()
    accuracy = 100 * (1 - sums["wrong_answers"] / sums["num_questions"]).unstack().loc[list(rows), kinds].to_numpy()
    shades = np.vstack([np.clip((accuracy - chance) / (100 - chance), 0, 1), np.zeros_like(chance)])
    axes = figure.subplots()
    sns.heatmap(
        shades,
        annot=np.vstack([accuracy, chance]),
        fmt=".0f",
        cmap="Blues",
        vmin=0,
        vmax=1.25,
        cbar=False,
        annot_kws={"fontsize": "small"},
        ax=axes,
    )
    names = [f"{textwrap.fill(kind.replace('_', ' '), 9)}\n({counts[kind]})" for kind in kinds]
    axes.set_xticks(np.arange(len(kinds)) + 0.5, names, fontsize="small", rotation=0)
    labels = [textwrap.fill(label, KIND_LETTERS) for label in (*rows.values(), "chance")]
    axes.set_yticks(np.arange(len(labels)) + 0.5, labels, fontsize="small", rotation=0)
    axes.tick_params(length=0)
    axes.axhline(len(accuracy), color="white", linewidth=3)
    title = "Accuracy (%) by kind of question, with the number of questions; shade: the way from chance to 100"
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")


def losses_beneath(measured: Measured) -> Beneath | None:
    """The losses that the paper's own row saw with its first seed, and the fit; None where it was not run."""
    was_run = PAPERS_ROW in set(measured.results["row"])
    return (3.0, partial(_draw_seen, measured=measured)) if was_run else None


def _draw_seen(figure: FigureBase, measured: Measured) -> None:
    frame = load_utterances(measured.ablation, measured.rung, [PAPERS_ROW])
    frame = frame[(frame["split"] == "train") & (frame["seed"] == frame["seed"].min())]
    losses = frame["loss"].to_numpy(np.float64)
    k = measured.ablation.resolve(PAPERS_ROW, measured.rung).as_dict()["k"]
    low, high = loss_bounds(Losses(frame["id"].tolist(), losses), "gaussian", k=k)
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
    middle = np.median(losses)
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
    mean, std = losses.mean(), losses.std()
    height = len(losses) * (edges[1] - edges[0]) / (std * math.sqrt(2 * math.pi))
    every.plot(at, height * np.exp(-0.5 * ((at - mean) / std) ** 2), color="black", label="fitted Gaussian")
    for place, kind in enumerate(sorted(set(kinds), key=lambda kind: (kind != CLEAN, kind))):
        own, drawn = losses[np.array([one == kind for one in kinds])], style_of(place)
        look: Any = {"color": drawn.colour, "linestyle": drawn.line, "label": f"{kind.replace('_', ' ')} ({len(own)})"}
        by_kind.hist(own, bins=edges, density=True, histtype="step", **look)
    for axes, label in ((every, "training instructions"), (by_kind, "density")):
        for bound in bounds:
            axes.axvline(bound, color=GREY, linestyle=DASHES, linewidth=1.0)
        axes.set(xlabel="loss of the answer (nats a token)", ylabel=label)
        axes.legend(fontsize="small")
    figure.suptitle(f"Losses before training: {normality(losses)}", x=0.01, ha="left", fontsize="medium")
