"""The model of a cell on the meta device, and the largest batch of a kind of data: the step that `lab scale` traces.

Sections 2 and 3 of the paper. Nothing is fetched and nothing is given memory. Utterances are as long as the encoder's
window, sizes of pictures and numbers of frames follow from the sources' names, and the lengths of texts are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily
from transformers import WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from lab.data.sources import Largest, largest_sample
from lab.data.video import Sight
from lab.errors import LabError
from lab.parts.any_resolution import best_grid, num_views, token_order
from lab.parts.audio_encoders import AudioEncoder
from lab.parts.known_configurations import known_configuration
from lab.parts.language_models import CharacterCodec, LanguageModel
from lab.parts.media_tokens import Seen, Sound
from lab.parts.omni_model import Example, OmniModel, Segment
from lab.parts.vision_encoders import VisionEncoder
from lab.training.cell import IMAGE, VIDEO, cell_visual_projector, hearing_model, seeing_model
from lab.training.memory import PRECISIONS, Memory, trace
from lab.training.named_parts import language_model_without_weights, vision_backbone_without_weights
from lab.training.parameters import (
    Parameters,
    PictureTuningParameters,
    SightedParameters,
    SpeechParameters,
    VisionParameters,
)
from lab.training.scoring import text_model
from lab.training.tuning import as_vision

SPEECH, TEXT = "asr_audio_text", "instruction_pairs"
SOURCES = {IMAGE: "images", VIDEO: "videos"}
PACKED = ("budget_tokens", "pack_tokens")
WINDOW_SECONDS = 30.0

# What decides a step; rows of a study that differ in anything else take the same.
_DECIDING = (
    *("audio_encoder", "encoder_window", "downsample_rate", "parameter_budget", "projector_options", "prompt"),
    *("vision_encoder", "image_size", "stride", "pool_size", "padding", "marks_places"),
    *("images", "videos", "frame_size", "frames_per_second", "max_frames", "max_tiles", "fit", "unpad", "newline"),
    *("projector", "language_model", "batch_size", "batch_tokens", "budget_tokens", "pack_tokens", "max_tokens"),
)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How large a sample and a batch to trace; None is what the rung says. A LabError where one is out of range."""

    seconds: float = WINDOW_SECONDS  # of audio in an utterance
    question_tokens: int = 64  # ours: a question about what is seen, with its choices
    answer_tokens: int | None = None  # of packed text, those of all answers of a pack, their ends included
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= WINDOW_SECONDS:
            raise LabError(
                f"seconds is {self.seconds:g}; expected above 0 and at most the encoder's {WINDOW_SECONDS:g}"
            )
        for name, least in (("question_tokens", 0), ("answer_tokens", 0), ("batch_size", 1)):
            if (value := getattr(self, name)) is not None and value < least:
                raise LabError(f"{name} is {value}; expected at least {least}")

    @property
    def answer(self) -> int:
        """Tokens of an answer to a sound or picture; ours: of speech some four a second, of a picture a few words."""
        return 128 if self.answer_tokens is None else self.answer_tokens

    @property
    def scored(self) -> int | str:
        """Tokens of a pack of text that are of answers."""
        return "all" if self.answer_tokens is None else self.answer_tokens


class TrainedRoute(NamedTuple):
    """A kind of data, the projector that it passes through (none: text), and the parts that train."""

    kind: str
    branch: str
    trained: tuple[str, ...]


