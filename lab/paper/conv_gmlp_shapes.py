"""The facts of figure 5 of the report: what each layer of Conv-GMLP takes and gives, at each rate of figure 6.

Section 2 of the paper. Shapes are caught by hooks while a window of 30 s passes through the component on the meta
device, at the widths of the `paper` rung. Axes: `tokens`, `hidden_size`.
"""

from typing import Any

import torch

from lab.paper.architecture import AUDIO_ROW, paper_parameters, whisper_encoder, whisper_shapes
from lab.parts.audio_projectors import build_audio_projector
from lab.parts.known_configurations import known_configuration
from lab.study.ablation import load_ablation

LAYERS = ("block.gate_proj", "block.up_proj", "block.down_proj", "block.norm", "output_proj")


def conv_gmlp_shapes() -> dict[str, Any]:
    """Frames and widths, and by rate: tokens, and by layer its shapes in and out with its parameters."""
    shared = paper_parameters("conv_gmlp_rate", AUDIO_ROW)
    num_frames, hidden_size = whisper_shapes(whisper_encoder(shared["audio_encoder"]))[1]
    output_size = known_configuration(shared["language_model"]).hidden_size
    return {
        "encoder": shared["audio_encoder"],
        "language_model": shared["language_model"],
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
