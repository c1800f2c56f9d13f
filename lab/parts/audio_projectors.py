"""Audio projectors by name: Conv-GMLP (the paper's section 3.1 and figure 5), pooling, capacity controls, peers.

Windows of encoder frames in, one language-model token a window out. Axes: `batch`, `frames` (encoder frames), `tokens`
(windows of `downsample_rate` consecutive frames), `windows` (the tokens of a whole batch, padding left out),
`hidden_size` (encoder width), `output_size` (language-model width). The paper's symbols: d is `hidden_size`, n is
`downsample_rate`, D = n * d.
"""

from abc import ABC, abstractmethod
from typing import Any, Literal, TypeVar, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lab.errors import LabError, choose
from lab.parts.part import Built, build_by_name, check_positive

Count = TypeVar("Count", int, Tensor)
Windows = Float[Tensor, "windows rate hidden_size"]
FramesInWindow = Int[Tensor, " windows"]
TokenOfWindow = Float[Tensor, "windows output_size"]
LastWindow = Literal["padded", "dropped"]
MAX_DOWNSAMPLE_RATE = 32
ULTRAVOX_NORM_INIT = 0.4
_INITIALIZER_RANGE = 0.02


class AudioProjector(Built, nn.Module, ABC):
    """Cuts encoder frames into windows that do not overlap and maps each onto one token.

    A subclass says what happens to a window, in `project`. Time is right-padded with zeros to a multiple of the rate,
    so the last window may hold fewer real frames than the others: 7 frames at rate 3 are the windows (0 1 2), (3 4 5),
    (6 . .), so 3 tokens. Windows that are wholly padding are never computed; their tokens are zeros.

    Where `last_window` is "dropped", a last window that is not full has no token, as in Baichuan-Omni-1.5: 7 frames at
    rate 3 are 2 tokens. `build_audio_projector` takes it for every projector.

    Raises:
        LabError: the rate is not a whole number from 1 to 32, or a width is not positive.
    """

    last_window: LastWindow = "padded"

    def __init__(self, *, hidden_size: int, output_size: int, downsample_rate: int) -> None:
        super().__init__()
        if type(downsample_rate) is not int or not 1 <= downsample_rate <= MAX_DOWNSAMPLE_RATE:
            raise LabError(
                f"downsample_rate is {downsample_rate!r}; expected a whole number from 1 to {MAX_DOWNSAMPLE_RATE}"
            )
        check_positive(hidden_size=hidden_size, output_size=output_size)
        self.hidden_size = hidden_size
        self.output_size = output_size
        self.downsample_rate = downsample_rate

    def output_length(self, num_frames: Count) -> Count:
        """Tokens for `num_frames` encoder frames: ceil(frames / rate), or floor where the last window is dropped.

        Differs from the paper: 30 s at n = 8 are 188 tokens by default, where its figures give 187 (1500 / 8 = 187.5).

        Raises:
            LabError: an utterance is shorter than one window.
        """
        shortest = int(num_frames.min()) if isinstance(num_frames, Tensor) else num_frames
        if shortest < self.downsample_rate:
            raise LabError(
                f"downsample_rate {self.downsample_rate} is larger than an utterance of {shortest} encoder frames; "
                f"choose a rate of at most {shortest} or leave that utterance out"
            )
        padding = self.downsample_rate - 1 if self.last_window == "padded" else 0
        return (num_frames + padding) // self.downsample_rate

    def forward(
        self, features: Float[Tensor, "batch frames hidden_size"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch tokens output_size"], Int[Tensor, " batch"]]:
        """Project a right-padded batch; frames from `lengths` on are padding and their content is ignored.

        Returns the tokens (zeros past an utterance's own) and how many each utterance has.
        """
        batch, num_frames, hidden_size = features.shape
        rate = self.downsample_rate
        token_lengths = self.output_length(lengths)
        num_tokens = self.output_length(num_frames)
        if self.last_window == "dropped":
            lengths = token_lengths * rate

        starts = torch.arange(num_tokens, device=features.device) * rate
        frames_in_window = (lengths.to(features.device)[:, None] - starts).clamp(0, rate).flatten()
        real = frames_in_window.nonzero().squeeze(1)
        windows = F.pad(features, (0, 0, 0, num_tokens * rate - num_frames)).reshape(-1, rate, hidden_size)
        if len(real) < len(windows):
            windows, frames_in_window = windows.index_select(0, real), frames_in_window.index_select(0, real)
        # Filled, not multiplied by 0: padding may hold NaN.
        is_padding = torch.arange(rate, device=features.device) >= frames_in_window[:, None]
        tokens = self.project(windows.masked_fill(is_padding[..., None], 0), frames_in_window)
        if len(real) < batch * num_tokens:
            tokens = tokens.new_zeros(batch * num_tokens, self.output_size).index_copy(0, real, tokens)
        return tokens.view(batch, num_tokens, self.output_size), token_lengths

    @abstractmethod
    def project(self, windows: Windows, frames_in_window: FramesInWindow) -> TokenOfWindow:
        """Map each window onto one token; it has at least one real frame, and its padding frames are zeros."""

    def flops_per_audio_second(self, frames_per_second: float) -> float:
        """Floating-point operations (two a multiply-add) of the matrix products, forward, for one second of audio."""
        weight = next(self.parameters())
        window = weight.new_zeros(1, self.downsample_rate, self.hidden_size)
        with torch.enable_grad(), FlopCounterMode(display=False) as counter:
            self.project(window, torch.tensor([self.downsample_rate], device=weight.device))
        return float(counter.get_total_flops()) * frames_per_second / self.downsample_rate


class GatedResidual(nn.Module):
    """LayerNorm(down(SiLU(gate(x)) * up(x)) + x), without biases: Conv-GMLP's block on windows laid flat."""

    def __init__(self, *, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)
        self.norm = nn.LayerNorm(hidden_size)

    def forward(self, x: Float[Tensor, "windows hidden_size"]) -> Float[Tensor, "windows hidden_size"]:
        """Apply the block to each row."""
        return self.norm(self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x)) + x)


