"""Packed attention inside a model of transformers: handed over with the call, taken away after it.

Section 3 of the paper. The library's attention interface finds a function by the name in a model's configuration, and
passes on to it what the model was called with. So for one call the name is ours and the boundaries travel as keyword
arguments, under the library's names (`cu_seq_lens_q` and the like) and under our own. Afterwards the configuration is
what it was: a call without boundaries never meets our functions.
"""

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from lab.errors import LabError
from lab.parts.packed_attention import PACKED_ATTENTION
from lab.parts.packed_attention_kernels import SampleBoundaries

_PREFIX = "omni_lab_packed_"
# What some models add to the scores, which no backend here knows.
_UNKNOWN_TERMS = ("softcap", "s_aux", "position_bias")


class _Layers(set[int]):
    """The attention layers that were reached in a call."""


def _attend(
    backend: str,
    module: nn.Module,
    query: Float[Tensor, "1 heads tokens head_dim"],
    key: Float[Tensor, "1 kv_heads tokens head_dim"],
    value: Float[Tensor, "1 kv_heads tokens head_dim"],
    attention_mask: Tensor | None,
    *,
    sample_boundaries: SampleBoundaries,
    reached_layers: _Layers,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,  # the library's own: which of them there are depends on the model
) -> tuple[Float[Tensor, "1 tokens heads head_dim"], None]:
    """An attention function as the library calls it."""
    kind = type(module).__name__
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if not causal:
        raise LabError(f"{kind} is not causal; packed attention is for causal language models")
    if terms := [name for name in _UNKNOWN_TERMS if kwargs.get(name) is not None]:
        raise LabError(f"{kind} adds {', '.join(terms)} to its scores, which packed attention cannot; do not pack it")
    if sliding_window is not None and sliding_window < sample_boundaries.max_seqlen:
        raise LabError(
            f"{kind} looks back {sliding_window} tokens and a sample has {sample_boundaries.max_seqlen}; packed "
            f"attention has no window, so pack samples of at most {sliding_window} tokens"
        )
    reached_layers.add(id(module))
    # Norms and rotations in float32 leave queries and keys there under autocast, which knows SDPA and not the rest.
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
    q, k, v = (x[0].transpose(0, 1).to(dtype) for x in (query, key, value))
    out = PACKED_ATTENTION[backend].attend(q, k, v, sample_boundaries, scaling, dropout)
    return out[None].contiguous(), None


for _name in PACKED_ATTENTION:
    AttentionInterface.register(_PREFIX + _name, functools.partial(_attend, _name))


@contextmanager
def isolated_samples(
    model: PreTrainedModel, boundaries: SampleBoundaries, *, attention: str
) -> Iterator[dict[str, Any]]:
    """Inside, one call of the model, with the keyword arguments that this gives, keeps the samples apart.

    A layer that is computed again in the backward pass (gradient checkpointing) is kept apart there too.

    Args:
        model: a causal model of one sequence of `boundaries.cu_seqlens[-1]` tokens.
        boundaries: of the samples.
        attention: of `PACKED_ATTENTION`.

    Raises:
        LabError: attention of another kind in the model (a window shorter than a sample, scores with other terms), a
            layer that does not go through the library's attention interface (such as a recurrent one, through which
            samples would leak), or reentrant gradient checkpointing.
    """
    layers = _Layers()
    cu_seqlens, longest = boundaries.cu_seqlens, boundaries.max_seqlen
    with _switched(model, _PREFIX + attention):
        yield {
            "sample_boundaries": boundaries,
            "reached_layers": layers,
            "cu_seq_lens_q": cu_seqlens,
            "cu_seq_lens_k": cu_seqlens,
            "max_length_q": longest,
            "max_length_k": longest,
        }
    expected = model.config.get_text_config().num_hidden_layers
    if len(layers) != expected:
        raise LabError(
            f"{type(model).__name__} computes {expected - len(layers)} of its {expected} layers without transformers' "
            "attention interface, so packed samples would leak into each other; do not pack it"
        )


@contextmanager
def _switched(model: PreTrainedModel, name: str) -> Iterator[None]:
    """The attention of that name in all of the model, and in what checkpointing computes again after this."""
    configs = {id(m.config): m.config for m in model.modules() if isinstance(m, PreTrainedModel)}
    before = {key: config._attn_implementation for key, config in configs.items()}
    checkpointed: list[Any] = [m for m in model.modules() if getattr(m, "gradient_checkpointing", False) and m.training]
    functions = {id(m): m._gradient_checkpointing_func for m in checkpointed}

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _switched(model, name)

    for function in functions.values():
        if getattr(function, "keywords", {}).get("use_reentrant"):
            raise LabError("packed samples need gradient checkpointing with use_reentrant=False")
    try:
        for config in configs.values():
            config._attn_implementation_internal = name
        for module in checkpointed:
            module._gradient_checkpointing_func = functools.partial(functions[id(module)], context_fn=contexts)
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation_internal = before[key]
        for module in checkpointed:
            module._gradient_checkpointing_func = functions[id(module)]
