"""The facts of figure 2 of the report: parts, parameters, shapes and tokens of the model at the `paper` rung.

Section 2 of the paper. Everything is built on the meta device from the configurations that the studies' `paper` rungs
name, and shapes are those that a pass through it gives. Axes: `frames`, `rows`, `columns`, `hidden_size`.
"""

from typing import Any, get_args

import torch
from torch import nn
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from lab.data.video import VIDEO_FRAME
from lab.parts.any_resolution import num_tokens
from lab.parts.audio_projectors import AudioProjector
from lab.parts.known_configurations import known_configuration
from lab.parts.visual_projectors import Padding, VisualProjector, build_visual_projector
from lab.study.ablation import load_ablation
from lab.training.language_models import language_model_without_weights
from lab.training.speech import cell_audio_projector
from lab.training.vision import vision_backbone_without_weights
from lab.training.vision_cell import cell_projector

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


def projector_shape(projector: AudioProjector, num_frames: int) -> list[int]:
    """Tokens and their width for so many frames, by a pass on the meta device."""
    tokens = projector.output_length(num_frames)
    windows = torch.empty(tokens, projector.downsample_rate, projector.hidden_size, device="meta")
    return list(projector.project(windows, torch.empty(tokens, dtype=torch.long, device="meta")).shape)


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
        look = cell_projector(image, vision.hidden_size, width)
        watch = cell_projector(video, vision.hidden_size, width)
        listen = cell_audio_projector(audio, frames[1], width)
    return {
        "vision_encoder": {
            "name": image.vision_encoder,
            "parameters": parameters(vision),
            "in": list(pixels.shape[1:]),
            "out": list(features.shape[1:]),
        },
        "visual_projector": {
            "name": image.projector,
            "parameters": parameters(look),
            "out": list(look(features).shape[1:]),
            "padding": image.padding,
            "tokens_by_padding": tokens_by_padding(image.projector, vision.grid),
        },
        "video_projector": {
            "name": video.projector,
            "parameters": parameters(watch),
            "out": list(watch(features).shape[1:]),
            **video_tokens(video, watch, vision.image_size, vision.grid),
        },
        "audio_encoder": {
            "name": audio.audio_encoder,
            "parameters": parameters(hearing),
            "in": mel,
            "out": frames,
        },
        "audio_projector": {
            "name": audio.projector,
            "downsample_rate": audio.downsample_rate,
            "parameters": parameters(listen),
            "out": projector_shape(listen, frames[0]),
        },
        "language_model": {
            "name": audio.language_model,
            "parameters": parameters(language_model),
            "layers": language_model.config.num_hidden_layers,
            "hidden_size": width,
        },
    }


def parameters(module: nn.Module) -> int:
    """All of a module's, those that never train included."""
    return sum(parameter.numel() for parameter in module.parameters())


def tokens_by_padding(name: str, grid: tuple[int, int]) -> dict[str, int]:
    """Tokens of one view, by what becomes of patches that fill no whole window."""
    found = {}
    for padding in get_args(Padding):
        with torch.device("meta"):
            rows, columns = build_visual_projector(name, hidden_size=1, output_size=1, padding=padding).output_grid(
                *grid
            )
        found[padding] = rows * columns
    return found


def video_tokens(video: Any, projector: VisualProjector, image_size: int, grid: tuple[int, int]) -> dict[str, Any]:
    """Frames of a video, and the tokens of a frame of the paper's largest size, whole and in its two tiles."""
    tokens = {
        key: num_tokens(
            *VIDEO_FRAME,
            image_size=image_size,
            view_grid=projector.output_grid(*grid),
            newline=video.newline,
            max_tiles=tiles,
        )
        for key, tiles in (("whole", 1), ("tiles", 2))
    }
    return {
        "frame": list(VIDEO_FRAME),
        "frames_per_second": video.frames_per_second,
        "max_frames": video.max_frames,
        "tokens_a_frame": tokens,
    }
