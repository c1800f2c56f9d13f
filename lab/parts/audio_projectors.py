"""Audio projectors by name: Conv-GMLP (the paper's section 3.1 and figure 5), pooling, capacity controls, peers.

Axes as in `strided_projection`. The paper's symbols: d is `hidden_size`, n is `downsample_rate`, D = n * d.
"""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lab.errors import LabError
from lab.parts.construction import build_by_name
from lab.parts.strided_projection import MAX_DOWNSAMPLE_RATE, AudioProjector
from lab.parts.window_q_former import QFormer

__all__ = ["AUDIO_PROJECTORS", "MAX_DOWNSAMPLE_RATE", "AudioProjector", "build_audio_projector"]

CONV_GMLP_INITIALIZER_RANGE = 0.02
ULTRAVOX_NORM_INIT = 0.4


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
        if intermediate_size < 1:
            raise LabError(f"intermediate_size is {intermediate_size}; expected at least 1")
        self.intermediate_size = intermediate_size
        self.block = GatedResidual(hidden_size=window_size, intermediate_size=intermediate_size)
        self.output_proj = nn.Linear(window_size, output_size)
        self.apply(_initialize)

    def project(
        self, windows: Float[Tensor, "windows rate hidden_size"], frames_in_window: Int[Tensor, " windows"]
    ) -> Float[Tensor, "windows output_size"]:
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

    def project(
        self, windows: Float[Tensor, "windows rate hidden_size"], frames_in_window: Int[Tensor, " windows"]
    ) -> Float[Tensor, "windows output_size"]:
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

    def project(
        self, windows: Float[Tensor, "windows rate hidden_size"], frames_in_window: Int[Tensor, " windows"]
    ) -> Float[Tensor, "windows output_size"]:
        """Average, then the block and the output layer."""
        return self.output_proj(self.block(_mean_of_frames(windows, frames_in_window)))


class FrameConcatMLP(AudioProjector):
    """Ultravox's projector (v0.4): n frames stacked, RMSNorm, linear, SwiGLU, linear, RMSNorm; no biases.

    `intermediate_size` is the width before SwiGLU halves it; 4 * hidden_size where None (Ultravox: 4096 for
    d = 1280). Norm weights start at 0.4, as Ultravox's.

    Raises:
        LabError: `intermediate_size` is not a positive even number.
    """

    def __init__(
        self, *, hidden_size: int, output_size: int, downsample_rate: int, intermediate_size: int | None = None
    ) -> None:
        super().__init__(hidden_size=hidden_size, output_size=output_size, downsample_rate=downsample_rate)
        window_size = downsample_rate * hidden_size
        intermediate_size = 4 * hidden_size if intermediate_size is None else intermediate_size
        if intermediate_size < 2 or intermediate_size % 2:
            raise LabError(f"intermediate_size is {intermediate_size}; SwiGLU halves it, so expected an even number")
        self.input_norm = nn.RMSNorm(window_size, eps=1e-6)
        self.gate_up_proj = nn.Linear(window_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size // 2, output_size, bias=False)
        self.output_norm = nn.RMSNorm(output_size, eps=1e-6)
        nn.init.constant_(self.input_norm.weight, ULTRAVOX_NORM_INIT)
        nn.init.constant_(self.output_norm.weight, ULTRAVOX_NORM_INIT)

    def project(
        self, windows: Float[Tensor, "windows rate hidden_size"], frames_in_window: Int[Tensor, " windows"]
    ) -> Float[Tensor, "windows output_size"]:
        """Stack and transform; padding frames are zeros, as in Ultravox."""
        up, gate = self.gate_up_proj(self.input_norm(windows.flatten(1))).chunk(2, dim=-1)
        return self.output_norm(self.down_proj(F.silu(gate) * up))


class Conv1dMLP(AudioProjector):
    """SLAM-LLM's projector: a convolution d -> d of kernel and stride n, ReLU, linear, ReLU, linear.

    The convolution is one matrix product on the window; PyTorch's default initialisation of both is the same.

    Differs from the paper: (SLAM-LLM's) it drops the frames of an unfinished last window; here they are padded.

    Raises:
        LabError: `intermediate_size` is below 1.
    """

    def __init__(
        self, *, hidden_size: int, output_size: int, downsample_rate: int, intermediate_size: int = 2048
    ) -> None:
        super().__init__(hidden_size=hidden_size, output_size=output_size, downsample_rate=downsample_rate)
        if intermediate_size < 1:
            raise LabError(f"intermediate_size is {intermediate_size}; expected at least 1")
        self.conv_proj = nn.Linear(downsample_rate * hidden_size, hidden_size)
        self.mlp = nn.Sequential(
            nn.Linear(hidden_size, intermediate_size), nn.ReLU(), nn.Linear(intermediate_size, output_size)
        )

    def project(
        self, windows: Float[Tensor, "windows rate hidden_size"], frames_in_window: Int[Tensor, " windows"]
    ) -> Float[Tensor, "windows output_size"]:
        """Convolve and transform; padding frames are zeros."""
        return self.mlp(F.relu(self.conv_proj(windows.flatten(1))))


def _mean_of_frames(
    windows: Float[Tensor, "windows rate hidden_size"], frames_in_window: Int[Tensor, " windows"]
) -> Float[Tensor, "windows hidden_size"]:
    return windows.sum(dim=1) / frames_in_window[:, None].to(windows.dtype)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=CONV_GMLP_INITIALIZER_RANGE)
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


def build_audio_projector(name: str, **options: Any) -> AudioProjector:
    """Build a projector of `AUDIO_PROJECTORS` from its own constructor's options.

    Raises:
        LabError: an unknown projector, an option it does not have, or a missing one; the message lists the choices.
    """
    projector = build_by_name(AUDIO_PROJECTORS, name, "audio projector", options)
    projector.built_as = (name, options)
    return projector