@dataclass(frozen=True)
class TracedStep:
    """One step of a cell on the largest batch of one kind of data; a scoring of it where nothing trains."""

    parameters: Any
    """Of its cell, those that decide nothing of it as by default; of one that sees, as a cell of pictures and video."""
    leg: TrainedRoute
    limit: str
    """The parameter that says how many tokens a batch or pack has, or at most a sample."""
    tokens: int
    """What it says."""
    asked: Asked
    precision: str

    @classmethod
    def of(cls, cell: Parameters, leg: TrainedRoute, limit: str, asked: Asked, precision: str) -> "TracedStep":
        """A step of the cell with these parameters."""
        tokens = getattr(cell, limit)
        cell = as_vision(cell) if isinstance(cell, PictureTuningParameters) else cell
        deciding = {name: value for name, value in cell.as_dict().items() if name in _DECIDING}
        return cls(type(cell)(**deciding), leg, limit, tokens, asked, precision)

    @property
    def memory(self) -> Memory:
        """What it takes, traced once; a LabError where nothing could train, or no batch holds a sample."""
        return _traced(self, checkpointing=False)

    @property
    def checkpointed(self) -> Memory:
        """What it takes where every layer of transformers' encoders and language models is computed again."""
        return _traced(self, checkpointing=True)

    @property
    def seen(self) -> Largest:
        """Frames and their size of its largest sample."""
        cell = self.parameters
        sight = Sight(**{name: getattr(cell, name) for name in ("frame_size", "frames_per_second", "max_frames")})
        source, is_video = getattr(cell, SOURCES[self.leg.kind]), self.leg.kind == VIDEO
        size = build_encoders(cell)["vision_encoder"].image_size
        return largest_sample(source, sight, is_video=is_video, image_size=size, max_tiles=cell.max_tiles)

    @property
    def frame_tokens(self) -> int:
        """Tokens of a frame of its largest sample; 0 where nothing is seen."""
        cell, seen = self.parameters, self.seen
        encoder = build_encoders(cell)["vision_encoder"]
        with torch.device("meta"):
            view_grid = cell_visual_projector(cell, 1, 1).output_grid(*encoder.grid)
        how = {"image_size": encoder.image_size, "view_grid": view_grid, **_tiling(cell)}
        return len(token_order(*seen.frame_size, **how)) if seen.frames else 0


def _tiling(cell: VisionParameters) -> dict[str, Any]:
    return {name: getattr(cell, name) for name in ("max_tiles", "fit", "unpad", "newline")}


@cache
def _traced(step: TracedStep, *, checkpointing: bool) -> Memory:
    parameters = step.parameters
    encoders = build_encoders(parameters)
    # Found before the trace, in which timm could build no network: it reads numbers out of tensors.
    seen = step.seen if step.leg.kind in SOURCES else None
    return trace(
        _build_model(parameters, encoders, step.leg.trained),
        partial(_largest_batch, step, encoders, seen),
        trained=step.leg.trained,
        precision=PRECISIONS[step.precision],
        packed=step.limit in PACKED,
        checkpointing=checkpointing,
        outside={name: encoder for name, encoder in encoders.items() if name not in step.leg.trained},
    )


