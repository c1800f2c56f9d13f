"""Figure 5 of the report: Conv-GMLP layer by layer, with the shapes that pass through the component at each rate.

Shapes are caught by hooks while a window of 30 s passes through the component on the meta device, at the widths of the
`paper` rung.
"""

import textwrap
from collections.abc import Mapping
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.paper.architecture import AUDIO_ROW, paper_parameters, whisper_encoder, whisper_shapes
from lab.paper.style import GREY, NORMAL, SMALL, TINTS, WIDTH, arrow, box, canvas, product, rounded
from lab.parts.audio_projectors import build_audio_projector
from lab.parts.known_configurations import known_configuration
from lab.study.ablation import load_ablation

LAYERS = ("block.gate_proj", "block.up_proj", "block.down_proj", "block.norm", "output_proj")


def facts() -> dict[str, Any]:
    """Frames and widths, and by rate: tokens, and by layer its shapes in and out with its parameters."""
    shared = paper_parameters("conv_gmlp_rate", AUDIO_ROW)
    num_frames, hidden_size = whisper_shapes(whisper_encoder(shared.audio_encoder))[1]
    output_size = known_configuration(shared.language_model).hidden_size
    return {
        "encoder": shared.audio_encoder,
        "language_model": shared.language_model,
        "frames": num_frames,
        "hidden_size": hidden_size,
        "output_size": output_size,
        "rates": {str(rate): layers(rate, num_frames, hidden_size, output_size) for rate in rates()},
    }


def rates() -> list[int]:
    """The rates at which the paper has Conv-GMLP; rows of one's own add none."""
    ablation = load_ablation("conv_gmlp_rate")
    rows = [ablation.row(entry.row).changes for entry in ablation.reported]
    return [changes["downsample_rate"] for changes in rows if changes["projector"] == "conv_gmlp"]


def layers(rate: int, num_frames: int, hidden_size: int, output_size: int) -> dict[str, Any]:
    """One rate: tokens, padding frames, the windows, and every layer."""
    with torch.device("meta"):
        projector = build_audio_projector(
            "conv_gmlp", hidden_size=hidden_size, output_size=output_size, downsample_rate=rate
        )
    seen: dict[str, Any] = {}
    for name, module in projector.named_modules():
        if name in LAYERS:

            def keep(module: Any, inputs: Any, output: Any, name: str = name) -> None:
                seen[name] = {
                    "in": list(inputs[0].shape),
                    "out": list(output.shape),
                    "parameters": sum(parameter.numel() for parameter in module.parameters()),
                }

            module.register_forward_hook(keep)
    tokens = projector.output_length(num_frames)
    windows = torch.empty(tokens, rate, hidden_size, device="meta")
    out = projector.project(windows, torch.empty(tokens, dtype=torch.long, device="meta"))
    return {
        "padding_frames": tokens * rate - num_frames,
        "windows": list(windows.shape),
        "out": list(out.shape),
        "layers": {name: seen[name] for name in LAYERS},
        "block_parameters": sum(entry["parameters"] for name, entry in seen.items() if name.startswith("block.")),
        "parameters": sum(parameter.numel() for parameter in projector.parameters()),
    }


HEIGHT = 6.6
FOOTNOTE_LETTERS = 150
# Centres of the rows of diagram and table, in inches, from the input at the bottom to the output on top.
ROWS = {
    "frames": 1.3,
    "windows": 2.0,
    "gate and up": 2.8,
    "product": 3.4,
    "down": 3.95,
    "sum": 4.5,
    "norm": 5.05,
    "out": 5.65,
}
LEFT, RIGHT, SHORTCUT, TABLE = 1.25, 2.65, 0.35, 4.05


def draw(facts: Mapping[str, Any]) -> Figure:
    """The block at the left, from below to above, and what each step gives at the right."""
    figure, axes = canvas(WIDTH, HEIGHT)
    draw_block(axes)
    write_shapes(axes, facts)
    axes.text(0.1, HEIGHT - 0.2, "Figure 5 redrawn: Conv-GMLP, shapes of the component for 30 s of audio", va="center")
    d, out = facts["hidden_size"], facts["output_size"]
    footnote = (
        f"Shapes are tokens × width, caught by hooks in the component; d = {d:,} is the width of "
        f"{facts['encoder'].partition('/')[2]}, {out:,} that of {facts['language_model'].partition('/')[2]}. A "
        "convolution of kernel and stride n is one matrix product on n frames laid side by side. The block is that of "
        "the code released with the successor; that it is the paper's is an inference. The output layer D → language "
        "model: not found in the paper; one linear layer here. The last window is padded, not dropped: at n = 8 the "
        "paper's own figures give a token less."
    )
    axes.text(0.1, 0.1, textwrap.fill(footnote, FOOTNOTE_LETTERS), va="bottom", fontsize="x-small")
    return figure


