"""Samples as a model takes them: texts as token ids, media cut and read for its encoders, or what was kept of them.

Sections 2 and 3 of the paper. What a frozen encoder makes of sounds, pictures and frames is computed once (`heard_by`,
`kept_by`) and read from a store; without one, media are read each time, for a model with its encoders inside.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray

from lab.data.features import FeatureStore, Rows, store_features
from lab.data.sample import Audio, Image, Sample, Text, Video, samples_sha256
from lab.data.speech.audio import change_speed
from lab.data.video import PAPER_SIGHT, Sight
from lab.errors import LabError
from lab.parts.any_resolution import Fit, image_views, num_views, token_order
from lab.parts.audio_encoders import AudioEncoder
from lab.parts.language_models import ChatCodec
from lab.parts.media_tokens import Branch, Seen, Sound
from lab.parts.omni_model import Example, OmniModel, Segment
from lab.parts.vision_encoders import VisionEncoder
from lab.training.named_parts import writer_of

T = TypeVar("T")
# What stands for a part that is no text while a chat template is filled in; no text has it.
_MARK = "\ufffc"
# Any, for mypy: of a cached function it knows no arguments.
_order: Any = lru_cache(maxsize=4096)(token_order)
NOT_READABLE = "not in the language model's alphabet"
TOO_LONG = "longer than the budget"
UNREADABLE = "with media that cannot be read"


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How a picture or frame becomes views (AnyRes) and their tokens one sequence; one tile is a fixed resolution."""

    max_tiles: int = 1
    fit: Fit = "pad"
    unpad: bool = False


NO_TILES = Tiling()


