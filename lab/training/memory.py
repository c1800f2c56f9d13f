"""What training a model takes, counted before anything is rented: parameters, tokens, bytes by part.

Section 3 of the paper (its hardware is not found). Per parameter: its weight, and where it is trained a gradient,
AdamW's two moments (and a copy of the weight in float32 where weights are kept in less), plus 4 bytes a tensor for
AdamW's count of steps. What is saved for the backward pass is counted by `lab.training.saved_bytes`. Here for speech;
`lab.training.vision_memory` for pictures and video.

Not counted: the device's own context, fragmentation, workspaces, and buffers of the features' reading.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from lab.errors import LabError, choose
from lab.parts.audio_projectors import AudioProjector
from lab.training.saved_bytes import Precision, Saved, SpeechSample, decoder_saved, encoder_saved
from lab.training.traced_bytes import projector_saved

SPEECH_PARTS = ("audio_encoder", "audio_projector", "language_model")


@dataclass(frozen=True, kw_only=True)
class PartMemory:
    """One part: its numbers of parameters, and its bytes."""

    name: str
    parameters: int
    trained_parameters: int
    weights: int
    gradients: int
    optimizer: int
    saved: Saved


@dataclass(frozen=True, kw_only=True)
class Memory:
    """A model's parts; `logits` is the transient gradient of the loss, twice the scored logits in float32."""

    parts: tuple[PartMemory, ...]
    batch_size: int
    tokens: int
    """Positions of a sample in the language model."""
    logits: int

    @property
    def kept(self) -> int:
        """Weights, gradients and optimiser, whatever the batch."""
        return sum(part.weights + part.gradients + part.optimizer for part in self.parts)

    @property
    def total(self) -> int:
        """All of it, when the backward pass begins."""
        return self.kept + self.logits + sum(part.saved.everything for part in self.parts)

    @property
    def total_checkpointed(self) -> int:
        """With gradient checkpointing; the loss's gradient and a layer computed again are never there at once."""
        again = max(part.saved.computed_again for part in self.parts)
        return self.kept + max(again, self.logits) + sum(part.saved.checkpointed for part in self.parts)


def part_memory(name: str, model: nn.Module, precision: Precision, *, trained: bool, saved: Saved) -> PartMemory:
    """What a part's parameters take; of a trained one, those without `requires_grad` (fixed positions) stay frozen."""
    parameters = list(model.parameters())
    learning = [parameter for parameter in parameters if trained and parameter.requires_grad]
    count = sum(parameter.numel() for parameter in learning)
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    return PartMemory(
        name=name,
        parameters=sum(parameter.numel() for parameter in parameters),
        trained_parameters=count,
        weights=precision.weights * sum(parameter.numel() for parameter in parameters) + buffers,
        gradients=precision.gradients * count,
        optimizer=(2 * precision.moments + precision.master) * count + 4 * len(learning),
        saved=saved,
    )


def outside(part: PartMemory) -> PartMemory:
    """A frozen encoder whose features are computed once: it has parameters, and no place in the step."""
    return replace(part, weights=0, saved=Saved())


def language_model_memory(
    language_model: nn.Module, precision: Precision, *, trained: bool, batch_size: int, tokens: int, answer_tokens: int
) -> PartMemory:
    """A language model that the gradient flows through to what stands before it.

    Raises:
        LabError: its form has no formula.
    """
    config: Any = language_model.config
    choose(dict.fromkeys(("qwen2", "qwen3", "llama")), config.model_type, "form of language model for the formulas:")
    sizes = {"batch_size": batch_size, "tokens": tokens, "answer_tokens": answer_tokens}
    saved = decoder_saved(language_model, config, precision, trained=trained, **sizes)
    return part_memory("language_model", language_model, precision, trained=trained, saved=saved)


def logits_bytes(language_model: nn.Module, batch_size: int, answer_tokens: int) -> int:
    """The gradient of the loss by the scored logits, there twice for a moment, in float32."""
    config: Any = language_model.config
    return 2 * 4 * config.vocab_size * batch_size * (answer_tokens + 1)


def check_trained(trained: Collection[str], parts: Sequence[str]) -> None:
    """Refuse what no model of these parts trains.

    Raises:
        LabError: an unknown part, or none.
    """
    for name in trained:
        choose(dict.fromkeys(parts), name, "part")
    if not trained:
        raise LabError(f"nothing is trained: choose at least one of: {', '.join(parts)}")


def speech_memory(
    *,
    encoder: nn.Module,
    build_projector: Callable[[], AudioProjector],
    language_model: nn.Module,
    sample: SpeechSample,
    trained: Collection[str],
    precision: Precision,
    max_tokens: int | None = None,
) -> Memory:
    """What a step of an audio language model takes, at its largest batch.

    Args:
        encoder: transformers' Whisper encoder, as all parts best on the meta device.
        build_projector: makes the projector; called where tensors have no memory.
        language_model: transformers' causal model of Qwen2, Qwen3 or Llama.
        sample: the batch.
        trained: names of `SPEECH_PARTS`; the encoder outside them is outside the loop.
        precision: of weights and products.
        max_tokens: the longest sequence that is allowed.

    Raises:
        LabError: an unknown part, nothing to train, a language model whose form has no formula, or a sequence longer
            than `max_tokens`.
    """
    check_trained(trained, SPEECH_PARTS)
    with torch.device("meta"):
        projector = build_projector()
        # The statistics that standardise features stand with the joined model.
        projector.register_buffer("feature_mean", torch.empty(projector.hidden_size))
        projector.register_buffer("feature_std", torch.empty(projector.hidden_size))
    tokens = sample.prompt_tokens + projector.output_length(sample.frames) + 1 + sample.answer_tokens
    if max_tokens is not None and tokens > max_tokens:
        raise LabError(f"an utterance takes {tokens} tokens, more than max_tokens {max_tokens}: make it shorter")
    trains = {name: name in trained for name in SPEECH_PARTS}
    above = trains["audio_encoder"] or trains["audio_projector"]
    part = partial(part_memory, precision=precision)
    saved = Saved()
    if trains["audio_encoder"]:
        saved = encoder_saved(encoder, encoder.config, sample, precision)  # type: ignore[arg-type]
    encoder_part = part("audio_encoder", encoder, trained=trains["audio_encoder"], saved=saved)
    traced = Saved()
    if above:
        traced = projector_saved(build_projector, sample, precision, gradient_flows_on=trains["audio_encoder"])
    return Memory(
        parts=(
            encoder_part if trains["audio_encoder"] else outside(encoder_part),
            part("audio_projector", projector, trained=trains["audio_projector"], saved=traced),
            language_model_memory(
                language_model,
                precision,
                trained=trains["language_model"],
                batch_size=sample.batch_size,
                tokens=tokens,
                answer_tokens=sample.answer_tokens,
            ),
        ),
        batch_size=sample.batch_size,
        tokens=tokens,
        logits=logits_bytes(language_model, sample.batch_size, sample.answer_tokens),
    )
