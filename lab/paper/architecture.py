"""The facts of figure 2 of the report: parts, parameters, shapes and tokens of the model at the `paper` rung.

Section 2 of the paper. Everything is built on the meta device from the configurations that the studies' `paper` rungs
name, and shapes are those that a pass through it gives. Axes: `frames`, `rows`, `columns`, `hidden_size`.
"""

import math
from typing import Any, get_args

import torch
from torch import Tensor, nn
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from lab.data.video import VIDEO_FRAME
from lab.parts.any_resolution import token_order
from lab.parts.known_configurations import known_configuration
from lab.parts.visual_projectors import Padding, build_visual_projector
from lab.study.ablation import load_ablation
from lab.training.cell import cell_audio_projector, cell_visual_projector
from lab.training.named_parts import language_model_without_weights, vision_backbone_without_weights

RUNG = "paper"
AUDIO_ROW, IMAGE_ROW, VIDEO_ROW = "conv_gmlp_2", "mean_pool", "anyres_48"


def paper_parameters(ablation: str, row: str) -> Any:
    """The parameters of a row at the `paper` rung."""
    return load_ablation(ablation).resolve(row, RUNG)


def whisper_encoder(name: str) -> Any:
    """A Whisper encoder on the meta device."""
    configuration: Any = known_configuration(name)
    with torch.device("meta"):
        return WhisperEncoder(configuration)


def whisper_shapes(encoder: Any) -> tuple[list[int], list[int]]:
    """Spectrogram in (mel bins, frames) and features out (frames, hidden_size), of one window of 30 s."""
    config = encoder.config
    # Two convolutions, of which the second has a stride of 2.
    mel = torch.empty(1, config.num_mel_bins, 2 * config.max_source_positions, device="meta")
    return list(mel.shape[1:]), list(encoder(mel).last_hidden_state.shape[1:])


def architecture() -> dict[str, Any]:
    """By part: its name in the paper's or hub's words, parameters, and shapes in and out."""
    audio, image = paper_parameters("conv_gmlp_rate", AUDIO_ROW), paper_parameters("visual_projector", IMAGE_ROW)
    video = paper_parameters("video_frames", VIDEO_ROW)
    vision = vision_backbone_without_weights(image.vision_encoder, image_size=image.image_size)
    hearing = whisper_encoder(audio.audio_encoder)
    language_model: Any = language_model_without_weights(audio.language_model)
    width = language_model.config.hidden_size
    pixels = torch.empty(1, 3, vision.image_size, vision.image_size, device="meta")
    features = vision(pixels)
    mel, frames = whisper_shapes(hearing)
    with torch.device("meta"):
        look = cell_visual_projector(image, vision.hidden_size, width)
        watch = cell_visual_projector(video, vision.hidden_size, width)
        listen = cell_audio_projector(audio, frames[1], width)
        by_padding = {
            padding: build_visual_projector(image.projector, hidden_size=1, output_size=1, padding=padding)
            for padding in get_args(Padding)
        }
    windows = listen.output_length(frames[0])
    heard = torch.empty(windows, listen.downsample_rate, frames[1], device="meta")
    tokens = listen.project(heard, torch.empty(windows, dtype=torch.long, device="meta"))
    view = {"image_size": vision.image_size, "view_grid": watch.output_grid(*vision.grid), "newline": video.newline}
    orders = {n: token_order(*VIDEO_FRAME, max_tiles=tiles, **view) for n, tiles in (("whole", 1), ("tiles", 2))}
    tokens_a_frame = {n: len(order) for n, order in orders.items()}
    return {
        "vision_encoder": _part(image.vision_encoder, vision, features) | {"in": list(pixels.shape[1:])},
        "visual_projector": _part(
            image.projector,
            look,
            look(features),
            padding=image.padding,
            tokens_by_padding={name: math.prod(one.output_grid(*vision.grid)) for name, one in by_padding.items()},
        ),
        "video_projector": _part(
            video.projector,
            watch,
            watch(features),
            frame=list(VIDEO_FRAME),
            frames_per_second=video.frames_per_second,
            max_frames=video.max_frames,
            tokens_a_frame=tokens_a_frame,
        ),
        "audio_encoder": _part(audio.audio_encoder, hearing) | {"in": mel, "out": frames},
        "audio_projector": _part(audio.projector, listen, tokens[None], downsample_rate=audio.downsample_rate),
        "language_model": _part(
            audio.language_model, language_model, layers=language_model.config.num_hidden_layers, hidden_size=width
        ),
    }


def _part(name: str, module: nn.Module, out: Tensor | None = None, **more: Any) -> dict[str, Any]:
    """Its parameters, those that never train included, and the shape of what it gives of one sample."""
    shape = {} if out is None else {"out": list(out.shape[1:])}
    return {"name": name, "parameters": sum(one.numel() for one in module.parameters()), **shape, **more}