class ConvGMLP(AudioProjector):
    """The paper's projector: a gated MLP of strided convolutions, with the window itself as shortcut.

    gate and up are convolutions d -> D of kernel and stride n, so each is one matrix product on the n frames of a
    window laid side by side (frame by frame, as in the shortcut); SiLU on the gate; down D -> D; LayerNorm of the sum.
    The block has 3 (n d)^2 + 2 n d parameters.

    Differs from the paper: the projection D -> language-model width is not described there; ours is one linear layer
    with bias, initialised like the block (normal, std 0.02). `intermediate_size` may narrow the inner width from D.

    Raises:
        LabError: `intermediate_size` is below 1.
    """

    def __init__(
        self, *, hidden_size: int, output_size: int, downsample_rate: int, intermediate_size: int | None = None
    ) -> None:
        super().__init__(hidden_size=hidden_size, output_size=output_size, downsample_rate=downsample_rate)
        window_size = downsample_rate * hidden_size
        intermediate_size = window_size if intermediate_size is None else intermediate_size
        check_positive(intermediate_size=intermediate_size)
        self.intermediate_size = intermediate_size
        self.block = GatedResidual(hidden_size=window_size, intermediate_size=intermediate_size)
        self.output_proj = nn.Linear(window_size, output_size)
        self.apply(_initialize)

    def project(self, windows: Windows, frames_in_window: FramesInWindow) -> TokenOfWindow:
        """Lay the frames of a window side by side; padding frames stay the zeros of the paper's right-padding."""
        return self.output_proj(self.block(windows.flatten(1)))


class ConvGMLPBudget(ConvGMLP):
    """Capacity control: Conv-GMLP with the widest inner width whose parameters, output layer included, fit a budget.

    Raises:
        LabError: the budget does not hold an inner width of 1; the message names the least it could be.
    """

    def __init__(self, *, hidden_size: int, output_size: int, downsample_rate: int, parameter_budget: int) -> None:
        window_size = downsample_rate * hidden_size
        fixed = 2 * window_size + (window_size + 1) * output_size
        intermediate_size = (parameter_budget - fixed) // (3 * window_size) if window_size > 0 else 1
        if intermediate_size < 1:
            raise LabError(
                f"parameter_budget {parameter_budget} is too small for conv_gmlp_budget at downsample_rate "
                f"{downsample_rate}; expected at least {fixed + 3 * window_size}"
            )
        super().__init__(
            hidden_size=hidden_size,
            output_size=output_size,
            downsample_rate=downsample_rate,
            intermediate_size=intermediate_size,
        )


class MeanPoolMLP(AudioProjector):
    """The mean of a window's frames, then two linear layers with GELU between, of LLaVA-1.5's shape (d -> out -> out).

    The last window is divided by the frames it really has, not by n, so that its scale is that of the others.
    """

    def __init__(self, *, hidden_size: int, output_size: int, downsample_rate: int) -> None:
        super().__init__(hidden_size=hidden_size, output_size=output_size, downsample_rate=downsample_rate)
        self.mlp = nn.Sequential(nn.Linear(hidden_size, output_size), nn.GELU(), nn.Linear(output_size, output_size))

    def project(self, windows: Windows, frames_in_window: FramesInWindow) -> TokenOfWindow:
        """Average, then the MLP."""
        return self.mlp(_mean_of_frames(windows, frames_in_window))


