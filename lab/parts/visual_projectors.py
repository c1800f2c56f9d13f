"""Visual projectors by name: every patch, pooled, joined, and Honeybee's C-Abstractor (the paper's section 3.1).

Axes as in `patch_projection`.

The paper chose `mean_pool` and gives 182 tokens a view of 384 x 384, from 27 x 27 patches. How 729 become 182 is not
found: a plain 2x2 convolution of stride 2 gives 13 x 13 = 169, one on a grid padded to 28 x 28 gives 14 x 14 = 196, and
182 = floor(729 / 4) = 13 x 14. `padding` offers all three; which the paper meant, we do not know.

The paper's "2x2 convolution before the video projector" asks for no class of its own: frames are views, `mean_pool` is
that convolution followed by an MLP, and 182 to 546 tokens a frame are one to three views (`any_resolution`). A video
projector is therefore a second `mean_pool`, started afresh or from the image projector's weights.
"""

from typing import Any

import torch
from jaxtyping import Float
from timm.layers import LayerNorm2d
from timm.models.regnet import RegStage
from torch import Tensor, nn
from torch.nn import functional as F

from lab.parts.construction import build_by_name
from lab.parts.patch_projection import Padding, ReducingProjector, VisualProjector, check_positive

__all__ = ["VISUAL_PROJECTORS", "Padding", "VisualProjector", "build_visual_projector"]


class PatchMLP(VisualProjector):
    """Two linear layers with GELU between on every patch, of LLaVA-1.5's shape (d -> out -> out): 729 tokens a view."""

    def __init__(self, *, hidden_size: int, output_size: int) -> None:
        super().__init__(hidden_size=hidden_size, output_size=output_size)
        self.mlp = _two_layers(hidden_size, output_size)

    def project(
        self, features: Float[Tensor, "batch rows columns hidden_size"], grid: tuple[int, int]
    ) -> Float[Tensor, "batch rows columns output_size"]:
        """Apply the MLP to each patch."""
        return self.mlp(features)


class MeanPool(ReducingProjector):
    """The paper's chosen projector: a convolution d -> d of kernel and stride 2, then the two-layer MLP.

    The paper calls it both mean pooling and a convolution; whether the convolution mixes channels and how it starts is
    not found. Ours is a full one with bias, as one matrix product on a window's patches, which starts as the exact mean
    of the window and is trained from there.
    """

    def __init__(self, *, hidden_size: int, output_size: int, pool_size: int = 2, padding: Padding = "none") -> None:
        super().__init__(hidden_size=hidden_size, output_size=output_size, pool_size=pool_size, padding=padding)
        self.conv_proj = nn.Linear(pool_size**2 * hidden_size, hidden_size)
        self.mlp = _two_layers(hidden_size, output_size)
        with torch.no_grad():
            self.conv_proj.weight.copy_(torch.eye(hidden_size).repeat(1, pool_size**2) / pool_size**2)
            self.conv_proj.bias.zero_()

    def project(
        self, features: Float[Tensor, "batch rows columns hidden_size"], grid: tuple[int, int]
    ) -> Float[Tensor, "batch token_rows token_columns output_size"]:
        """Convolve, then the MLP."""
        return self.mlp(self.conv_proj(self.whole_windows(features, grid).flatten(3)))


class Concat(ReducingProjector):
    """The patches of a window joined along their channels, row by row, then the two-layer MLP (4 d -> out -> out)."""

    def __init__(self, *, hidden_size: int, output_size: int, pool_size: int = 2, padding: Padding = "none") -> None:
        super().__init__(hidden_size=hidden_size, output_size=output_size, pool_size=pool_size, padding=padding)
        self.mlp = _two_layers(pool_size**2 * hidden_size, output_size)

    def project(
        self, features: Float[Tensor, "batch rows columns hidden_size"], grid: tuple[int, int]
    ) -> Float[Tensor, "batch token_rows token_columns output_size"]:
        """Join, then the MLP."""
        return self.mlp(self.whole_windows(features, grid).flatten(3))


class CAbstractor(ReducingProjector):
    """Honeybee's C-Abstractor (arXiv 2312.06742): `depth` bottleneck blocks, adaptive pooling, as many blocks, MLP.

    The blocks are RegNet's with squeeze-and-excitation, SiLU and channel LayerNorm, by timm's RegStage, which Honeybee
    uses too (there 3 blocks of width 1024). They see every patch; `pool_size` and `padding` only choose the grid that
    the adaptive average pooling reaches, the same as the other projectors', so that all give equally many tokens.

    Differs from the paper: (Honeybee's) no learned position table, because a grid may have any size here, and the
    blocks' zero padding already tells the borders.

    Raises:
        LabError: `depth` or `intermediate_size` (the blocks' width; `hidden_size` where None) is below 1.
    """

    def __init__(
        self,
        *,
        hidden_size: int,
        output_size: int,
        pool_size: int = 2,
        padding: Padding = "none",
        depth: int = 3,
        intermediate_size: int | None = None,
    ) -> None:
        super().__init__(hidden_size=hidden_size, output_size=output_size, pool_size=pool_size, padding=padding)
        width = hidden_size if intermediate_size is None else intermediate_size
        check_positive(depth=depth, intermediate_size=width)
        self.before, self.after = (
            RegStage(depth, in_size, width, stride=1, dilation=1, act_layer=nn.SiLU, norm_layer=LayerNorm2d)
            for in_size in (hidden_size, width)
        )
        self.mlp = _two_layers(width, output_size)

    def project(
        self, features: Float[Tensor, "batch rows columns hidden_size"], grid: tuple[int, int]
    ) -> Float[Tensor, "batch token_rows token_columns output_size"]:
        """Blocks on all patches, the mean over each token's share of them, blocks on the tokens, then the MLP."""
        hidden = F.adaptive_avg_pool2d(self.before(features.permute(0, 3, 1, 2)), grid)
        return self.mlp(self.after(hidden).permute(0, 2, 3, 1))


def _two_layers(in_size: int, output_size: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_size, output_size), nn.GELU(), nn.Linear(output_size, output_size))


VISUAL_PROJECTORS: dict[str, type[VisualProjector]] = {
    "mlp": PatchMLP,
    "mean_pool": MeanPool,
    "concat": Concat,
    "c_abstractor": CAbstractor,
}


def build_visual_projector(name: str, **options: Any) -> VisualProjector:
    """Build a projector of `VISUAL_PROJECTORS` from its own constructor's options.

    Raises:
        LabError: an unknown projector, an option it does not have, or a missing one; the message lists the choices.
    """
    projector = build_by_name(VISUAL_PROJECTORS, name, "visual projector", options)
    projector.built_as = (name, options)
    return projector
