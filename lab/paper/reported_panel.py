"""The paper's own numbers beside a figure of rows: black stars on an axis of their own, and where they are from."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from lab.study.ablation import Ablation, Column, Reported

LABEL_LETTERS = 22
TITLE_LETTERS = 38


@dataclass(frozen=True, kw_only=True)
class Star:
    """One number of the paper, in the table's units."""

    label: str
    value: float


def stars(ablation: Ablation, column: Column) -> list[Star]:
    """Every number that was found, in the order of declaration; test set by test set where a row has several."""
    found = _found(ablation, column)
    several = Counter(entry.row for entry in found)
    notes = list(dict.fromkeys(entry.note for entry in found))
    found.sort(key=lambda entry: notes.index(entry.note) if several[entry.row] > 1 else -1)
    return [
        Star(
            label=f"{entry.note}: {_lower(label)}" if several[entry.row] > 1 else label,
            value=(entry.value or 0.0) * column.scale,
        )
        for entry in found
        for label in (ablation.row(entry.row).label,)
    ]


def _found(ablation: Ablation, column: Column) -> list[Reported]:
    return [entry for entry in ablation.reported if entry.metric == column.metric and entry.value is not None]


def _lower(label: str) -> str:
    """As within a sentence; "AnyRes" and "MLP" stay as they are."""
    first = label.split()[0]
    return label if first[1:] != first[1:].lower() else label[:1].lower() + label[1:]


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


def reported_height(ablation: Ablation, column: Column) -> float:
    """Inches."""
    lines = [len(textwrap.wrap(star.label, LABEL_LETTERS)) for star in stars(ablation, column)]
    return 1.4 + max(0.14 * max(lines, default=0) + 0.06, 0.4) * len(lines)


def draw_reported(figure: FigureBase, ablation: Ablation, column: Column) -> Axes:
    """Fill a figure, or a part of one, with the paper's numbers."""
    shown = stars(ablation, column)
    axes: Axes = figure.subplots()
    heights = range(len(shown), 0, -1)
    axes.plot([star.value for star in shown], heights, color="black", marker="*", markersize=9, linestyle="none")
    for star, height in zip(shown, heights, strict=True):
        axes.annotate(
            f"{star.value:.1f}",
            (star.value, height),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize="small",
        )
    axes.set_yticks(heights, [textwrap.fill(star.label, LABEL_LETTERS) for star in shown], fontsize="small")
    axes.set_ylim(0.4, len(shown) + 0.8)
    axes.margins(x=0.4)
    axes.locator_params(axis="x", nbins=4)
    axes.grid(False)
    axes.grid(axis="x")
    axes.set_xlabel(f"{column.label} ({column.unit})")
    figure.suptitle(_title(_found(ablation, column)), x=0.02, ha="left", fontsize="small")
    return axes


def _title(found: Sequence[Reported]) -> str:
    sources = "; ".join(dict.fromkeys(entry.source for entry in found))
    text = f"The paper's numbers, of another model and other test sets ({sources})"
    return textwrap.fill(text, TITLE_LETTERS, break_on_hyphens=False)
