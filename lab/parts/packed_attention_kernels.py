"""Causal attention inside each of several samples that share a sequence: one contract, and what computes it.

Section 3 of the paper: packed samples are kept apart by flash-attention 2's cumulative sequence lengths. Axes:
`tokens` (of all samples, one behind the other), `heads`, `kv_heads` (that `heads` is a multiple of), `head_dim`.

The contract: queries, keys and values of all tokens in, the attended values out; a token attends to the tokens of its
own sample that do not stand behind it. With samples of 2 and 3 tokens, `cu_seqlens` 0 2 5, the reference's mask is::

    x . . . .
    x x . . .
    . . x . .
    . . x x .
    . . x x x
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from lab.errors import LabError


@dataclass(frozen=True)
class SampleBoundaries:
    """Where samples lie in a sequence: token counts, the same cumulated (from 0, on the tokens' device), the longest.

    The counts are kept as Python's numbers too, so that no layer has to ask a GPU for them.
    """

    lengths: tuple[int, ...]
    cu_seqlens: Int[Tensor, " samples_and_one"]

    @property
    def max_seqlen(self) -> int:
        """Tokens of the longest sample."""
        return max(self.lengths)

    @functools.cached_property
    def sample_of_token(self) -> Int[Tensor, " tokens"]:
        """The number of each token's sample, from 0."""
        device = self.cu_seqlens.device
        return torch.repeat_interleave(torch.tensor(self.lengths, device=device), output_size=sum(self.lengths))

    @functools.cached_property
    def mask(self) -> Bool[Tensor, "tokens tokens"]:
        """Whether a token (row) attends to another (column)."""
        sample = self.sample_of_token
        return (sample[:, None] == sample).tril()

    @functools.cached_property
    def block_mask(self) -> Any:
        """The same for `flex_attention`, which leaves out the blocks in which it is nowhere true."""
        from torch.nn.attention.flex_attention import create_block_mask

        sample, tokens = self.sample_of_token, sum(self.lengths)

        def allowed(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (query >= key) & (sample[query] == sample[key])

        return create_block_mask(allowed, None, None, tokens, tokens, device=str(sample.device))


Attend = Callable[[Tensor, Tensor, Tensor, SampleBoundaries, float | None, float], Tensor]
"""Queries, keys, values (`"tokens heads head_dim"`), boundaries, scale (None: 1 / sqrt(head_dim)), dropout."""


def attend_per_sample(
    query: Float[Tensor, "tokens heads head_dim"],
    key: Float[Tensor, "tokens kv_heads head_dim"],
    value: Float[Tensor, "tokens kv_heads head_dim"],
    boundaries: SampleBoundaries,
    scale: float | None,
    dropout: float,
) -> Float[Tensor, "tokens heads head_dim"]:
    """One SDPA call a sample."""
    split = [x.transpose(0, 1)[None].split(list(boundaries.lengths), dim=2) for x in (query, key, value)]
    grouped = query.shape[1] != key.shape[1]
    parts = [
        F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, dropout_p=dropout, enable_gqa=grouped)
        for q, k, v in zip(*split, strict=True)
    ]
    return torch.cat(parts, dim=2)[0].transpose(0, 1)


def attend_sdpa(
    query: Float[Tensor, "tokens heads head_dim"],
    key: Float[Tensor, "tokens kv_heads head_dim"],
    value: Float[Tensor, "tokens kv_heads head_dim"],
    boundaries: SampleBoundaries,
    scale: float | None,
    dropout: float,
) -> Float[Tensor, "tokens heads head_dim"]:
    """One SDPA call with a dense mask: the reference."""
    q, k, v = (x.transpose(0, 1)[None] for x in (query, key, value))
    grouped = q.shape[1] != k.shape[1]
    mask = boundaries.mask
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, dropout_p=dropout, enable_gqa=grouped)
    return out[0].transpose(0, 1)


def attend_flash_attn(
    query: Float[Tensor, "tokens heads head_dim"],
    key: Float[Tensor, "tokens kv_heads head_dim"],
    value: Float[Tensor, "tokens kv_heads head_dim"],
    boundaries: SampleBoundaries,
    scale: float | None,
    dropout: float,
) -> Float[Tensor, "tokens heads head_dim"]:
    """flash-attention 2's kernel for samples of varying length: the paper's way."""
    from flash_attn import flash_attn_varlen_func

    at, longest = boundaries.cu_seqlens, boundaries.max_seqlen
    return flash_attn_varlen_func(
        query, key, value, at, at, longest, longest, dropout_p=dropout, softmax_scale=scale, causal=True
    )


def attend_torch_varlen(
    query: Float[Tensor, "tokens heads head_dim"],
    key: Float[Tensor, "tokens kv_heads head_dim"],
    value: Float[Tensor, "tokens kv_heads head_dim"],
    boundaries: SampleBoundaries,
    scale: float | None,
    dropout: float,
) -> Float[Tensor, "tokens heads head_dim"]:
    """Torch's own kernel of that kind; a window of (-1, 0) is its word for causal."""
    from torch.nn.attention.varlen import varlen_attn

    _no_dropout("torch_varlen", dropout)
    at, longest = boundaries.cu_seqlens, boundaries.max_seqlen
    grouped = query.shape[1] != key.shape[1]
    out: Any = varlen_attn(
        query, key, value, at, at, longest, longest, scale=scale, window_size=(-1, 0), enable_gqa=grouped
    )
    return out


def attend_flex(
    query: Float[Tensor, "tokens heads head_dim"],
    key: Float[Tensor, "tokens kv_heads head_dim"],
    value: Float[Tensor, "tokens kv_heads head_dim"],
    boundaries: SampleBoundaries,
    scale: float | None,
    dropout: float,
) -> Float[Tensor, "tokens heads head_dim"]:
    """flex_attention with a document mask; compiled on a GPU, as it is elsewhere."""
    from torch.nn.attention.flex_attention import flex_attention

    _no_dropout("flex", dropout)
    q, k, v = (x.transpose(0, 1)[None] for x in (query, key, value))
    attend: Any = _compiled_flex() if query.is_cuda else flex_attention
    out = attend(q, k, v, block_mask=boundaries.block_mask, scale=scale, enable_gqa=q.shape[1] != k.shape[1])
    return out[0].transpose(0, 1)


@functools.cache
def _compiled_flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


def _no_dropout(backend: str, dropout: float) -> None:
    if dropout:
        raise LabError(
            f"attention backend {backend!r} has no dropout, and the model has {dropout}; set the model's attention "
            "dropout to 0 or choose one of: flash_attn, per_sample, sdpa"
        )