class MeanPoolGMLP(AudioProjector):
    """Capacity control: pooled frames through Conv-GMLP's block, made as large as Conv-GMLP at the same n.

    What differs from `conv_gmlp` is only that a window reaches the block as its mean (d wide) and not as its n frames
    (n d wide): the inner width is the one whose total, output layer included, comes nearest to `parameter_budget`, by
    default the total of `conv_gmlp` at the same rate and widths.

    Raises:
        LabError: the budget does not hold an inner width of 1.
    """

    def __init__(
        self, *, hidden_size: int, output_size: int, downsample_rate: int, parameter_budget: int | None = None
    ) -> None:
        super().__init__(hidden_size=hidden_size, output_size=output_size, downsample_rate=downsample_rate)
        window_size = downsample_rate * hidden_size
        if parameter_budget is None:
            parameter_budget = 3 * window_size**2 + 2 * window_size + (window_size + 1) * output_size
        fixed = 2 * hidden_size + (hidden_size + 1) * output_size
        self.intermediate_size = round((parameter_budget - fixed) / (3 * hidden_size))
        if self.intermediate_size < 1:
            raise LabError(
                f"parameter_budget {parameter_budget} is too small for mean_pool_gmlp; expected at least "
                f"{fixed + 3 * hidden_size}"
            )
        self.block = GatedResidual(hidden_size=hidden_size, intermediate_size=self.intermediate_size)
        self.output_proj = nn.Linear(hidden_size, output_size)
        self.apply(_initialize)

    def project(self, windows: Windows, frames_in_window: FramesInWindow) -> TokenOfWindow:
        """Average, then the block and the output layer."""
        return self.output_proj(self.block(_mean_of_frames(windows, frames_in_window)))


class FrameConcatMLP(AudioProjector):
    """Ultravox's projector (v0.4): n frames stacked, RMSNorm, linear, SwiGLU, linear, RMSNorm; no biases.

    It is 4 d wide before SwiGLU halves that (Ultravox: 4096 for d = 1280). Norm weights start at 0.4, as Ultravox's.
    """

    def __init__(self, *, hidden_size: int, output_size: int, downsample_rate: int) -> None:
        super().__init__(hidden_size=hidden_size, output_size=output_size, downsample_rate=downsample_rate)
        window_size = downsample_rate * hidden_size
        self.input_norm = nn.RMSNorm(window_size, eps=1e-6)
        self.gate_up_proj = nn.Linear(window_size, 4 * hidden_size, bias=False)
        self.down_proj = nn.Linear(2 * hidden_size, output_size, bias=False)
        self.output_norm = nn.RMSNorm(output_size, eps=1e-6)
        nn.init.constant_(self.input_norm.weight, ULTRAVOX_NORM_INIT)
        nn.init.constant_(self.output_norm.weight, ULTRAVOX_NORM_INIT)

    def project(self, windows: Windows, frames_in_window: FramesInWindow) -> TokenOfWindow:
        """Stack and transform; padding frames are zeros, as in Ultravox."""
        up, gate = self.gate_up_proj(self.input_norm(windows.flatten(1))).chunk(2, dim=-1)
        return self.output_norm(self.down_proj(F.silu(gate) * up))


class Conv1dMLP(AudioProjector):
    """SLAM-LLM's projector: a convolution d -> d of kernel and stride n, ReLU, linear, ReLU, linear.

    The convolution is one matrix product on the window; PyTorch's default initialisation of both is the same.

    Differs from the paper: (SLAM-LLM's) it drops the frames of an unfinished last window; here they are padded.
    """

    def __init__(self, *, hidden_size: int, output_size: int, downsample_rate: int) -> None:
        super().__init__(hidden_size=hidden_size, output_size=output_size, downsample_rate=downsample_rate)
        self.conv_proj = nn.Linear(downsample_rate * hidden_size, hidden_size)
        self.mlp = nn.Sequential(nn.Linear(hidden_size, 2048), nn.ReLU(), nn.Linear(2048, output_size))

    def project(self, windows: Windows, frames_in_window: FramesInWindow) -> TokenOfWindow:
        """Convolve and transform; padding frames are zeros."""
        return self.mlp(F.relu(self.conv_proj(windows.flatten(1))))


