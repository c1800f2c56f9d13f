"""The windowed Q-Former of SALMONN (arXiv 2310.13289, section 3.1) as an audio projector.

Axes as in `strided_projection`, and `queries` (learned queries of a window), `query_size` (the Q-Former's own width).
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lab.errors import LabError
from lab.parts.strided_projection import AudioProjector

INITIALIZER_RANGE = 0.02


class QueryAttention(nn.Module):
    """Multi-head attention of queries over a context, without dropout.

    The key has no bias: softmax does not see it.
    """

    def __init__(self, *, query_size: int, context_size: int, num_attention_heads: int) -> None:
        super().__init__()
        self.num_attention_heads = num_attention_heads
        self.q_proj = nn.Linear(query_size, query_size)
        self.k_proj = nn.Linear(context_size, query_size, bias=False)
        self.v_proj = nn.Linear(context_size, query_size)
        self.o_proj = nn.Linear(query_size, query_size)

    def forward(
        self,
        queries: Float[Tensor, "windows queries query_size"],
        context: Float[Tensor, "windows context context_size"],
        attend: Bool[Tensor, "windows context"] | None = None,
    ) -> Float[Tensor, "windows queries query_size"]:
        """Attend from `queries` to the context positions where `attend` is true (to all where it is None)."""
        heads = (self.num_attention_heads, -1)
        q = self.q_proj(queries).unflatten(-1, heads).transpose(1, 2)
        k = self.k_proj(context).unflatten(-1, heads).transpose(1, 2)
        v = self.v_proj(context).unflatten(-1, heads).transpose(1, 2)
        mask = None if attend is None else attend[:, None, None, :]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class QFormerLayer(nn.Module):
    """BERT's order: self-attention over the queries, attention over the frames, feed-forward, a norm after each."""

    def __init__(
        self, *, query_size: int, context_size: int, num_attention_heads: int, with_self_attention: bool
    ) -> None:
        super().__init__()
        self.self_attention = (
            QueryAttention(query_size=query_size, context_size=query_size, num_attention_heads=num_attention_heads)
            if with_self_attention
            else None
        )
        self.self_attention_norm = nn.LayerNorm(query_size) if with_self_attention else None
        self.cross_attention = QueryAttention(
            query_size=query_size, context_size=context_size, num_attention_heads=num_attention_heads
        )
        self.cross_attention_norm = nn.LayerNorm(query_size)
        self.feed_forward = nn.Sequential(
            nn.Linear(query_size, 4 * query_size), nn.GELU(), nn.Linear(4 * query_size, query_size)
        )
        self.feed_forward_norm = nn.LayerNorm(query_size)

    def forward(
        self,
        queries: Float[Tensor, "windows queries query_size"],
        frames: Float[Tensor, "windows rate context_size"],
        is_real: Bool[Tensor, "windows rate"],
    ) -> Float[Tensor, "windows queries query_size"]:
        """Update the queries of each window from its real frames."""
        if self.self_attention is not None and self.self_attention_norm is not None:
            queries = self.self_attention_norm(queries + self.self_attention(queries, queries))
        queries = self.cross_attention_norm(queries + self.cross_attention(queries, frames, is_real))
        return self.feed_forward_norm(queries + self.feed_forward(queries))


class QFormer(AudioProjector):
    """Learned queries read each window of frames by cross-attention (SALMONN: one query, two layers, 0.33 s windows).

    `num_queries` queries of a window are laid side by side and projected onto its one token, so that the token count
    stays that of `output_length`. The window is `downsample_rate` frames. As in SALMONN the frames carry no position of
    their own within the window (the encoder's features hold it).

    Differs from the paper: (SALMONN's) trained from random weights, not from BERT; the last, shorter window is kept and
    masked, not dropped; with a single query self-attention would be a fixed linear map and is left out; no dropout;
    the width defaults to the encoder's, not to BERT's 768.

    Args:
        hidden_size: width of the encoder's frames.
        output_size: width of the language model.
        downsample_rate: frames a window.
        num_queries: queries a window.
        num_layers: Q-Former layers.
        query_size: width of the Q-Former; `hidden_size` where None.
        num_attention_heads: heads; one per 64 channels where None.

    Raises:
        LabError: the width does not divide by the heads, or there is no query or layer.
    """

    def __init__(
        self,
        *,
        hidden_size: int,
        output_size: int,
        downsample_rate: int,
        num_queries: int = 1,
        num_layers: int = 2,
        query_size: int | None = None,
        num_attention_heads: int | None = None,
    ) -> None:
        super().__init__(hidden_size=hidden_size, output_size=output_size, downsample_rate=downsample_rate)
        query_size = hidden_size if query_size is None else query_size
        heads = max(1, query_size // 64) if num_attention_heads is None else num_attention_heads
        if num_queries < 1 or num_layers < 1:
            raise LabError(f"q_former has {num_queries} queries and {num_layers} layers; expected at least one of each")
        if heads < 1 or query_size < 1 or query_size % heads:
            raise LabError(f"q_former's width {query_size} does not divide by {heads} attention heads")
        self.num_queries = num_queries
        self.query_size = query_size
        self.frames_norm = nn.LayerNorm(hidden_size)
        self.queries = nn.Parameter(torch.empty(num_queries, query_size))
        self.layers = nn.ModuleList(
            QFormerLayer(
                query_size=query_size,
                context_size=hidden_size,
                num_attention_heads=heads,
                with_self_attention=num_queries > 1,
            )
            for _ in range(num_layers)
        )
        self.output_proj = nn.Linear(num_queries * query_size, output_size)
        self.apply(_initialize)
        nn.init.normal_(self.queries, std=INITIALIZER_RANGE)

    def project(
        self, windows: Float[Tensor, "windows rate hidden_size"], frames_in_window: Int[Tensor, " windows"]
    ) -> Float[Tensor, "windows output_size"]:
        """Read each window with its queries; padding frames are masked out of the attention."""
        is_real = torch.arange(self.downsample_rate, device=windows.device) < frames_in_window[:, None]
        frames = self.frames_norm(windows)
        queries = self.queries.expand(len(windows), -1, -1)
        for layer in self.layers:
            queries = layer(queries, frames, is_real)
        return self.output_proj(queries.flatten(1))

    def multiply_adds_per_window(self) -> int:
        """Keys and values are computed for every frame, the rest for every query; the attention products are added."""
        total = self.output_proj.weight.numel()
        for layer in self.layers:
            assert isinstance(layer, QFormerLayer)
            if layer.self_attention is not None:
                projections = sum(p.numel() for p in layer.self_attention.parameters() if p.ndim == 2)
                total += self.num_queries * projections + 2 * self.num_queries**2 * self.query_size
            cross = layer.cross_attention
            total += self.num_queries * (cross.q_proj.weight.numel() + cross.o_proj.weight.numel())
            total += self.downsample_rate * (cross.k_proj.weight.numel() + cross.v_proj.weight.numel())
            total += 2 * self.num_queries * self.downsample_rate * self.query_size
            total += self.num_queries * sum(p.numel() for p in layer.feed_forward.parameters() if p.ndim == 2)
        return total


def _initialize(module: nn.Module) -> None:
    """BERT's initialisation: normal weights, no bias."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=INITIALIZER_RANGE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