def draw_block(axes: Axes) -> None:
    """Boxes and arrows."""
    middle, wide, half = (LEFT + RIGHT) / 2, 1.3, 0.19
    for row, lines, tint in (
        ("frames", ("Encoder frames",), "input"),
        ("windows", ("Windows of n frames", "time right-padded with zeros"), "input"),
        ("down", ("down: linear D → D",), "projector"),
        ("norm", ("LayerNorm",), "projector"),
        ("out", ("Output: linear", "D → language model"), "language_model"),
    ):
        box(axes, (middle - 1.0, ROWS[row] - half), (2.0, 2 * half), lines, TINTS[tint])
    for x, name in ((LEFT, "gate"), (RIGHT, "up")):
        lines = (f"{name}: conv d → D", "kernel n, stride n")
        box(axes, (x - wide / 2, ROWS["gate and up"] - 0.21), (wide, 0.42), lines, TINTS["projector"])
    for row, sign in (("product", "×"), ("sum", "+")):
        axes.text(
            middle,
            ROWS[row],
            sign,
            ha="center",
            va="center",
            bbox={"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": GREY},
        )
    arrow(axes, (middle, ROWS["frames"] + half), (middle, ROWS["windows"] - half))
    split = ROWS["windows"] + 0.36
    for x in (LEFT, RIGHT):
        arrow(axes, (middle, ROWS["windows"] + half), (middle, split), (x, split), (x, ROWS["gate and up"] - 0.21))
        ring = 0.14 if x > middle else -0.14
        arrow(axes, (x, ROWS["gate and up"] + 0.21), (x, ROWS["product"]), (middle + ring, ROWS["product"]))
    axes.text(LEFT + 0.36, ROWS["product"] + 0.09, "SiLU", ha="center", va="center", fontsize=SMALL)
    arrow(axes, (middle, ROWS["product"] + 0.14), (middle, ROWS["down"] - half))
    arrow(axes, (middle, ROWS["down"] + half), (middle, ROWS["sum"] - 0.14))
    arrow(axes, (middle, ROWS["sum"] + 0.14), (middle, ROWS["norm"] - half))
    arrow(axes, (middle, ROWS["norm"] + half), (middle, ROWS["out"] - half))
    arrow(
        axes,
        (middle - 1.0, ROWS["windows"]),
        (SHORTCUT, ROWS["windows"]),
        (SHORTCUT, ROWS["sum"]),
        (middle - 0.14, ROWS["sum"]),
    )
    axes.text(
        SHORTCUT - 0.08,
        (ROWS["windows"] + ROWS["sum"]) / 2,
        "shortcut: n frames side by side",
        ha="right",
        va="center",
        rotation=90,
        fontsize=SMALL,
    )


def write_shapes(axes: Axes, facts: Mapping[str, Any]) -> None:
    """A column a rate: shapes, and under them the parameters."""
    rates: Mapping[str, Any] = facts["rates"]
    head = ROWS["out"] + 0.5
    axes.plot((TABLE, WIDTH - 0.1), (head - 0.14, head - 0.14), color=GREY, linewidth=0.6)
    for number, (rate, at) in enumerate(rates.items()):
        x = TABLE + 0.75 + 1.45 * number
        layers = at["layers"]

        def write(row: str, text: str, count: int | None = None, x: float = x) -> None:
            full = text if count is None else f"{text}\n{rounded(count)}"
            axes.text(x, ROWS[row], full, ha="center", va="center", fontsize=SMALL, linespacing=1.3)

        axes.text(x, head, f"n = {rate}", ha="center", va="center", fontsize=NORMAL, fontweight="bold")
        write("frames", product((facts["frames"], facts["hidden_size"])))
        padding = f"\n{at['padding_frames']} padding frames" if at["padding_frames"] else "\nno padding"
        write("windows", product(at["windows"]) + padding)
        gate, up = layers["block.gate_proj"], layers["block.up_proj"]
        write("gate and up", f"{product(gate['out'])}, twice", gate["parameters"] + up["parameters"])
        write("product", product(layers["block.down_proj"]["in"]))
        write("down", product(layers["block.down_proj"]["out"]), layers["block.down_proj"]["parameters"])
        write("sum", product(layers["block.norm"]["in"]))
        write("norm", product(layers["block.norm"]["out"]), layers["block.norm"]["parameters"])
        write("out", product(layers["output_proj"]["out"]), layers["output_proj"]["parameters"])
        total = f"{rounded(at['block_parameters'])} + {rounded(layers['output_proj']['parameters'])}"
        axes.text(x, ROWS["frames"] - 0.42, total, ha="center", va="center", fontsize=SMALL)
    axes.text(
        TABLE - 0.05, ROWS["frames"] - 0.42, "parameters: block + output", ha="right", va="center", fontsize=SMALL
    )
