"""Figure 4 of the report: the stages of training, what each trains and how fast, on which data.

Everything is taken from `lab.training.stages`.
"""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lab.errors import LabError
from lab.paper.style import GREY, SMALL, TINTS, WIDTH, arrow, box, canvas
from lab.training.stages import PAPER_STAGES, PARTS

NOT_FOUND = "not found"


def facts() -> dict[str, Any]:
    """The parts, and by stage: what trains how fast, what is frozen, data, schedule, and the stages before it."""
    return {
        "parts": dict(PARTS),
        "stages": {
            name: {
                "trained": {part: shown_rate(stage.learning_rates[part]) for part in stage.trained},
                "frozen": list(stage.frozen),
                "data": list(stage.data),
                "weights": NOT_FOUND
                if len(stage.data) > 1 and None in stage.data.values()
                else ", ".join(f"{share:.0%}" for share in stage.mixing_shares.values()),
                "schedule": stage.schedule or NOT_FOUND,
                "length": next((f"{n:,}" for n in (stage.steps, stage.tokens) if n is not None), NOT_FOUND),
                "starts_from": NOT_FOUND if stage.starts_from is None else list(stage.starts_from),
            }
            for name, stage in PAPER_STAGES.items()
        },
    }


def shown_rate(rate: float | None) -> str:
    """As the paper writes it: 1e-3."""
    if rate is None:
        return NOT_FOUND
    digits, _, exponent = f"{rate:.0e}".partition("e")
    return f"{digits}e{int(exponent)}"


HEIGHT = 6.3
LEFT, COLUMN, CELL = 1.35, 1.02, 0.33
TOP, TABLE, LINE = 5.0, 4.35, 0.13
FOOTNOTE_LETTERS = 150
# In the paper's order: three branches, then what joins them.
ORDER = ("image_1", "image_2", "image_3", "video", "audio", "omni_alignment", "sft")
TITLES = {"omni_alignment": ("Omni-", "alignment"), "sft": ("SFT",)}
TINT_OF = {"encoder": "encoder", "projector": "projector", "model": "language_model"}


def draw(facts: Mapping[str, Any]) -> Figure:
    """The stages as boxes with arrows, and under each what trains, what is frozen and its data.

    Raises:
        LabError: there is a stage that has no column.
    """
    if strange := facts["stages"].keys() - set(ORDER):
        raise LabError(
            f"figure 'paper_pipeline' has no column for the stage {', '.join(sorted(strange))} of "
            f"lab/training/stages.py; give it a place in ORDER of {Path(__file__).name}, which has {', '.join(ORDER)}"
        )
    figure, axes = canvas(WIDTH, HEIGHT)
    stages = {name: facts["stages"][name] for name in sorted(facts["stages"], key=ORDER.index)}
    left = {name: LEFT + COLUMN * number for number, name in enumerate(stages)}
    for name, x in left.items():
        words = TITLES.get(name, (name.replace("_", " ").capitalize(),))
        box(axes, (x + 0.06, TOP), (COLUMN - 0.12, 0.42), words, TINTS["input"], num_bold=2)
    join(axes, stages, left)
    for row, part in enumerate(facts["parts"]):
        y = TABLE - CELL * row
        axes.text(LEFT - 0.08, y, part.replace("_", " ").capitalize(), ha="right", va="center", fontsize=SMALL)
        for name, stage in stages.items():
            place = (left[name] + 0.03, y - CELL / 2 + 0.02)
            size = (COLUMN - 0.06, CELL - 0.04)
            if part in stage["trained"]:
                tint = TINTS[TINT_OF[part.rsplit("_", 1)[1]]]
                cell(axes, place, size, f"lr {stage['trained'][part]}", tint)
            elif part in stage["frozen"]:
                cell(axes, place, size, "frozen", "white", hatch="////")
    y = TABLE - CELL * len(facts["parts"]) - 0.05
    axes.plot((0.1, WIDTH - 0.1), (y + 0.16, y + 0.16), color=GREY, linewidth=0.6)
    for title, key in (
        ("Data", "data"),
        ("Mixing weights", "weights"),
        ("Schedule", "schedule"),
        ("Steps or tokens", "length"),
    ):
        entries = {name: below(stage, key) for name, stage in stages.items()}
        # Line by line on baselines: the height of a block of text depends on its letters.
        first = y - 0.09
        axes.text(LEFT - 0.08, first, title, ha="right", va="baseline", fontsize=SMALL)
        for name, text in entries.items():
            for number, line in enumerate(text.split("\n")):
                axes.text(left[name] + 0.07, first - LINE * number, line, ha="left", va="baseline", fontsize=SMALL)
        y -= LINE * max(text.count("\n") + 1 for text in entries.values()) + 0.12
    axes.text(0.1, HEIGHT - 0.2, "Figure 4 redrawn: the stages of training as this project declares them", va="center")
    footnote = (
        "Drawn from lab/training/stages.py. Filled: trained, with its peak learning rate (lr). Hatched: takes part and "
        "does not change. Empty: takes no part. Not found: in no source at hand, and never filled in. What SFT trains "
        "is of a secondary source. Stage 2 of images has 130k synthetic samples, audio sequences "
        "of up to 4K tokens, SFT about 600K pairs."
    )
    axes.text(0.1, 0.1, textwrap.fill(footnote, FOOTNOTE_LETTERS), va="bottom", fontsize="x-small")
    return figure


def join(axes: Axes, stages: Mapping[str, Any], left: Mapping[str, float]) -> None:
    """An arrow from each stage to those that start from it: straight to a neighbour, over the boxes to another."""
    middle, over = TOP + 0.21, TOP + 0.65
    order = list(stages)
    for name, stage in stages.items():
        if stage["starts_from"] == NOT_FOUND:
            axes.text(left[name] + COLUMN / 2, TOP - 0.1, "start: not found", ha="center", va="center", fontsize=SMALL)
            continue
        if not stage["starts_from"]:
            axes.text(left[name] + COLUMN / 2, TOP - 0.1, "from pretrained", ha="center", va="center", fontsize=SMALL)
        several = len(stage["starts_from"]) > 1
        for before in stage["starts_from"]:
            if not several and order.index(name) - order.index(before) == 1:
                arrow(axes, (left[before] + COLUMN - 0.06, middle), (left[name] + 0.06, middle))
            else:
                start, end = left[before] + COLUMN / 2, left[name] + COLUMN / 2
                arrow(axes, (start, TOP + 0.42), (start, over), (end, over), (end, TOP + 0.42))


def cell(
    axes: Axes, place: tuple[float, float], size: tuple[float, float], text: str, tint: str, *, hatch: str = ""
) -> None:
    """One part in one stage."""
    edge = "#BBBBBB" if hatch else "#555555"
    axes.add_patch(Rectangle(place, *size, facecolor=tint, edgecolor=edge, linewidth=0.5, hatch=hatch))
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 1.0} if hatch else None
    x, y = place[0] + size[0] / 2, place[1] + size[1] / 2
    axes.text(x, y, text, ha="center", va="center", fontsize=SMALL, bbox=ground)


def below(stage: Mapping[str, Any], key: str) -> str:
    """What stands under a stage, in lines that its column holds."""
    if key != "data":
        return "one kind" if key == "weights" and len(stage["data"]) == 1 else str(stage[key])
    shown = (kind.replace("_", " ").replace("vqa", "VQA") for kind in stage["data"])
    fitted = (kind.replace("qa", "QA").replace("ocr", "OCR").replace("asr", "ASR") for kind in shown)
    return "\n".join(textwrap.fill(kind, 15, subsequent_indent="  ") for kind in fitted)
