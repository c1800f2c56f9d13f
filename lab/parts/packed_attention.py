"""Causal attention inside each of several samples that share a sequence, by name, and inside transformers' models.

Section 3 of the paper: packed samples are kept apart by flash-attention 2's cumulative sequence lengths. Axes:
`tokens` (of all samples, one after the other), `heads`, `kv_heads` (that `heads` is a multiple of), `head_dim`. A token
attends to the tokens of its own sample that do not stand after it.

Transformers' attention interface finds a function by the name in a model's configuration, and passes on to it what the
model was called with. So a model that is packed for the first time gets our name there, and from then on the boundaries
travel with the call; a call without them goes to the library's own SDPA, as before.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lab.errors import LabError, choose

_HALF = (torch.float16, torch.bfloat16)
_NAME = "omni_lab"


@dataclass(frozen=True)
class SampleBoundaries:
    """Where samples lie in a sequence: token counts, and the same cumulated (from 0, int32, on the tokens' device).

    The counts are kept as Python's numbers too, so that no layer has to ask a GPU for them.
    """

    lengths: tuple[int, ...]
    cu_seqlens: Int[Tensor, " samples_and_one"]

    @property
    def max_seqlen(self) -> int:
        """Tokens of the longest sample."""
        return max(self.lengths)


Attend = Callable[[Tensor, Tensor, Tensor, SampleBoundaries, float | None, float], Tensor]
"""Queries (`"tokens heads head_dim"`), keys and values (of `kv_heads`), boundaries, scale (None: 1 / sqrt(head_dim)),
dropout; gives the attended values."""


def attend_per_sample(
    query: Tensor, key: Tensor, value: Tensor, boundaries: SampleBoundaries, scale: float | None, dropout: float
) -> Tensor:
    """One SDPA call a sample.

    One call for neighbours of equal length was no faster: what it saves in calls it spends on reshaping.
    """
    split = [x.transpose(0, 1)[None].split(list(boundaries.lengths), dim=2) for x in (query, key, value)]
    grouped = query.shape[1] != key.shape[1]
    parts = [
        F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, dropout_p=dropout, enable_gqa=grouped)
        for q, k, v in zip(*split, strict=True)
    ]
    return torch.cat(parts, dim=2)[0].transpose(0, 1)


def attend_flash_attn(
    query: Tensor, key: Tensor, value: Tensor, boundaries: SampleBoundaries, scale: float | None, dropout: float
) -> Tensor:
    """flash-attention 2's kernel for samples of varying length: the paper's way."""
    from flash_attn import flash_attn_varlen_func

    at, longest = boundaries.cu_seqlens, boundaries.max_seqlen
    return flash_attn_varlen_func(
        query, key, value, at, at, longest, longest, dropout_p=dropout, softmax_scale=scale, causal=True
    )


def attend_torch_varlen(
    query: Tensor, key: Tensor, value: Tensor, boundaries: SampleBoundaries, scale: float | None, dropout: float
) -> Tensor:
    """Torch's own kernel of that kind; a window of (-1, 0) is its word for causal."""
    from torch.nn.attention.varlen import varlen_attn

    if dropout:
        raise LabError(
            f"attention backend 'torch_varlen' has no dropout, and the model has {dropout}; set the model's attention "
            "dropout to 0 or choose one of: flash_attn, per_sample"
        )
    at, longest = boundaries.cu_seqlens, boundaries.max_seqlen
    grouped = query.shape[1] != key.shape[1]
    out: Any = varlen_attn(
        query, key, value, at, at, longest, longest, scale=scale, window_size=(-1, 0), enable_gqa=grouped
    )
    return out


@dataclass(frozen=True)
class PackedAttention:
    """A backend: its function, and the module whose kernel it needs (empty: none, it runs everywhere)."""

    attend: Attend
    needs: str = ""

    def missing(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it cannot run on a device in a dtype; None where it can."""
        if not self.needs:
            return None
        if importlib.util.find_spec(self.needs) is None:
            return f"{self.needs} is not installed"
        if device.type != "cuda":
            return f"it has no kernel for {device.type}"
        return None if dtype in _HALF else f"it has no kernel for {dtype}, only for {' and '.join(map(str, _HALF))}"


# In the order of preference of `auto`: kernels made for this, then one SDPA call a sample, which on a CPU measured 2
# to 10 times faster than padding or a dense mask.
PACKED_ATTENTION: dict[str, PackedAttention] = {
    "flash_attn": PackedAttention(attend_flash_attn, "flash_attn"),
    "torch_varlen": PackedAttention(attend_torch_varlen, "torch.nn.attention.varlen"),
    "per_sample": PackedAttention(attend_per_sample),
}


def choose_packed_attention(name: str, *, device: torch.device, dtype: torch.dtype) -> str:
    """The backend of that name, where this machine can run it; `auto` is the first of `PACKED_ATTENTION` that it can.

    Raises:
        LabError: an unknown name, or one that this machine cannot run; the message says why and what it can.
    """
    why = {backend: entry.missing(device, dtype) for backend, entry in PACKED_ATTENTION.items()}
    can = [backend for backend, reason in why.items() if reason is None]
    if name == "auto":
        return can[0]
    choose(PACKED_ATTENTION, name, "attention backend")
    if why[name] is not None:
        raise LabError(f"attention backend {name!r} cannot run here: {why[name]}; choose: auto, {', '.join(can)}")
    return name


def call_packed(
    model: PreTrainedModel, embeddings: Float[Tensor, "1 tokens hidden_size"], *, attention: str, **options: Any
) -> Any:
    """Call a causal model of transformers on packed samples, each kept apart, in layers that are computed again too.

    `options` are the model's own, and `boundaries`, of as many tokens as there are.

    Raises:
        LabError: attention of another kind in the model (not SDPA, or a window shorter than a sample), or a layer that
            does not go through the library's attention interface (such as a recurrent one, through which samples would
            leak).
    """
    own = model.config._attn_implementation
    if own not in ("sdpa", _NAME):
        raise LabError(
            f"{type(model).__name__} computes its attention by {own!r}, which cannot keep packed samples apart; "
            "do not pack it"
        )
    for module in model.modules() if own != _NAME else ():
        if isinstance(module, PreTrainedModel):
            module.config._attn_implementation_internal = _NAME
    layers: set[int] = set()
    # A mask of four axes is handed on as it is: ours holds nothing, since the boundaries say it all.
    no_mask = embeddings.new_zeros(1, 1, 1, 1)
    output = model(
        inputs_embeds=embeddings, attention_mask=no_mask, packed_attention=attention, reached_layers=layers, **options
    )
    expected = model.config.get_text_config().num_hidden_layers
    if len(layers) != expected:
        raise LabError(
            f"{type(model).__name__} computes {expected - len(layers)} of its {expected} layers without transformers' "
            "attention interface, so packed samples would leak into each other; do not pack it"
        )
    return output


def _attend(
    module: nn.Module,
    query: Float[Tensor, "batch heads tokens head_dim"],
    key: Float[Tensor, "batch kv_heads tokens head_dim"],
    value: Float[Tensor, "batch kv_heads tokens head_dim"],
    attention_mask: Tensor | None,
    *,
    boundaries: SampleBoundaries | None = None,
    packed_attention: str = "",
    reached_layers: set[int] | None = None,
    **kwargs: Any,  # the library's own: which of them there are depends on the model
) -> tuple[Float[Tensor, "batch tokens heads head_dim"], Tensor | None]:
    """An attention function as the library calls it."""
    if boundaries is None or reached_layers is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    kind, causal, window = type(module).__name__, kwargs.get("is_causal"), kwargs.get("sliding_window")
    if not (getattr(module, "is_causal", True) if causal is None else causal):
        raise LabError(f"{kind} is not causal; packed attention is for causal language models")
    if window is not None and window < boundaries.max_seqlen:
        raise LabError(
            f"{kind} looks back {window} tokens and a sample has {boundaries.max_seqlen}; packed attention has no "
            f"window, so pack samples of at most {window} tokens"
        )
    reached_layers.add(id(module))
    # Norms and rotations in float32 leave queries and keys there under autocast, which knows SDPA and not the rest.
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
    q, k, v = (x[0].transpose(0, 1).to(dtype) for x in (query, key, value))
    attend = PACKED_ATTENTION[packed_attention].attend
    return attend(q, k, v, boundaries, kwargs.get("scaling"), kwargs.get("dropout", 0.0))[None].contiguous(), None


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, sdpa_mask)
