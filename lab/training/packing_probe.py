"""Examples for the packing certificate, and what can be changed of one.

Sections 2 and 3 of the paper. Of three examples the middle one is changed, so that it has a neighbour on either side:
`text` (every token of content and answer becomes another), `features` (of its sounds and pictures; their number stays)
and `length` (answer and text a token longer, a sound or video a frame shorter, which moves every later example and
window).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from lab.parts.any_resolution import num_views
from lab.parts.audio_tokens import Sound
from lab.parts.omni_model import Example, OmniModel, Segment, Tokens
from lab.parts.visual_tokens import Seen
from lab.training.packing_certificate import Probe

NUM_SAMPLES = 3
_CHANGED = 1


def packing_probe(model: OmniModel, examples: Sequence[Example]) -> Probe:
    """What is certified of a model on these examples."""
    size = model.codec.vocab_size
    example = examples[_CHANGED]

    def changed(change: Callable[[Segment], Segment], answer: Sequence[int]) -> Example:
        return replace(example, content=[change(segment) for segment in example.content], answer=answer)

    changes = {
        "text": changed(lambda s: s if _is_media(s) else _others(s, size), _others(example.answer, size)),  # type: ignore[arg-type]
        "length": changed(lambda s: _of_other_length(s, model), [*example.answer, 0]),
    }
    if any(_is_media(segment) for segment in example.content):
        changes["features"] = changed(_of_other_numbers, example.answer)
    return Probe(
        examples=examples,
        changed=_CHANGED,
        changes=changes,
        packed=lambda chosen, attention: model.packed(chosen, attention=attention),
        padded=model,
    )


def _is_media(segment: Segment) -> bool:
    return isinstance(segment, (Sound, Seen, Tokens))


def _others(ids: Sequence[int], vocab_size: int) -> list[int]:
    return [(i + 1) % vocab_size for i in ids]


def _of_other_numbers(segment: Segment) -> Segment:
    if isinstance(segment, Sound):
        return Sound(_turned(segment.values))
    return replace(segment, views=_turned(segment.views)) if isinstance(segment, Seen) else segment


def _turned(values: Tensor) -> Tensor:
    """Of the same shape and about the same size: backwards and turned over, so that not one frame stays its own."""
    if not len(values):
        return values
    return 255 - values.flip(0) if values.dtype == torch.uint8 else 0.5 - values.flip(0)


def _of_other_length(segment: Segment, model: OmniModel) -> Segment:
    if isinstance(segment, Sound):
        return _of_other_frames(segment, model)
    if isinstance(segment, Seen):
        if len(segment.seconds) < 2:
            return segment
        kept = len(segment.views) - num_views(segment.grid)
        return replace(segment, views=segment.views[:kept], seconds=segment.seconds[:-1])
    return segment if isinstance(segment, Tokens) else [*segment, 0]


def _of_other_frames(sound: Sound, model: OmniModel) -> Sound:
    """A frame less, but where that would leave no window: then one more."""
    assert model.audio_projector is not None
    step = model.audio_encoder.samples_per_frame if sound.is_waveform and model.audio_encoder is not None else 1
    values = sound.values
    if len(values) - step >= step * model.audio_projector.projector.downsample_rate:
        return Sound(values[:-step])
    return Sound(torch.cat([values, F.pad(values[:0], (0, 0) * (values.dim() - 1) + (0, step), value=0.5)]))
