"""A sample as the model takes it: texts as token ids, media read and cut for the model's own encoders.

Section 2 of the paper for video (frames of at most 384 x 768 pixels, one a second, at most 48).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray

from lab.data.sample import Audio, Image, Part, Sample, Text, Video
from lab.errors import LabError
from lab.parts.any_resolution import image_views, num_views, token_order
from lab.parts.audio_tokens import Sound
from lab.parts.chat_codec import ChatCodec
from lab.parts.language_models import CharacterCodec, LanguageModel
from lab.parts.omni_model import Example, OmniModel, Segment
from lab.parts.visual_tokens import Branch, Seen
from lab.training.examples import Examples
from lab.training.language_models import text_writer

# What stands for a part that is no text while a chat template is filled in; no text has it.
_MARK = "\ufffc"


@dataclass(frozen=True, kw_only=True)
class Looking:
    """How much is looked at: tiles of a picture (AnyRes), and frames of a video."""

    max_tiles: int = 1
    frames_per_second: float = 1.0
    max_frames: int = 48


def example_of(
    sample: Sample, model: OmniModel, *, looking: Looking | None = None, write: Callable[[str], str] | None = None
) -> Example:
    """Read a sample for a model that has its encoders inside.

    A chat model reads the turns in its template; another one reads text and media one after the other. `write` brings
    text into the form that the language model reads; left out, it follows from its codec.

    Raises:
        LabError: media that cannot be read, or for which the model has no part; sample and source are named.
    """
    write = write or writer_of(model.language)
    try:
        media = [_segment(p, model, looking or Looking()) for p in sample.content if not isinstance(p, Text)]
        texts = _chat_texts(sample, model.codec) if isinstance(model.codec, ChatCodec) else _plain_texts(sample)
        content: list[Segment] = []
        for number, text in enumerate(texts):
            if text:
                content.append(model.codec.encode(text if isinstance(model.codec, ChatCodec) else write(text)))
            content += media[number : number + 1]
        answer = model.codec.encode(write(sample.answer))
    except LabError as error:
        where = f" of {sample.source!r}" if sample.source else ""
        raise LabError(f"sample {sample.id!r}{where}: {error}") from error
    return Example(content=content or [[]], answer=answer)


@dataclass(frozen=True, kw_only=True)
class ReadSamples(Examples):
    """Samples of any source, read by `example_of` whenever they are needed."""

    samples: Sequence[Sample]
    looking: Looking = Looking()

    @property
    def ids(self) -> Sequence[str]:
        """The samples' own."""
        return [sample.id for sample in self.samples]

    def example(self, index: int, model: OmniModel) -> Example:
        """One sample, its media read."""
        return example_of(self.samples[index], model, looking=self.looking)

    def answer_ids(self, text: str, model: OmniModel) -> list[int]:
        """An answer or choice as token ids, without start and end."""
        return model.codec.encode(writer_of(model.language)(text))


def writer_of(language_model: LanguageModel) -> Callable[[str], str]:
    """How a text is written for a language model."""
    own = isinstance(language_model.codec, CharacterCodec)
    return text_writer("character" if own else language_model.name)


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


def _segment(part: Part, model: OmniModel, looking: Looking) -> Segment:
    if isinstance(part, Audio):
        return _sound(part, model)
    if isinstance(part, Image):
        return _seen(part.read()[None], (0.0,), "visual_projector", model, looking.max_tiles)
    assert isinstance(part, Video)
    video = part.read(frames_per_second=looking.frames_per_second, max_frames=looking.max_frames)
    return _seen(video.frames, tuple(video.seconds.tolist()), "video_projector", model, 1)


def _sound(part: Audio, model: OmniModel) -> Sound:
    encoder = model.part("audio_encoder", "sounds")
    waveform = part.read()
    if encoder.num_frames(len(waveform)) > encoder.max_frames:
        # A longer sound is heard window by window, which is not trained through.
        return Sound(torch.from_numpy(encoder.encode([waveform])[0]))
    return Sound(torch.from_numpy(waveform))


def _seen(
    frames: UInt8[ndarray, "frames height width 3"],
    seconds: tuple[float, ...],
    branch: Branch,
    model: OmniModel,
    max_tiles: int,
) -> Seen:
    size = model.part("vision_encoder", "pictures or videos").image_size
    cut = [image_views(frame, image_size=size, max_tiles=max_tiles) for frame in frames]
    views = torch.from_numpy(np.concatenate([view.pixels for view in cut]))
    order = None
    if num_views(cut[0].grid) > 1:
        newline = model.part(branch, "pictures or videos").newline is not None
        order = token_order(
            *frames.shape[1:3],
            image_size=size,
            max_tiles=max_tiles,
            view_grid=model.view_grid(branch, views),
            newline=newline,
        )
    return Seen(views=views, seconds=seconds, branch=branch, grid=cut[0].grid, order=order)
