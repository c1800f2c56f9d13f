"""The model of a cell on the meta device, and the largest batch of a kind of data: the step that `lab scale` traces.

Sections 2 and 3 of the paper. Nothing is fetched and nothing is given memory. Utterances are as long as the encoder's
window, sizes of pictures and numbers of frames follow from the sources' names, and the lengths of texts are ours.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily
from transformers import WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from lab.data.sources import Largest, largest_sample
from lab.data.video import Sight
from lab.errors import LabError, choose
from lab.parts.any_resolution import best_grid, num_views, token_order
from lab.parts.audio_encoders import AudioEncoder
from lab.parts.known_configurations import known_configuration
from lab.parts.language_models import CharacterCodec, LanguageModel
from lab.parts.media_tokens import Seen, Sound
from lab.parts.omni_model import BRANCHES, Example, OmniModel, Segment
from lab.parts.vision_encoders import VisionEncoder
from lab.training.batches import BatchOptions
from lab.training.cell import (
    AUDIO,
    ENCODERS,
    IMAGE,
    INSTRUCTIONS,
    VIDEO,
    cell_batches,
    cell_stages,
    cell_visual_projector,
    hearing_model,
    seeing_model,
)
from lab.training.memory import PRECISIONS, Memory, trace
from lab.training.named_parts import language_model_without_weights, vision_backbone_without_weights
from lab.training.parameters import (
    OmniParameters,
    PictureTuningParameters,
    SpeechParameters,
    TextTuningParameters,
    VisionParameters,
)
from lab.training.stages import PARTS
from lab.training.tuning import as_vision

WINDOW_SECONDS = 30.0

# What decides a step; rows of a study that differ in anything else take the same.
_DECIDING = (
    *("audio_encoder", "encoder_window", "downsample_rate", "parameter_budget", "prompt"),
    *("vision_encoder", "image_size", "stride", "pool_size", "padding", "marks_places"),
    *("frame_size", "frames_per_second", "max_frames", "max_tiles", "fit", "unpad", "newline"),
    *("projector", "projector_options"),
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


@dataclass(frozen=True)
class TrainedRoute:
    """A kind of data, its source, the parts that train, and whether encoders compute features in the step.

    All that is seen passes through the projector that `branch` names; empty: pictures and video each through their own.
    """

    kind: str = field(compare=False)
    source: str
    trained: tuple[str, ...]
    computed: bool
    branch: str = ""

    @classmethod
    def of(cls, kind: str, source: str, trained: Iterable[str], *, computed: bool) -> "TrainedRoute":
        """That of a stage which trains these parts."""
        parts = tuple(part for part in PARTS if part in trained)
        return cls(kind, source, parts, computed, "video_projector" if {*BRANCHES} & {*parts} == {BRANCHES[1]} else "")


def sources(cell: Any) -> Mapping[str, str]:
    """The source of each kind of data that a cell may train on."""
    if isinstance(cell, OmniParameters):
        return cell.data
    if isinstance(cell, SpeechParameters):
        return {AUDIO: f"speech:{cell.corpus}"}
    if isinstance(cell, TextTuningParameters):
        return {INSTRUCTIONS: f"text:{cell.instructions}"}
    found = {IMAGE: cell.images, VIDEO: getattr(cell, "videos", "")}
    return {kind: source for kind, source in found.items() if source}


def routes(cell: Any) -> dict[str, list[TrainedRoute]]:
    """What each stage of a cell trains on; a LabError where it names no source for that, or as `cell_stages`."""
    found, computed = {}, False
    for stage in cell_stages(cell):
        computed = computed or bool({*ENCODERS} & {*stage.trained})
        given = {kind: choose(sources(cell), kind, "kind of data of this cell:") for kind in stage.data}
        found[stage.name] = [
            TrainedRoute.of(kind, source, stage.trained, computed=computed) for kind, source in given.items()
        ]
    return found


def senses(cell: Any) -> tuple[SpeechParameters | None, VisionParameters | None]:
    """How a cell hears, as one of a study of speech, and how it sees, as one of pictures and video."""
    if isinstance(cell, OmniParameters):
        return cell.hearing, cell.seeing
    sees = as_vision(cell) if isinstance(cell, PictureTuningParameters) else cell
    return cell if isinstance(cell, SpeechParameters) else None, sees if isinstance(sees, VisionParameters) else None


@dataclass(frozen=True)
class TracedStep:
    """One step of a cell on the largest batch of one kind of data; a scoring of it where nothing trains."""

    language_model: str
    hears: SpeechParameters | None
    """What decides nothing of the step as by default; so in `sees`."""
    sees: VisionParameters | None
    whole: bool
    """Encoders are parts of the model even where their features are computed once."""
    batches: BatchOptions
    text_tokens: int
    """Of the longest sample in a pack of text alone; 0: it holds other samples."""
    leg: TrainedRoute
    asked: Asked
    precision: str

    @classmethod
    def of(cls, cell: Any, leg: TrainedRoute, asked: Asked, precision: str) -> "TracedStep":
        """A step of the cell with these parameters."""
        own: Any = (
            one and type(one)(**{name: value for name, value in one.as_dict().items() if name in _DECIDING})
            for one in senses(cell)
        )
        hears, sees = own
        whole, text = isinstance(cell, OmniParameters), isinstance(cell, TextTuningParameters)
        longest = min(cell.budget_tokens, cell.max_tokens) if text else 0
        return cls(cell.language_model, hears, sees, whole, cell_batches(cell), longest, leg, asked, precision)

    @property
    def memory(self) -> Memory:
        """What it takes, traced once; a LabError where nothing could train, or no batch holds a sample."""
        return _traced(self, checkpointing=False)

    @property
    def checkpointed(self) -> Memory:
        """What it takes where every layer of transformers' encoders and language models is computed again."""
        return _traced(self, checkpointing=True)

    @property
    def largest(self) -> Largest:
        """What its largest sample holds."""
        sees = self.sees or VisionParameters()
        sight = Sight(**{name: getattr(sees, name) for name in ("frame_size", "frames_per_second", "max_frames")})
        size = build_encoders(None, sees)["vision_encoder"].image_size if self.sees else 0
        is_video, source = self.leg.kind == VIDEO, self.leg.source
        return largest_sample(source, sight, is_video=is_video, image_size=size, max_tiles=sees.max_tiles)

    @property
    def frame_tokens(self) -> int:
        """Tokens of a frame of its largest sample; 0 where nothing is seen."""
        if self.sees is None or not (seen := self.largest).frames:
            return 0
        encoder = build_encoders(None, self.sees)["vision_encoder"]
        with torch.device("meta"):
            view_grid = cell_visual_projector(self.sees, 1, 1).output_grid(*encoder.grid)
        how = {"image_size": encoder.image_size, "view_grid": view_grid, **_tiling(self.sees)}
        return len(token_order(*seen.frame_size, **how))