@dataclass(frozen=True)
class Augmentation:
    """Changes of a sound's features; all of them off by default.

    `num_time_masks` stretches of up to `time_mask_frames` frames are set to zero in each two seconds (SpecAugment's
    time masking, Park et al. 2019); `noise` is the standard deviation of Gaussian noise, in standard deviations of a
    channel; `shift` starts the first window up to `downsample_rate` - 1 frames early.
    """

    num_time_masks: int = 0
    time_mask_frames: int = 0
    noise: float = 0.0
    shift: bool = False

    def __call__(
        self,
        frames: Float[np.ndarray, "frames features"],
        rng: np.random.Generator,
        *,
        mean: Float[np.ndarray, " features"],
        std: Float[np.ndarray, " features"],
        rate: int,
    ) -> Float[np.ndarray, "augmented features"]:
        """Augment one sound; masked and added frames are the channel means, which standardise to zero."""
        if self.noise:
            frames = frames + self.noise * std * rng.standard_normal(frames.shape, dtype=np.float32)
        if self.num_time_masks and self.time_mask_frames:
            frames = frames.copy()
            for _ in range(self.num_time_masks * max(1, len(frames) // 100)):
                length = int(rng.integers(0, self.time_mask_frames + 1))
                start = int(rng.integers(0, max(1, len(frames) - length)))
                frames[start : start + length] = mean
        if self.shift and rate > 1:
            early = int(rng.integers(0, rate))
            frames = np.concatenate([np.broadcast_to(mean, (early, len(mean))), frames])
        return np.ascontiguousarray(frames, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class SampleExamples:
    """Samples in a fixed order, as examples of whatever model asks.

    A chat model reads the turns in its template; another one reads text and media one after the other.
    """

    samples: Sequence[Sample]
    name: str = ""
    """Of their source, for messages and tables."""
    split: str = ""
    """The side of it, for tables."""
    write: Callable[[str], str] | None = None
    """Brings text into the form that the language model reads; None: as its codec asks for."""
    sight: Sight = PAPER_SIGHT
    tiling: Tiling = NO_TILES
    branch: Branch | None = None
    """The projector of all that is seen; None: pictures pass through the visual one, videos through the video one."""
    store: FeatureStore | None = None
    """What is kept of pictures and videos; None: they are read each time."""
    heard: Sequence[FeatureStore] = ()
    """What is kept of sounds, one store for each speed; none: their waveforms are read each time."""
    augmentation: Augmentation = Augmentation()
    """Of sounds that are kept, in training."""
    image_size: int = 0
    """Pixels a side of the kept views; 0: of the model's own encoder."""
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Ids of what its source held and nobody could use, by reason."""

    def __len__(self) -> int:
        return len(self.samples)

    def holds(self, *kinds: type) -> bool:
        """Whether parts of these kinds are in any sample."""
        return any(isinstance(part, kinds) for sample in self.samples for part in sample.content)

    @property
    def ids(self) -> Sequence[str]:
        """The samples' own."""
        return [sample.id for sample in self.samples]

    @property
    def sha256(self) -> str:
        """The hash of all that the samples say, and of what is kept of their pictures and videos."""
        kept = self.store.sha256 if self.store else ""
        return hashlib.sha256(f"{kept}{samples_sha256(self.samples)}".encode()).hexdigest()

    def example(self, index: int, model: OmniModel) -> Example:
        """One sample, its media read; what cannot be read, or for which the model has no part, is named."""
        return self._example(self.samples[index], model, read=True)

    def training_example(self, index: int, model: OmniModel, rng: np.random.Generator) -> Example:
        """As `example`, with each sound at one of the speeds that are kept, and augmented."""
        return self._example(self.samples[index], model, read=True, rng=rng)

    def why_not_readable(self, index: int, model: OmniModel, *, max_tokens: int) -> str | None:
        """Why a sample cannot be scored or trained on within so many tokens, a reason to be counted; None: it can."""
        sample = self.samples[index]
        if not self.written(sample.question, model):
            return "empty prompt"
        if not self.written(sample.answer, model):
            return "empty answer"
        try:
            # The end stands in no row, it is only ever a label.
            return TOO_LONG if self.num_tokens(index, model) - 1 > max_tokens else None
        except LabError:
            return NOT_READABLE

    def num_frames(self, index: int, model: OmniModel) -> int:
        """Encoder frames of all sounds of a sample; nothing that is kept is read for it."""
        media = [(key, part) for key, part in _media(self.samples[index]) if isinstance(part, Audio)]
        if self.heard:
            return sum(self.heard[0].num_rows(key) for key, _ in media)
        encoder = model.part("audio_encoder", "sounds")
        return sum(encoder.num_frames(part.num_samples) for _, part in media)

    def num_tokens(self, index: int, model: OmniModel) -> int:
        """Positions of a sample's sequence, its answer and the end included; nothing that is kept is read for it."""
        return model.num_tokens(self._example(self.samples[index], model, read=False))

    def num_visual_tokens(self, index: int, model: OmniModel) -> int:
        """Visual tokens of a sample, all pictures and frames together."""
        segments = self._example(self.samples[index], model, read=False).content
        return sum(model.segment_tokens(segment) for segment in segments if isinstance(segment, Seen))

    def shown_frames(self, index: int) -> int:
        """Pictures and frames of video that one sample shows."""
        seen = [(key, part) for key, part in _media(self.samples[index]) if not isinstance(part, Audio)]
        if self.store is None:
            return sum(len(_frames(part, self.sight)[1]) for _, part in seen)
        return sum(len(self.store[key].seconds) for key, _ in seen)

    def answer_ids(self, text: str, model: OmniModel) -> list[int]:
        """An answer or choice as token ids, without start and end."""
        return model.codec.encode(self.written(text, model))

    def written(self, text: str, model: OmniModel) -> str:
        """A text in the form that the language model reads."""
        return (self.write or writer_of(model.language))(text)

    def kept_by(
        self,
        encoder: VisionEncoder,
        *,
        key: str,
        features: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> "SampleExamples":
        """The same samples with the views of their pictures and videos kept, computed where they are not there yet.

        Kept is what the frozen encoder gives; without `features` pixels, for one that trains. `key` is everything that
        a sample's pictures depend on but its id and how they are cut. A sample of which something cannot be read is
        left out and named.
        """
        size, tiling = encoder.image_size, self.tiling
        identity = json.dumps([key, size, tiling.max_tiles, tiling.fit, encoder.key if features else "pixels"])
        store = self._stored(
            (Image, Video),
            lambda part: _cut(part, self.sight, tiling, size),
            key=hashlib.sha256(identity.encode()).hexdigest(),
            encode=encoder.encode if features else None,
            progress=progress,
        )
        return replace(self._without_problems(store), store=store, image_size=size)

    def heard_by(
        self,
        encoder: AudioEncoder,
        *,
        key: str,
        speeds: Sequence[float] = (1.0,),
        progress: Callable[[int, int], None] | None = None,
    ) -> "SampleExamples":
        """The same samples with what a frozen encoder hears kept, computed where it is not there yet.

        There is a store for each of the `speeds` at which sounds are played; outside of training the first one counts.
        `key` is everything that a sample's sounds depend on but its id. What cannot be read is left out, as above.
        """

        def stored(speed: float) -> FeatureStore:
            return self._stored(
                Audio,
                lambda part: Rows(encoder.encode(change_speed(part.read(), speed))),
                key=json.dumps([key, encoder.key, speed]),
                progress=progress,
            )

        stores = tuple(map(stored, speeds))
        return replace(self._without_problems(*stores), heard=stores)

    def _without_problems(self, *stores: FeatureStore) -> "SampleExamples":
        """The samples of which the stores have all parts."""
        problems = {name: why for store in stores for name, why in store.problems.items()}
        named = [[problems[name] for name, _ in _media(sample) if name in problems] for sample in self.samples]
        whole = [sample for sample, own in zip(self.samples, named, strict=True) if not own]
        told = [own[0] for own in named if own]
        if not told:
            return self
        if not whole:
            raise LabError(told[0])
        folders = " and ".join(sorted({str(store.folder) for store in stores if store.problems}))
        reason = f"{UNREADABLE}; delete {folders} to try again"
        return replace(self, samples=whole, left_out={**self.left_out, reason: told})

    def _stored(self, kind: type | tuple[type, ...], read: Callable[[Any], Rows], **options: Any) -> FeatureStore:
        """What is made of the parts of one kind."""
        parts = [(sample, name, part) for sample in self.samples for name, part in _media(sample)]
        parts = [entry for entry in parts if isinstance(entry[2], kind)]

        def read_one(place: int) -> Rows:
            sample, _, part = parts[place]
            try:
                return read(part)
            except LabError as error:
                raise _of(sample, error) from error

        return store_features(self.name, [name for _, name, _ in parts], read_one, **options)

    def _example(
        self, sample: Sample, model: OmniModel, *, read: bool, rng: np.random.Generator | None = None
    ) -> Example:
        codec = model.codec
        try:
            media = [self._segment(key, part, model, read, rng) for key, part in _media(sample)]
            if isinstance(codec, ChatCodec):
                texts = _chat_texts(sample, codec)
            else:
                texts = [self.written(text, model) if text else "" for text in _plain_texts(sample)]
            content: list[Segment] = []
            for number, text in enumerate(texts):
                content += [codec.encode(text)] if text else []
                content += media[number : number + 1]
            return Example(content=content or [[]], answer=self.answer_ids(sample.answer, model))
        except LabError as error:
            raise _of(sample, error) from error

    def _segment(
        self, key: str, part: Audio | Image | Video, model: OmniModel, read: bool, rng: np.random.Generator | None
    ) -> Segment:
        """What the model takes of one part that is no text; of what is kept, unless it is `read`, only the shapes."""
        if isinstance(part, Audio):
            return self._sound(key, part, model, read, rng)
        branch = self.branch or ("visual_projector" if isinstance(part, Image) else "video_projector")
        size = self.image_size or model.part("vision_encoder", "pictures or videos").image_size
        found = self.store[key] if self.store else _cut(part, self.sight, self.tiling, size)
        kind = torch.uint8 if found.values.dtype == np.uint8 else torch.float32
        if read:
            # Half precision is for the disk: autocast on a CPU does not take it.
            views = torch.from_numpy(np.array(found.values, np.uint8 if kind == torch.uint8 else np.float32))
        else:
            views = torch.empty(found.values.shape, dtype=kind, device="meta")
        order = None
        if num_views(found.grid) > 1:
            newline = model.part(branch, "pictures or videos").newline is not None
            grid, tiling = model.view_grid(branch, views), self.tiling
            cut = {"image_size": size, "max_tiles": tiling.max_tiles, "fit": tiling.fit, "unpad": tiling.unpad}
            order = _order(*found.size, view_grid=grid, newline=newline, **cut)
        return Seen(views=views, seconds=found.seconds, branch=branch, grid=found.grid, order=order)

    def _sound(self, key: str, part: Audio, model: OmniModel, read: bool, rng: np.random.Generator | None) -> Sound:
        if not self.heard:
            return _waveform(part, model) if read else Sound(torch.empty(part.num_samples, device="meta"))
        if not read:
            return Sound(torch.empty(self.heard[0].num_rows(key), 0, device="meta"))
        store = self.heard[0 if rng is None else int(rng.integers(0, len(self.heard)))]
        frames = np.asarray(store[key].values, dtype=np.float32)
        if rng is not None:
            tokens = model.part("audio_projector", "sounds")
            mean, std = tokens.feature_mean.cpu().numpy(), tokens.feature_std.cpu().numpy()
            frames = self.augmentation(frames, rng, mean=mean, std=std, rate=tokens.projector.downsample_rate)
        return Sound(torch.from_numpy(frames))


def _of(sample: Sample, error: LabError) -> LabError:
    where = f" of {sample.source!r}" if sample.source else ""
    return type(error)(f"sample {sample.id!r}{where}: {error}")


def _media(sample: Sample) -> Iterator[tuple[str, Audio | Image | Video]]:
    """The parts that are no text, with the names under which they are kept: the first has its sample's id.

    The others have a sign in theirs that no id has, so that no other sample's is the same.
    """
    media = [part for part in sample.content if not isinstance(part, Text)]
    return ((f"{sample.id}\0{number}" if number else sample.id, part) for number, part in enumerate(media))


def _frames(part: Image | Video, sight: Sight) -> tuple[UInt8[ndarray, "frames height width 3"], tuple[float, ...]]:
    """A picture or a video as frames, and when each is shown."""
    if isinstance(part, Image):
        return part.read(sight)[None], (0.0,)
    video = part.read(sight)
    return video.frames, tuple(video.seconds.tolist())


def _cut(part: Image | Video, sight: Sight, tiling: Tiling, size: int) -> Rows:
    """A picture or a video read and cut into views of `size` pixels a side."""
    pixels, seconds = _frames(part, sight)
    height, width = pixels.shape[1:3]
    if tiling.max_tiles == 1 and (height, width) == (size, size):
        return Rows(pixels, seconds, (height, width))
    cut = [image_views(frame, image_size=size, max_tiles=tiling.max_tiles, fit=tiling.fit) for frame in pixels]
    views = np.concatenate([view.pixels for view in cut]) if cut else np.zeros((0, size, size, 3), dtype=np.uint8)
    return Rows(views, seconds, (height, width), cut[0].grid if cut else (1, 1))


def _waveform(part: Audio, model: OmniModel) -> Sound:
    encoder = model.part("audio_encoder", "sounds")
    waveform = part.read()
    if encoder.num_frames(len(waveform)) > encoder.max_frames:
        if next(encoder.parameters()).is_meta:
            raise LabError(
                f"a sound of {len(waveform)} samples is longer than the encoder's window, and the processes that read "
                "batches have no weights to hear it with; train with workers 0"
            )
        # A longer sound is heard window by window, which is not trained through.
        return Sound(torch.from_numpy(encoder.encode(waveform)))
    return Sound(torch.from_numpy(waveform))


def _plain_texts(sample: Sample) -> list[str]:
    """What stands before, between and after the media."""
    texts = [""]
    for part in sample.content:
        if isinstance(part, Text):
            texts[-1] = f"{texts[-1]} {part.text}" if texts[-1] else part.text
        else:
            texts.append("")
    return texts


def _chat_texts(sample: Sample, codec: ChatCodec) -> list[str]:
    """As `_plain_texts`, of the filled-in template up to where the answer begins."""
    turns: list[dict[str, str]] = []
    for part in sample.content:
        said = part.text.replace(_MARK, "") if isinstance(part, Text) else _MARK
        if turns and turns[-1]["role"] == part.role:
            turns[-1]["content"] += said if _MARK in (said, turns[-1]["content"][-1:]) else f" {said}"
        else:
            turns.append({"role": part.role, "content": said})
    written: str = codec.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return written.split(_MARK)
