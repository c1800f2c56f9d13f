"""What encoders and language models save for the backward pass, in bytes, by formulas.

In the formulas, d is `hidden_size`, f `intermediate_size`, h `num_attention_heads`, a = h times `head_dim`, c the bytes
of a number in matrix products and r those of one in the residual stream.

Saved for the backward pass, a layer and position (attention is a fused kernel's, which keeps no table of scores):

- encoder (LayerNorm, attention, LayerNorm, GELU), trained: both norms' inputs, 2 r d, with 16 for means and deviations;
  what queries, keys and values and what the inner layer are computed from, c d each (autocast casts that anew for each
  of the four products, else queries, keys and values share one); queries, keys, values and result 4 c d, with 4 h for
  the softmax, and c d for Whisper's result in the next product's order (kernels of GPUs spare this one); GELU's input
  and output, 2 c f.
- decoder (RMSNorm, attention, RMSNorm, SwiGLU): both norms' inputs in float32, 8 d, with 8; queries, result, and keys
  and values repeated for every head, 4 c a, with 4 h; SwiGLU's three factors, 3 c f; a float mask of `tokens` squared
  an utterance, where utterances differ in length. A *frozen* decoder keeps all this too, because the gradient
  flows through it on its way to the projector. Trained, it also keeps what its weights are multiplied with: the
  normalised input of both norms, 2 r d; the five products' inputs; SwiGLU's result, c f.
- A frozen encoder keeps nothing: nothing below it learns. Here it even stays outside the loop, its features are
  computed once; so its bytes are 0.

Besides: Whisper's two convolutions, SigLIP's patches; the last norm; and the logits, 4 bytes for each of the vocabulary
at each scored position. Projectors are traced instead (`lab.training.traced_bytes`). Autocast (`bfloat16`) keeps
weights in float32 and saves a copy of every matrix in bfloat16, of frozen ones too: 2 bytes a weight.

With gradient checkpointing a layer keeps its input alone, r d, and one layer at a time is computed again.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedConfig

from lab.errors import LabError


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Bytes of a number: in kept weights, gradients, a master copy (0: none), each moment, and matrix products."""

    weights: int
    gradients: int
    master: int
    moments: int
    compute: int

    @property
    def autocast(self) -> bool:
        """Whether products are in less than the weights, which are cast for each."""
        return self.compute < self.weights

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return torch.float32 if self.weights == 4 else torch.bfloat16

    @property
    def residual(self) -> int:
        """Bytes of a number in the residual stream, which autocast leaves in the weights' precision."""
        return self.weights

    def inputs(self, products: int, width: int) -> int:
        """Bytes of what so many products of one position's `width` numbers keep of it."""
        return self.compute * width * (products if self.autocast else 1)


PRECISIONS: dict[str, Precision] = {
    # As the loop names them, which always keeps weights in float32.
    "float32": Precision(weights=4, gradients=4, master=0, moments=4, compute=4),
    "bfloat16": Precision(weights=4, gradients=4, master=0, moments=4, compute=2),
    # What large models are usually trained with, and the loop has not: 16 bytes a trained parameter, 2 a frozen one.
    "bfloat16_weights": Precision(weights=2, gradients=2, master=4, moments=4, compute=2),
}


@dataclass(frozen=True, kw_only=True)
class SpeechSample:
    """A batch of the longest utterances: `frames` each of their own, `encoder_frames` that the encoder computes."""

    batch_size: int
    frames: int
    encoder_frames: int
    prompt_tokens: int
    answer_tokens: int

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("frames", 1), ("encoder_frames", self.frames), ("answer_tokens", 0)):
            if getattr(self, name) < least:
                raise LabError(f"{name} is {getattr(self, name)}; expected at least {least}")


@dataclass(frozen=True, kw_only=True)
class Saved:
    """Bytes that a part saves for the backward pass: `layers` equal ones and the `rest`.

    With checkpointing `layer_input` is what is left of a layer. `copies` are of weights, `layer_copies` those of a
    layer among them.
    """

    layers: int = 0
    layer: int = 0
    layer_input: int = 0
    layer_copies: int = 0
    rest: int = 0
    rest_copies: int = 0

    @property
    def everything(self) -> int:
        """Without checkpointing."""
        return self.layers * (self.layer + self.layer_copies) + self.rest + self.rest_copies

    @property
    def checkpointed(self) -> int:
        """With checkpointing of every layer, before one is computed again."""
        return self.layers * self.layer_input + self.rest + self.rest_copies

    @property
    def computed_again(self) -> int:
        """One layer's own."""
        return self.layer + self.layer_copies


def encoder_layer_bytes(positions: int, config: PreTrainedConfig, precision: Precision) -> int:
    """Saved by one trained layer of Whisper's or SigLIP's encoder (see the module's formulas)."""
    d, c, f = config.hidden_size, precision.compute, _inner(config)
    norms = 2 * precision.residual * d + 16
    attended = 5 if config.model_type == "whisper" else 4
    attention = precision.inputs(3, d) + attended * c * d + 4 * config.num_attention_heads
    return positions * (norms + attention + precision.inputs(1, d) + 2 * c * f)