def _tiling(cell: VisionParameters) -> dict[str, Any]:
    return {name: getattr(cell, name) for name in ("max_tiles", "fit", "unpad", "newline")}


@cache
def _traced(step: TracedStep, *, checkpointing: bool) -> Memory:
    encoders = build_encoders(step.hears, step.sees)
    # Found before the trace, in which timm could build no network: it reads numbers out of tensors.
    largest = step.largest
    inside = {name: encoder for name, encoder in encoders.items() if step.whole or name in step.leg.trained}
    return trace(
        _build_model(step, encoders, inside),
        partial(_largest_batch, step, encoders, largest),
        trained=step.leg.trained,
        precision=PRECISIONS[step.precision],
        packed=step.batches.packed,
        checkpointing=checkpointing,
        outside={name: encoder for name, encoder in encoders.items() if name not in inside},
    )


class MelShapes(WhisperFeatureExtractor):
    """Whisper's front end without its work: spectrograms of the right shape."""

    def __call__(  # type: ignore[override]
        self, waveforms: Any, *, sampling_rate: int, padding: str, max_length: int, return_tensors: str
    ) -> dict[str, Tensor]:
        """Those of waveforms of `max_length` samples."""
        return {"input_features": torch.empty(len(waveforms), self.feature_size, max_length // self.hop_length)}


def build_encoders(hears: SpeechParameters | None, sees: VisionParameters | None) -> dict[str, Any]:
    """The encoders that a cell names, by part; a LabError where one is unknown, or hears or sees nothing."""
    found: dict[str, Any] = {}
    if hears:
        name = hears.audio_encoder
        config: Any = known_configuration(name)
        if config.model_type != "whisper":
            raise LabError(f"audio encoder {name!r} is a {config.model_type} model; expected Whisper")
        with torch.device("meta"):
            whisper = WhisperEncoder(config)
        whisper.embed_positions.requires_grad_(False)  # fixed sinusoids
        front_end, window = MelShapes(feature_size=config.num_mel_bins), hears.encoder_window
        found["audio_encoder"] = AudioEncoder(whisper=whisper, feature_extractor=front_end, window=window)
    if sees:
        name = sees.vision_encoder
        backbone = vision_backbone_without_weights(name, image_size=sees.image_size, stride=sees.stride)
        found["vision_encoder"] = VisionEncoder(backbone=backbone, name=name, mean=(0.5,) * 3, std=(0.5,) * 3)
    return found


def _build_model(step: TracedStep, encoders: Mapping[str, Any], inside: Mapping[str, Any]) -> OmniModel:
    """The model of a cell, with the encoders inside that it trains or runs."""
    name = step.language_model
    language_model = LanguageModel(name, language_model_without_weights(name), CharacterCodec(alphabet=""), "")
    projectors: dict[str, Any] = {}
    with torch.device("meta"):
        if step.hears:
            hearing = hearing_model(step.hears, encoders["audio_encoder"], language_model, {})
            projectors["audio_projector"] = hearing.audio_projector
        if step.sees:
            seeing = seeing_model(step.sees, encoders["vision_encoder"], language_model, {})
            projectors |= {branch: getattr(seeing, branch) for branch in BRANCHES}
        return OmniModel(language_model=language_model, **projectors, **inside)


def _largest_batch(step: TracedStep, encoders: Mapping[str, Any], largest: Largest, model: OmniModel) -> list[Example]:
    asked, limit, leg = step.asked, step.batches.tokens, step.leg
    if step.text_tokens:
        scored = limit if asked.answer_tokens is None else asked.answer_tokens
        return _pack_of_text(limit, step.text_tokens, scored)
    branch: Any = leg.branch or BRANCHES[largest.is_video]
    passed = {"language_model": True, "vision_encoder": largest.frames, branch: largest.frames}
    passed |= dict.fromkeys(("audio_encoder", "audio_projector"), largest.sounds)
    if leg.trained and not any(passed.get(part) for part in leg.trained):
        raise LabError(f"{leg.kind} passes through nothing that trains: {', '.join(leg.trained)}")

    frames = round(asked.seconds * encoders["audio_encoder"].frames_per_second) if largest.sounds else 0

    def example(answer_tokens: int) -> Example:
        content: list[Segment] = []
        if step.hears and not step.whole:
            # Without the tokenizer, which would have to be fetched: some four letters a token.
            content.append([0] * -(-len(step.hears.prompt) // 4))
        if largest.frames:
            content.append(_seen(step, largest, branch, encoders["vision_encoder"], model))
        content += [_sound(step, encoders["audio_encoder"], frames) for _ in range(largest.sounds)]
        content += [[0] * asked.question_tokens] if largest.asked else []
        return Example(content=content, answer=[0] * answer_tokens)

    tokens = model.num_tokens(example(asked.answer))
    if step.whole and tokens > limit and largest.sounds:
        # Its corpora hold shorter sounds too: the longest that a batch holds.
        frames = max(0, frames - (tokens - limit) * model.part("audio_projector", "sounds").projector.downsample_rate)
        tokens = min(tokens, limit) if frames else tokens
    if tokens > limit:
        batch = "pack" if step.batches.packed else "batch"
        raise LabError(f"a sample of {leg.kind} takes {tokens} tokens, more than the {limit} of a {batch}")
    count = asked.batch_size or step.batches.size or max(1, round(limit / tokens))
    # The last is shorter, since some always are: where all are of one length a padded batch has no mask.
    last = max(0, asked.answer - (count > 1))
    return [example(asked.answer) for _ in range(count - 1)] + [example(last)]


def _sound(step: TracedStep, encoder: AudioEncoder, frames: int) -> Sound:
    if not step.leg.computed:
        return Sound(torch.empty(frames, encoder.hidden_size))
    with unset_fake_temporarily():  # a waveform is numpy's on its way to the front end
        return Sound(torch.empty(1).expand(frames * encoder.samples_per_frame))


def _seen(step: TracedStep, largest: Largest, branch: Any, encoder: VisionEncoder, model: OmniModel) -> Seen:
    assert step.sees
    size = encoder.image_size
    grid = best_grid(*largest.frame_size, image_size=size, max_tiles=step.sees.max_tiles)
    count = largest.frames * num_views(grid)
    views = torch.empty(count, *encoder.grid, encoder.hidden_size)
    if step.leg.computed:
        views = torch.empty(count, size, size, 3, dtype=torch.uint8)
    order = None
    if num_views(grid) > 1:
        how = {"image_size": size, "view_grid": model.view_grid(branch, views), **_tiling(step.sees)}
        order = token_order(*largest.frame_size, **how)
    return Seen(views=views, seconds=(0.0,) * largest.frames, branch=branch, grid=grid, order=order)


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
