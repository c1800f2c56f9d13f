"""Figure 1 of the report: every benchmark, and the mean of each modality, of the paper's own numbers alone.

The paper scales by (x - min + 10) / (max - min + 10), least and largest over the models drawn; where lower is better
the axis is turned, (max - x + 10) / (max - min + 10), which is the same formula of -x. So the best model is at 1 and
the worst above 0, the nearer to it the further apart they are.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.projections.polar import PolarAxes

from lab.errors import LabError
from lab.paper.ledger.cells import Table, table
from lab.paper.style import GREY, STYLES, WIDTH, SeriesStyle

Kind = Literal["image", "video", "audio"]
KINDS: tuple[Kind, ...] = ("image", "video", "audio")
MODELS = {
    "Baichuan-Omni": "Baichuan-Omni 7B",
    "Qwen2-VL": "Qwen2-VL 7B",
    "VITA": "VITA 8x7B",
    "Qwen2-Audio": "Qwen2-Audio-Instruct 7B",
}
"""What the curves are called, and the models' names in the tables."""

# VITA reports a CER alone on WenetSpeech; which of the two rates the paper draws is not found.
_AUDIO = {
    "WenetSpeech\nnet, CER": ("WenetSpeech test_net", "CER"),
    "WenetSpeech\nmeeting, CER": ("WenetSpeech test_meeting", "CER"),
    "Fleurs en": ("Fleurs test-en", "WER"),
    "Fleurs zh": ("Fleurs test-zh", "WER"),
    "KeSpeech, mean": ("KeSpeech, mean of the nine", "WER"),
}
_NOT_AVERAGED = "MME"  # a sum of points among percentages; without it the derived checks come out


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One axis of the left radar: what each model scored, in the printed unit; models without a value are left out."""

    label: str
    kind: Kind
    better: Literal["lower", "higher"]
    values: Mapping[str, float]

    @property
    def scaled(self) -> dict[str, float]:
        """The values as they are drawn."""
        return scaled(self.values, self.better)


def scaled(values: Mapping[str, float], better: Literal["lower", "higher"] = "higher") -> dict[str, float]:
    """Values by model on the paper's scale: 1 for the best, above 0 for the worst.

    Raises:
        LabError: there are no values.
    """
    if not values:
        raise LabError("the scale of figure 1 runs from the worst to the best value, so it needs at least one")
    sign = 1.0 if better == "higher" else -1.0
    signed = {model: sign * value for model, value in values.items()}
    low, high = min(signed.values()), max(signed.values())
    return {model: (value - low + 10) / (high - low + 10) for model, value in signed.items()}


def benchmarks() -> list[Benchmark]:
    """The axes of the left radar, in the tables' order: 13 of images, 6 of video, 5 of audio.

    Differs from the paper: it draws 11 of the 13 image benchmarks, and which they are is not found.
    """
    image = [_benchmark(table(name), column, "image") for name in ("table_2", "table_3") for column in _of(name)]
    video = [_benchmark(table("table_4"), column, "video", "top-1 accuracy") for column in _of("table_4")]
    video += [_benchmark(table("table_5"), column, "video", "accuracy") for column in _of("table_5")]
    speech = table("table_6")
    audio = [_benchmark(speech, row, "audio", metric, label) for label, (row, metric) in _AUDIO.items()]
    return [*image, *video, *audio]


def _of(name: str) -> list[str]:
    return table(name).columns


def _benchmark(source: Table, name: str, kind: Kind, metric: str = "", label: str = "") -> Benchmark:
    places = ((model, name) if source.models == "rows" else (name, model) for model in MODELS.values())
    values = {}
    better: Literal["lower", "higher"] = "higher"
    for model, (row, column) in zip(MODELS, places, strict=True):
        if row not in source.rows or column not in source.columns:
            continue
        cells = [cell for cell in source.at(row, column) if metric in ("", cell.metric)]
        # Of two values the figure has the one that the paper's authors ran, as the derived checks show.
        cell = next((cell for cell in cells if len(cells) > 1 and cell.measured_by == "authors"), cells[0])
        better = cell.better
        if cell.value is not None:
            values[model] = float(cell.value)
    return Benchmark(label=label or name, kind=kind, better=better, values=values)


def facts() -> dict[str, Any]:
    """What both radars show: the axes of the left one with the values as drawn, and the means of the right one."""
    axes = [{"label": axis.label, "kind": axis.kind, "values": axis.scaled} for axis in benchmarks()]
    return {"benchmarks": axes, "means": means()}


def means() -> dict[Kind, dict[str, float]]:
    """The axes of the right radar: benchmarks averaged first and scaled after, for models that have all of a kind.

    Images without MME, which is no percentage. The audio axis is empty: the paper's could not be reproduced, so that
    no value of it is known.
    """
    found: dict[Kind, dict[str, float]] = {"audio": {}}
    every = benchmarks()
    for kind in ("image", "video"):
        mine = [benchmark for benchmark in every if benchmark.kind == kind and benchmark.label != _NOT_AVERAGED]
        whole = [model for model in MODELS if all(model in benchmark.values for benchmark in mine)]
        found[kind] = scaled({m: sum(benchmark.values[m] for benchmark in mine) / len(mine) for m in whole})
    return {kind: found[kind] for kind in KINDS}


RINGS = (0.25, 0.5, 0.75, 1.0)
LABELLED = (0.25, 0.75)
_DIAGONALS = np.pi / 4 + np.pi / 2 * np.arange(4)
_LABELS_AT = 1.07
_SHADES = ("#FFFFFF", "#F0F0F0", "#E4E4E4")


def shade(axes: PolarAxes, groups: Sequence[str], labels_at: float) -> None:
    """Tell runs of neighbouring axes apart by a shade of grey, with their names outside; `groups` has one an axis."""
    width = 2 * np.pi / len(groups)
    for at, name in enumerate(dict.fromkeys(groups)):
        mine = [index for index, group in enumerate(groups) if group == name]
        middle = width * (mine[0] + mine[-1]) / 2
        axes.bar(middle, 1, width=width * len(mine), color=_SHADES[at % len(_SHADES)], zorder=0)
        corner = _DIAGONALS[np.argmin(np.abs(_DIAGONALS - middle))]  # where labels of axes leave room
        axes.text(corner, labels_at, name, ha="center", va="center", color=GREY, fontweight="bold")


def spokes(count: int) -> np.ndarray:
    """The angles of the axes, in radians."""
    angles: np.ndarray = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return angles


def draw_radar(
    axes: PolarAxes,
    labels: Sequence[str],
    curves: Mapping[str, Sequence[float | None]],
    looks: Mapping[str, SeriesStyle],
    rings_at: int = 0,
) -> None:
    """Draw curves of values from 0 to 1, one a label; None is a gap.

    Args:
        rings_at: the rings are labelled between this axis and the next, where no curve should be.
    """
    angles = spokes(len(labels))
    axes.set_theta_zero_location("N")
    axes.set_theta_direction(-1)
    axes.set_ylim(0, 1)
    axes.set_yticks(RINGS, [f"{ring:g}" if ring in LABELLED else "" for ring in RINGS], fontsize="x-small", color=GREY)
    axes.set_rlabel_position(np.degrees(angles[rings_at : rings_at + 2].mean()))
    axes.set_xticks(angles, [""] * len(labels))
    axes.grid(True, axis="both", color="#DDDDDD")
    axes.spines["polar"].set_color("#BBBBBB")
    for model, values in curves.items():
        look = looks[model]
        closed = [np.nan if value is None else value for value in (*values, values[0])]
        axes.plot(
            [*angles, angles[0]],
            closed,
            label=model,
            color=look.colour,
            marker=look.marker,
            linestyle=look.line,
            markersize=4.5,
            clip_on=False,
            zorder=3,
        )
    for angle, label in zip(angles, labels, strict=True):
        side = np.sin(angle)
        axes.text(
            angle,
            _LABELS_AT,
            label,
            ha="center" if abs(side) < 0.1 else "left" if side > 0 else "right",
            va="bottom" if np.cos(angle) > 0.9 else "top" if np.cos(angle) < -0.9 else "center",
            fontsize="small",
        )


TITLE = "Figure 1 redrawn: the paper's own numbers (tables 2 to 6), none measured by this project"
FOOTNOTE = (
    "Scaled as in the paper, (x - min + 10) / (max - min + 10) over the models drawn, error rates turned about: the "
    "best is at 1. A curve is broken where its model has no value. Left: the paper draws 11 of these 13 image sets; "
    "which, is not found. MME is in points, where the formula's 10 hardly counts. WenetSpeech by CER: VITA has no WER. "
    "Right: means first, scaled after, images without MME; Qwen2-VL's video as the paper's authors ran it. The paper's "
    "audio axis could not be reproduced. Source: primary, the authors' table images; the KeSpeech mean is derived."
)
FOOTNOTE_LETTERS = 158


def draw(facts: Mapping[str, Any]) -> Figure:
    """Both radars, a legend for both, and how they are scaled."""
    figure = Figure(figsize=(WIDTH, 6.2))
    left: PolarAxes = figure.add_axes((0.135, 0.265, 0.395, 0.548), projection="polar")
    right: PolarAxes = figure.add_axes((0.735, 0.47, 0.215, 0.298), projection="polar")
    looks = dict(zip(MODELS, STYLES, strict=False))
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


def write_values(figure: Figure, by_kind: Mapping[Kind, Mapping[str, float]], drawn: list[str]) -> None:
    """The values of the right radar as a small table beneath it."""
    heights = [0.385 - 0.035 * line for line in range(1 + len(drawn))]
    columns: list[tuple[str, list[str]]] = [("", drawn)]
    columns += [(kind, [f"{by_kind[kind][m]:.3f}" if by_kind[kind] else "–" for m in drawn]) for kind in KINDS]
    for x, (head, values) in zip((0.67, 0.87, 0.93, 0.99), columns, strict=True):
        for height, text in zip(heights, (head, *values), strict=True):
            figure.text(x, height, text, ha="left" if not head else "right", fontsize="small")
