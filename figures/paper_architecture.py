"""Figure 2 of the report: the model's parts at the `paper` rung, with the shapes that pass between them."""

import textwrap
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from lab.paper.architecture import architecture
from lab.paper.style import TINTS, WIDTH, arrow, box, canvas, product, rounded

HEIGHT = 6.1
FOOTNOTE_LETTERS = 150
ODD_PATCHES = {"none": "dropped", "both": "repeated", "columns": "columns repeated"}
PROJECTORS = {"mean_pool": "2 × 2 pooling, then MLP", "conv_gmlp": "Conv-GMLP"}


facts = architecture


def draw(facts: Mapping[str, Any]) -> Figure:
    """Image, video, audio and text from below into the language model."""
    figure, axes = canvas(WIDTH, HEIGHT)
    see, look, watch = (facts[part] for part in ("vision_encoder", "visual_projector", "video_projector"))
    hear, listen, think = (facts[part] for part in ("audio_encoder", "audio_projector", "language_model"))
    wide, columns = 1.95, (0.15, 2.25, 4.4, 6.5)
    centres = [x + wide / 2 for x in columns]
    inputs, encoders, projectors, top = 1.05, 2.15, 3.35, 4.7

    rate, frames, (height, width) = watch["frames_per_second"], watch["max_frames"], watch["frame"]
    for x, lines in zip(
        columns,
        (
            ("Image", f"a view of {product(see['in'])}", "AnyRes: tiles and a whole view"),
            ("Video", f"{rate:g} frame a second, at most {frames}", f"each at most {height} × {width} pixels"),
            ("Audio", f"30 s: {hear['in'][0]} mel bins", f"× {hear['in'][1]:,} frames"),
            ("Text", "tokenizer and embedding", "of the language model"),
        ),
        strict=True,
    ):
        box(axes, (x, inputs), (wide, 0.62), lines, TINTS["input"])
    both = columns[1] + wide - columns[0]
    name = see["name"].partition("/")[2]
    box(
        axes,
        (columns[0], encoders),
        (both, 0.62),
        ("Vision encoder", name, f"{rounded(see['parameters'])} parameters"),
        TINTS["encoder"],
    )
    name = hear["name"].partition("/")[2]
    box(
        axes,
        (columns[2], encoders),
        (wide, 0.62),
        ("Audio encoder", name, f"{rounded(hear['parameters'])} parameters"),
        TINTS["encoder"],
    )
    for x, title, part, more in (
        (columns[0], "Visual projector", look, f"odd patches: {ODD_PATCHES[look['padding']]}"),
        (columns[1], "Video projector", watch, "frames are views"),
        (columns[2], "Audio projector", listen, f"downsample rate n = {listen['downsample_rate']}"),
    ):
        lines = (title, PROJECTORS[part["name"]], f"{rounded(part['parameters'])} parameters", more)
        box(axes, (x, projectors), (wide, 0.75), lines, TINTS["projector"])
    name = think["name"].partition("/")[2]
    box(
        axes,
        (columns[0], top),
        (columns[3] + wide - columns[0], 0.5),
        (
            "Language model",
            f"{name}: {rounded(think['parameters'])} parameters, {think['layers']} layers, "
            f"hidden size {think['hidden_size']:,}; one sequence of all tokens",
        ),
        TINTS["language_model"],
    )
    whole, tiles = watch["tokens_a_frame"]["whole"], watch["tokens_a_frame"]["tiles"]
    for centre in centres[:3]:
        arrow(axes, (centre, inputs + 0.62), (centre, encoders))
    for centre, shape in zip(centres[:3], (see["out"], see["out"], hear["out"]), strict=True):
        arrow(axes, (centre, encoders + 0.62), (centre, projectors), label=product(shape))
    labels = (
        f"{product(look['out'])}\na view",
        f"{whole} tokens a frame,\n{tiles} with its tiles",
        f"{product(listen['out'])}\nfor 30 s",
    )
    for centre, label in zip(centres[:3], labels, strict=True):
        arrow(axes, (centre, projectors + 0.75), (centre, top), label=label)
    arrow(axes, (centres[3], inputs + 0.62), (centres[3], top), label=f"tokens\n× {think['hidden_size']:,}")
    arrow(axes, (WIDTH / 2, top + 0.5), (WIDTH / 2, top + 0.8), label="text")
    axes.text(0.1, HEIGHT - 0.2, "Figure 2 redrawn: the model at the paper rung, as built here", va="center")
    padded = ", ".join(f"{tokens} ({name})" for name, tokens in look["tokens_by_padding"].items())
    rows, across = see["out"][:2]
    footnote = (
        "Parameters and shapes are those of the components, built from the named configurations. The paper's language "
        "model is an unnamed 7B; this one stands in for it. The width of its projections, the rate n of the reported "
        "model, and the largest number of tiles: not found. The paper has 182 tokens a view; how "
        f"{rows} × {across} patches become so many is not found. Tokens by padding of odd patches: {padded}. The "
        "vision encoder is without its pooling head, which gives no patches."
    )
    axes.text(0.1, 0.1, textwrap.fill(footnote, FOOTNOTE_LETTERS), va="bottom", fontsize="x-small")
    return figure
