"""Causal attention inside each of several samples that share a sequence, by name, and inside transformers' models.

Section 3 of the paper: packed samples are kept apart by flash-attention 2's cumulative sequence lengths. Axes:
`tokens` (of all samples, one after the other), `heads`, `kv_heads` (that `heads` is a multiple of), `head_dim`. A token
attends to the tokens of its own sample that do not stand after it.

Transformers' attention interface finds a function by the name in a model's configuration, and passes on to it what the
model was called with. So a model that is packed for the first time gets our name there, and from then on the boundaries
travel with the call; a call without them goes to the library's own SDPA, as before. Before that the model is tried: two
samples of a few tokens have to be in a pack what each is alone, and no gradient may reach the other one. What so few
tokens cannot show is looked up in the configuration (`check_longest`) and in how each layer calls its attention.
"""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lab.errors import LabError, choose, first_line
from lab.parts.part import in_evaluation

TOLERANCES = {torch.float64: 1e-4, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""How far a packed sample may be from the same one alone, relative to the largest value, in each dtype."""

_HALF = (torch.float16, torch.bfloat16)
_NAME = "omni_lab"
# What the library may hand to an attention function that packed attention honours, or that changes nothing.
_KNOWN = {"dropout", "is_causal", "logits_to_keep", "position_ids", "scaling", "sliding_window"}
# A sample of two tokens and one of three are fewer than any window or chunk holds.
_TRIED = (2, 3)
# What an architecture may raise that was not written for packed calls.
_CRASHES = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


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


def check_longest(model: PreTrainedModel, longest: int, sample: str = "a sample", unit: str = "tokens") -> None:
    """Refuse a sample that is longer than the model can keep apart from those before it; `longest` counts its tokens.

    A window and chunks are masks, which packed attention lacks; and the frequencies of some rotary positions are those
    of the largest position in the whole pack.

    Raises:
        LabError: such a sample, by its name `sample`.
    """
    for reach, why in _reaches(model.config.get_text_config()):
        if longest > reach:
            raise LabError(
                f"{sample} has {longest} {unit}, and {type(model).__name__} {why}, which packed samples cannot have "
                "each on its own; do not pack it, or leave longer samples out"
            )


def _reaches(config: Any) -> Iterator[tuple[int, str]]:
    """The longest samples of a configuration, each with the reason."""
    layers = getattr(config, "layer_types", None)
    window, chunk = getattr(config, "sliding_window", None), getattr(config, "attention_chunk_size", None)
    if window and (layers is None or "sliding_attention" in layers):
        yield window, f"looks back {window} tokens"
    if chunk and (layers is None or "chunked_attention" in layers):
        yield chunk, f"attends in chunks of {chunk} tokens"
    yield from _rope_reaches(config)


def _rope_reaches(config: Any) -> Iterator[tuple[int, str]]:
    given = getattr(config, "rope_parameters", None) or {}
    # Of one kind for all layers, or by the kind of layer.
    for rope in (given, *given.values()):
        kind = str(rope.get("rope_type")) if isinstance(rope, Mapping) else ""
        if kind == "longrope" or "dynamic" in kind:
            told: Any = rope.get("original_max_position_embeddings") if kind == "longrope" else None
            reach = told or getattr(config, "max_position_embeddings", 0)
            yield reach, f"has {kind!r} positions, whose frequencies change with the largest beyond {reach}"


def call_packed(
    model: PreTrainedModel,
    embeddings: Float[Tensor, "1 tokens hidden_size"],
    *,
    attention: str,
    boundaries: SampleBoundaries,
    position_ids: Int[Tensor, "1 tokens"],
    **options: Any,
) -> Any:
    """Call a causal model of transformers on packed samples, each kept apart, in layers that are computed again too.

    `options` are the model's own.

    Raises:
        LabError: what `check_longest` refuses, attention of another kind in the model (not SDPA, or with a mask or a
            bias of its own), a layer that does not go through the library's attention interface, or a model that the
            trial showed to carry something from sample to sample or to compute them otherwise than alone.
    """
    check_longest(model, boundaries.max_seqlen)
    if next(_rope_reaches(model.config.get_text_config()), None):
        # Not the number of tokens where positions jump, and a wait for the GPU.
        check_longest(model, int(position_ids.max()) + 1, unit="positions")
    if model.config._attn_implementation != _NAME:
        _adopt(model, tried=not isinstance(embeddings, FakeTensor))
    options = {**options, "boundaries": boundaries, "position_ids": position_ids}
    return _call(model, embeddings, PACKED_ATTENTION[attention].attend, options)


def _call(
    model: PreTrainedModel, embeddings: Float[Tensor, "1 tokens hidden_size"], attend: Attend, options: dict[str, Any]
) -> Any:
    layers: set[int] = set()
    # A mask of four axes is handed on as it is: ours holds nothing, since the boundaries say it all.
    no_mask = embeddings.new_zeros(1, 1, 1, 1)
    output = model(
        inputs_embeds=embeddings, attention_mask=no_mask, packed_attention=attend, reached_layers=layers, **options
    )
    expected = model.config.get_text_config().num_hidden_layers
    if len(layers) < expected:
        raise LabError(
            f"{type(model).__name__} computes {expected - len(layers)} of its {expected} layers without transformers' "
            "attention interface, so packed samples would leak into each other; do not pack it"
        )
    return output


def _adopt(model: PreTrainedModel, *, tried: bool) -> None:
    """Give a model our attention; only one without values, of which shapes alone are asked, is not `tried` first."""
    own, kind = model.config._attn_implementation, type(model).__name__
    if own != "sdpa":
        raise LabError(
            f"{kind} computes its attention by {own!r}, which cannot keep packed samples apart; do not pack it"
        )
    try:
        reach, difference = _trial(model) if tried else (0.0, 0.0)
        if reach != 0:
            raise LabError(
                f"{kind} carries something over from one packed sample to the next beside its attention, as "
                "state-space and convolution layers do; do not pack it"
            )
        if not difference <= TOLERANCES[model.dtype]:
            raise LabError(
                f"{kind} computes a packed sample otherwise than alone, by {difference:.2g} of the largest logit; do "
                "not pack it"
            )
        _name_attention(model, _NAME)
    except (LabError, *_CRASHES) as error:
        _name_attention(model, own)
        if isinstance(error, LabError):
            raise
        told = f"{type(error).__name__}: {first_line(error)}"
        raise LabError(f"{kind} cannot be called on packed samples ({told}); do not pack it") from error


def _name_attention(model: PreTrainedModel, name: str) -> None:
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            module.config._attn_implementation_internal = name


def _trial(model: PreTrainedModel) -> tuple[float, float]:
    """The greatest gradient of a packed sample's logits on the one before it, and how far packed ones are from alone.

    The second is relative to the largest logit. In the model's own precision and by exact kernels, whatever the call
    is to be in.
    """
    device, total = model.device, sum(_TRIED)
    exact = torch.autocast(device.type, enabled=False)
    with in_evaluation(model), torch.inference_mode(False), torch.enable_grad(), exact:
        positions = [torch.arange(length, device=device)[None] for length in _TRIED]
        cu_seqlens = torch.tensor([0, _TRIED[0], total], dtype=torch.int32, device=device)
        # Not all tokens, to see that those chosen are the ones that logits come of.
        kept = torch.arange(1, total, device=device)
        table: Any = model.get_input_embeddings()
        rows = table(torch.arange(total, device=device) % len(table.weight))[None].detach().requires_grad_()
        alone = [
            model(inputs_embeds=row, attention_mask=torch.ones_like(own), position_ids=own, use_cache=False).logits[0]
            for row, own in zip(rows.detach().split(_TRIED, 1), positions, strict=True)
        ]
        _name_attention(model, _NAME)
        options = {"position_ids": torch.cat(positions, 1), "logits_to_keep": kept, "use_cache": False}
        options["boundaries"] = SampleBoundaries(_TRIED, cu_seqlens)
        packed = _call(model, rows, attend_per_sample, options).logits[0]
        expected = torch.cat(alone)[kept].detach()
        if packed.shape != expected.shape:
            raise LabError(f"{type(model).__name__} computes the logits of all tokens, chosen or not; do not pack it")
        if not expected.isfinite().all():
            return 0.0, 0.0  # Nothing to compare: the loss will tell of weights that are not finite.
        (gradient,) = torch.autograd.grad(packed[_TRIED[0] - 1 :].sum(), rows)
    difference = (packed.detach() - expected).abs().max() / expected.abs().max()
    return float(gradient[:, : _TRIED[0]].abs().max()), float(difference)


def _attend(
    module: nn.Module,
    query: Float[Tensor, "batch heads tokens head_dim"],
    key: Float[Tensor, "batch kv_heads tokens head_dim"],
    value: Float[Tensor, "batch kv_heads tokens head_dim"],
    attention_mask: Tensor | None,
    *,
    boundaries: SampleBoundaries | None = None,
    packed_attention: Attend | None = None,
    reached_layers: set[int] | None = None,
    **kwargs: Any,  # the library's own: which of them there are depends on the model
) -> tuple[Float[Tensor, "batch tokens heads head_dim"], Tensor | None]:
    """An attention function as the library calls it."""
    if boundaries is None or packed_attention is None or reached_layers is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    kind, causal, window = type(module).__name__, kwargs.get("is_causal"), kwargs.get("sliding_window")
    if not (getattr(module, "is_causal", True) if causal is None else causal):
        raise LabError(f"{kind} is not causal; packed attention is for causal language models")
    unknown = [name for name, value in kwargs.items() if name not in _KNOWN and isinstance(value, (Tensor, float))]
    if unknown or (attention_mask is not None and attention_mask.numel() > 1):
        told = " and ".join(unknown) or "a mask of its own"
        raise LabError(f"{kind} attends with {told}, which packed attention lacks; do not pack it")
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
    attended = packed_attention(q, k, v, boundaries, kwargs.get("scaling"), kwargs.get("dropout", 0.0))
    return attended[None].contiguous(), None


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, sdpa_mask)