class MelShapes(WhisperFeatureExtractor):
    """Whisper's front end without its work: spectrograms of the right shape."""

    def __call__(  # type: ignore[override]
        self, waveforms: Any, *, sampling_rate: int, padding: str, max_length: int, return_tensors: str
    ) -> dict[str, Tensor]:
        """Those of waveforms of `max_length` samples."""
        return {"input_features": torch.empty(len(waveforms), self.feature_size, max_length // self.hop_length)}


def build_encoders(parameters: Any) -> dict[str, Any]:
    """The encoders that a cell names, by part; a LabError where one is unknown, or hears or sees nothing."""
    found: dict[str, Any] = {}
    if isinstance(parameters, SpeechParameters):
        name = parameters.audio_encoder
        config: Any = known_configuration(name)
        if config.model_type != "whisper":
            raise LabError(f"audio encoder {name!r} is a {config.model_type} model; expected Whisper")
        with torch.device("meta"):
            whisper = WhisperEncoder(config)
        whisper.embed_positions.requires_grad_(False)  # fixed sinusoids
        front_end = MelShapes(feature_size=config.num_mel_bins)
        window = parameters.encoder_window
        found["audio_encoder"] = AudioEncoder(whisper=whisper, feature_extractor=front_end, window=window)
    if isinstance(parameters, SightedParameters):
        name, size, stride = parameters.vision_encoder, parameters.image_size, parameters.stride
        backbone = vision_backbone_without_weights(name, image_size=size, stride=stride)
        found["vision_encoder"] = VisionEncoder(backbone=backbone, name=name, mean=(0.5,) * 3, std=(0.5,) * 3)
    return found


def _build_model(parameters: Any, encoders: Mapping[str, Any], trained: tuple[str, ...]) -> OmniModel:
    """The model of a cell, with its encoder inside where that trains."""
    name = parameters.language_model
    language_model = LanguageModel(name, language_model_without_weights(name), CharacterCodec(alphabet=""), "")
    if not encoders:
        return text_model(language_model)
    ((part, encoder),) = encoders.items()
    build: Any = hearing_model if part == "audio_encoder" else seeing_model
    with torch.device("meta"):
        model: OmniModel = build(replace(parameters, train_encoder=part in trained), encoder, language_model, {})
    return model


def _largest_batch(
    step: TracedStep, encoders: Mapping[str, Any], seen: Largest | None, model: OmniModel
) -> list[Example]:
    asked, limit, kind, parameters = step.asked, step.tokens, step.leg.kind, step.parameters
    if kind == TEXT:
        scored = limit if asked.answer_tokens is None else asked.answer_tokens
        return _pack_of_text(limit, min(limit, parameters.max_tokens), scored)

    def example(answer_tokens: int) -> Example:
        content: list[Segment]
        if seen:
            content = [_seen(step, seen, encoders["vision_encoder"], model), [0] * asked.question_tokens]
        else:
            # Without the tokenizer, which would have to be fetched: some four letters a token.
            content = [[0] * -(-len(parameters.prompt) // 4), _sound(step, encoders["audio_encoder"])]
        return Example(content=content, answer=[0] * answer_tokens)

    if (tokens := model.num_tokens(example(asked.answer))) > limit:
        raise LabError(f"a sample of {kind} takes {tokens} tokens, more than {step.limit} ({limit})")
    given = 0 if step.limit in PACKED else parameters.batch_size
    count = asked.batch_size or given or max(1, round(limit / tokens))
    # The last is shorter, since some always are: where all are of one length a padded batch has no mask.
    last = max(0, asked.answer - (count > 1))
    return [example(asked.answer) for _ in range(count - 1)] + [example(last)]


def _sound(step: TracedStep, encoder: AudioEncoder) -> Sound:
    frames = round(step.asked.seconds * encoder.frames_per_second)
    if "audio_encoder" not in step.leg.trained:
        return Sound(torch.empty(frames, encoder.hidden_size))
    with unset_fake_temporarily():  # a waveform is numpy's on its way to the front end
        return Sound(torch.empty(1).expand(frames * encoder.samples_per_frame))


def _seen(step: TracedStep, seen: Largest, encoder: VisionEncoder, model: OmniModel) -> Seen:
    branch: Any = step.leg.branch
    size = encoder.image_size
    if not seen.frames and "language_model" not in step.leg.trained:
        raise LabError(f"nothing is seen, so nothing can train of: {', '.join(sorted(step.leg.trained))}")
    grid = best_grid(*seen.frame_size, image_size=size, max_tiles=step.parameters.max_tiles)
    count = seen.frames * num_views(grid)
    views = torch.empty(count, *encoder.grid, encoder.hidden_size)
    if "vision_encoder" in step.leg.trained:
        views = torch.empty(count, size, size, 3, dtype=torch.uint8)
    order = None
    if num_views(grid) > 1:
        how = {"image_size": size, "view_grid": model.view_grid(branch, views), **_tiling(step.parameters)}
        order = token_order(*seen.frame_size, **how)
    return Seen(views=views, seconds=(0.0,) * seen.frames, branch=branch, grid=grid, order=order)


def _pack_of_text(budget: int, longest: int, scored: int) -> list[Example]:
    """Samples as long as they may be, which fill the pack; `scored` of its tokens predict one of an answer.

    A row of 4 tokens of which 3 are scored is a token of the prompt, the start, and two of the answer.
    """
    if not 0 < scored <= budget:
        raise LabError(f"answer_tokens is {scored}; expected 1 to the pack's {budget}")
    ends = [*range(longest, budget, longest), budget]
    examples = []
    for begin, end in zip([0, *ends], ends, strict=False):
        own = max(1, scored * end // budget - scored * begin // budget)
        examples.append(Example(content=[[0] * (end - begin - own)], answer=[0] * (own - 1)))
    return examples