def decoder_layer_bytes(
    batch_size: int, tokens: int, config: PreTrainedConfig, precision: Precision, *, trained: bool
) -> int:
    """Saved by one layer of a Qwen2, Qwen3 or Llama decoder that the gradient flows through."""
    d, f, c, r = config.hidden_size, config.intermediate_size, precision.compute, precision.residual
    heads, groups, a = config.num_attention_heads, config.num_key_value_heads, _attended_width(config)
    masked = batch_size > 1
    # Without a mask keys and values are not repeated for the heads that share them.
    values = a if masked else a * groups // heads
    bytes_of_position = 8 * d + 8 + c * (2 * a + 2 * values) + 4 * heads + 3 * c * f
    queries_and_keys = a + a * groups // heads
    if config.model_type == "qwen3":  # normalises queries and keys, as long as heads times head_dim
        bytes_of_position += 4 * (queries_and_keys + heads + groups)
    if trained:
        bytes_of_position += 2 * r * d + precision.inputs(3, d) + precision.inputs(2, d) + c * f
        if config.model_type == "qwen3":
            bytes_of_position += c * queries_and_keys
    mask = c * batch_size * tokens**2 if masked else 0
    return batch_size * tokens * bytes_of_position + mask


def encoder_saved(model: nn.Module, config: PreTrainedConfig, sample: SpeechSample, precision: Precision) -> Saved:
    """Of a trained Whisper encoder."""
    d, c, batch = config.d_model, precision.compute, sample.batch_size
    positions = batch * sample.encoder_frames
    convolutions = c * (2 * config.num_mel_bins + 5 * d)  # of two mel frames each, then of one frame
    layers = config.encoder_layers
    in_layers, elsewhere = _matrix_weights(model.get_submodule("layers")), _matrix_weights(model)
    return Saved(
        layers=layers,
        layer=encoder_layer_bytes(positions, config, precision),
        layer_input=positions * precision.residual * d,
        layer_copies=2 * in_layers // layers if precision.autocast else 0,
        rest=positions * (convolutions + precision.residual * d + 8),
        rest_copies=2 * (elsewhere - in_layers) if precision.autocast else 0,
    )


def vision_encoder_saved(
    model: nn.Module, images: int, config: PreTrainedConfig, precision: Precision, *, image_size: int = 0
) -> Saved:
    """Of a trained SigLIP whose patches are used, not its pooling head; `image_size` 0 for its own."""
    side = image_size or config.image_size
    positions = images * (side // config.patch_size) ** 2
    in_layers, head = _matrix_weights(model.get_submodule("encoder")), _matrix_weights(getattr(model, "head", None))
    layers = config.num_hidden_layers
    pixels = precision.compute * images * config.num_channels * side**2
    return Saved(
        layers=layers,
        layer=encoder_layer_bytes(positions, config, precision),
        layer_input=positions * precision.residual * config.hidden_size,
        layer_copies=2 * in_layers // layers if precision.autocast else 0,
        rest=pixels + positions * (precision.residual * config.hidden_size + 8),
        rest_copies=2 * (_matrix_weights(model) - in_layers - head) if precision.autocast else 0,
    )


def decoder_saved(
    model: nn.Module,
    config: PreTrainedConfig,
    precision: Precision,
    *,
    batch_size: int,
    tokens: int,
    answer_tokens: int,
    trained: bool,
) -> Saved:
    """Of a decoder that the gradient flows through, with its logits and the loss of each answer and its end."""
    d, r = config.hidden_size, precision.residual
    positions, scored = batch_size * tokens, batch_size * (answer_tokens + 1)
    once = 2 * r * config.head_dim if _has_head_dim(config) else 2 * r * d // config.num_attention_heads
    once += 4 * d + 4 + (r * d if trained else 0)
    of_scored = 4 * config.vocab_size + 8 + (precision.inputs(1, d) if trained else 0)
    layers = config.num_hidden_layers
    in_layers = _matrix_weights(model.get_submodule("model.layers"))
    return Saved(
        layers=layers,
        layer=decoder_layer_bytes(batch_size, tokens, config, precision, trained=trained),
        layer_input=positions * r * d,
        layer_copies=2 * in_layers // layers if precision.autocast else 0,
        rest=positions * once + scored * of_scored,
        rest_copies=2 * d * config.vocab_size if precision.autocast else 0,
    )


def _inner(config: PreTrainedConfig) -> int:
    return config.encoder_ffn_dim if config.model_type == "whisper" else config.intermediate_size


def _has_head_dim(config: PreTrainedConfig) -> bool:
    return getattr(config, "head_dim", None) is not None


def _attended_width(config: PreTrainedConfig) -> int:
    """Heads times their width, which is `hidden_size` where the configuration says nothing else."""
    return config.num_attention_heads * config.head_dim if _has_head_dim(config) else config.hidden_size


def _matrix_weights(model: nn.Module | None) -> int:
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    modules = [] if model is None else [module for module in model.modules() if isinstance(module, kinds)]
    return sum(module.weight.numel() for module in modules)