class QFormerLayer(nn.Module):
    """BERT's order: attention of the query over the frames, feed-forward, a norm after each, without dropout.

    The key has no bias: softmax does not see it.
    """

    def __init__(self, *, query_size: int, num_attention_heads: int) -> None:
        super().__init__()
        self.num_attention_heads = num_attention_heads
        self.q_proj = nn.Linear(query_size, query_size)
        self.k_proj = nn.Linear(query_size, query_size, bias=False)
        self.v_proj = nn.Linear(query_size, query_size)
        self.o_proj = nn.Linear(query_size, query_size)
        self.attention_norm = nn.LayerNorm(query_size)
        self.feed_forward = nn.Sequential(
            nn.Linear(query_size, 4 * query_size), nn.GELU(), nn.Linear(4 * query_size, query_size)
        )
        self.feed_forward_norm = nn.LayerNorm(query_size)

    def forward(
        self,
        queries: Float[Tensor, "windows 1 hidden_size"],
        frames: Float[Tensor, "windows rate hidden_size"],
        is_real: Bool[Tensor, "windows rate"],
    ) -> Float[Tensor, "windows 1 hidden_size"]:
        """Update the query of each window from its real frames."""
        heads = (self.num_attention_heads, -1)
        q, k, v = (
            project(given).unflatten(-1, heads).transpose(1, 2)
            for project, given in ((self.q_proj, queries), (self.k_proj, frames), (self.v_proj, frames))
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=is_real[:, None, None, :])
        queries = self.attention_norm(queries + self.o_proj(mixed.transpose(1, 2).flatten(2)))
        return self.feed_forward_norm(queries + self.feed_forward(queries))


class QFormer(AudioProjector):
    """SALMONN's windowed Q-Former (arXiv 2310.13289, section 3.1): a learned query reads each window by attention.

    As there, two layers, windows of 0.33 s at n = 17, and frames that carry no position of their own within the window
    (the encoder's features hold it).

    Differs from the paper: (SALMONN's) trained from random weights, not from BERT; the last, shorter window is kept and
    masked, not dropped; self-attention of a single query would be a fixed linear map and is left out; no dropout; it is
    as wide as the encoder, not BERT's 768, with a head per 64 channels.

    Raises:
        LabError: the width does not divide by the heads.
    """

    def __init__(self, *, hidden_size: int, output_size: int, downsample_rate: int) -> None:
        super().__init__(hidden_size=hidden_size, output_size=output_size, downsample_rate=downsample_rate)
        heads = max(1, hidden_size // 64)
        if hidden_size % heads:
            raise LabError(f"q_former's width {hidden_size} does not divide by {heads} attention heads")
        self.frames_norm = nn.LayerNorm(hidden_size)
        self.queries = nn.Parameter(torch.empty(1, hidden_size))
        self.layers = nn.ModuleList(QFormerLayer(query_size=hidden_size, num_attention_heads=heads) for _ in range(2))
        self.output_proj = nn.Linear(hidden_size, output_size)
        self.apply(_initialize)
        nn.init.normal_(self.queries, std=_INITIALIZER_RANGE)

    def project(self, windows: Windows, frames_in_window: FramesInWindow) -> TokenOfWindow:
        """Read each window with the query; padding frames are masked out of the attention."""
        is_real = torch.arange(self.downsample_rate, device=windows.device) < frames_in_window[:, None]
        frames = self.frames_norm(windows)
        queries = self.queries.expand(len(windows), -1, -1)
        for layer in self.layers:
            queries = layer(queries, frames, is_real)
        return self.output_proj(queries.flatten(1))


def _mean_of_frames(windows: Windows, frames_in_window: FramesInWindow) -> Float[Tensor, "windows hidden_size"]:
    return windows.sum(dim=1) / frames_in_window[:, None].to(windows.dtype)


def _initialize(module: nn.Module) -> None:
    """BERT's initialisation: normal weights, no bias."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=_INITIALIZER_RANGE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


AUDIO_PROJECTORS: dict[str, type[AudioProjector]] = {
    "conv_gmlp": ConvGMLP,
    "conv_gmlp_budget": ConvGMLPBudget,
    "mean_pool_mlp": MeanPoolMLP,
    "mean_pool_gmlp": MeanPoolGMLP,
    "frame_concat_mlp": FrameConcatMLP,
    "conv1d_mlp": Conv1dMLP,
    "q_former": QFormer,
}


def build_audio_projector(name: str, *, last_window: LastWindow = "padded", **options: Any) -> AudioProjector:
    """Build a projector of `AUDIO_PROJECTORS` from its own constructor's options.

    Raises:
        LabError: as `build_by_name`, or an unknown `last_window`.
    """
    choose(dict.fromkeys(get_args(LastWindow)), last_window, "last_window")
    projector = build_by_name(AUDIO_PROJECTORS, name, "audio projector", options)
    projector.last_window = last_window
    projector.built_with = options if last_window == "padded" else {**options, "last_window": last_window}
    return projector
