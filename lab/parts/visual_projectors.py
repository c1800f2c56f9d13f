"""Visual projectors by name: every patch, pooled, joined, and Honeybee's C-Abstractor (the paper's section 3.1).

A grid of patches in, language-model tokens out, row by row. Axes: `batch` (views of images, or frames of videos),
`rows` and `columns` (the encoder's grid of patches), `tokens` (rows x columns of `output_grid`), `hidden_size` (encoder
width), `output_size` (language-model width).

The paper chose `mean_pool` and gives 182 tokens a view of 384 x 384, from 27 x 27 patches. How 729 become 182 is not
found: a plain 2x2 convolution of stride 2 gives 13 x 13 = 169, one on a grid padded to 28 x 28 gives 14 x 14 = 196, and
182 = floor(729 / 4) = 13 x 14. `padding` offers all three; which the paper meant, we do not know.

The paper's "2x2 convolution before the video projector" asks for no class of its own: frames are views, `mean_pool` is
that convolution followed by an MLP, and 182 to 546 tokens a frame are one to three views (`any_resolution`). A video
projector is therefore a second `mean_pool`, started afresh or from the image projector's weights.
"""

from abc import ABC, abstractmethod
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from timm.layers import LayerNorm2d
from timm.models.regnet import RegStage
from torch import Tensor, nn
from torch.nn import functional as F

from lab.errors import LabError
from lab.parts.part import Built, build_by_name, check_positive

Padding = Literal["none", "both", "columns"]
Patches = Float[Tensor, "batch rows columns hidden_size"]
TokenGrid = Float[Tensor, "batch token_rows token_columns output_size"]


class VisualProjector(Built, nn.Module, ABC):
    """Maps a grid of patches onto language-model tokens; a subclass says how, in `output_grid` and `project`.

    Raises:
        LabError: a width is not positive.
    """

    def __init__(self, *, hidden_size: int, output_size: int) -> None:
        super().__init__()
        check_positive(hidden_size=hidden_size, output_size=output_size)
        self.hidden_size = hidden_size
        self.output_size = output_size

    def output_grid(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns of tokens for a grid of patches."""
        return rows, columns

    def forward(self, features: Patches) -> Float[Tensor, "batch tokens output_size"]:
        """Project a batch of grids; tokens stand row by row."""
        grid = self.output_grid(*features.shape[1:3])
        return self.project(features, grid).reshape(len(features), grid[0] * grid[1], self.output_size)

    @abstractmethod
    def project(self, features: Patches, grid: tuple[int, int]) -> TokenGrid:
        """Map patches onto the tokens of `grid`, which is what `output_grid` gives for them."""


class ReducingProjector(VisualProjector):
    """The rule that `mean_pool`, `concat` and `c_abstractor` share: one token for `pool_size` x `pool_size` patches.

    `padding` says what becomes of the rows and columns that fill no whole window: `none` drops them (27 x 27 becomes
    13 x 13), `both` repeats the last row and column until they do (14 x 14), `columns` repeats columns and drops rows
    (13 x 14, the paper's 182). Repeated, not zero, so that a window at the edge has the scale of the others. A grid
    that divides is the same under all three.

    Raises:
        LabError: an unknown padding, or `pool_size` is below 1.
    """

    def __init__(self, *, hidden_size: int, output_size: int, pool_size: int = 2, padding: Padding = "none") -> None:
        super().__init__(hidden_size=hidden_size, output_size=output_size)
        check_positive(pool_size=pool_size)
        if padding not in get_args(Padding):
            raise LabError(f"unknown padding {padding!r}; choose one of: {', '.join(get_args(Padding))}")
        self.pool_size = pool_size
        self.padding = padding

    def output_grid(self, rows: int, columns: int) -> tuple[int, int]:
        """Windows along each axis: floor of its patches over `pool_size`, or ceil where `padding` repeats them.

        Raises:
            LabError: the grid is too small for one token; the message has the numbers.
        """
        token_rows = (rows + (self.pool_size - 1) * (self.padding == "both")) // self.pool_size
        token_columns = (columns + (self.pool_size - 1) * (self.padding != "none")) // self.pool_size
        if token_rows * token_columns < 1:
            raise LabError(
                f"a grid of {rows} x {columns} patches holds no window of {self.pool_size} x {self.pool_size} "
                f"with padding {self.padding!r}; expected more patches, a smaller pool_size, or padding 'both'"
            )
        return token_rows, token_columns

    def whole_windows(
        self, features: Patches, grid: tuple[int, int]
    ) -> Float[Tensor, "batch token_rows token_columns window hidden_size"]:
        """Cut patches into the windows of `grid`; a window's patches stand row by row."""
        size, (token_rows, token_columns) = self.pool_size, grid
        for axis, windows in ((1, token_rows), (2, token_columns)):
            taken = torch.arange(windows * size, device=features.device).clamp(max=features.shape[axis] - 1)
            features = features.index_select(axis, taken)
        windows_apart = features.unflatten(2, (token_columns, size)).unflatten(1, (token_rows, size))
        return windows_apart.transpose(2, 3).flatten(3, 4)


class PatchMLP(VisualProjector):
    """Two linear layers with GELU between on every patch, of LLaVA-1.5's shape (d -> out -> out): 729 tokens a view."""

    def __init__(self, *, hidden_size: int, output_size: int) -> None:
        super().__init__(hidden_size=hidden_size, output_size=output_size)
        self.mlp = _two_layers(hidden_size, output_size)

    def project(self, features: Patches, grid: tuple[int, int]) -> TokenGrid:
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

    def project(self, features: Patches, grid: tuple[int, int]) -> TokenGrid:
        """Convolve, then the MLP."""
        return self.mlp(self.conv_proj(self.whole_windows(features, grid).flatten(3)))


class Concat(ReducingProjector):
    """The patches of a window joined along their channels, row by row, then the two-layer MLP (4 d -> out -> out)."""

    def __init__(self, *, hidden_size: int, output_size: int, pool_size: int = 2, padding: Padding = "none") -> None:
        super().__init__(hidden_size=hidden_size, output_size=output_size, pool_size=pool_size, padding=padding)
        self.mlp = _two_layers(pool_size**2 * hidden_size, output_size)

    def project(self, features: Patches, grid: tuple[int, int]) -> TokenGrid:
        """Join, then the MLP."""
        return self.mlp(self.whole_windows(features, grid).flatten(3))


class CAbstractor(ReducingProjector):
    """Honeybee's C-Abstractor (arXiv 2312.06742): three bottleneck blocks, adaptive pooling, three blocks, MLP.

    The blocks are RegNet's with squeeze-and-excitation, SiLU and channel LayerNorm, by timm's RegStage, which Honeybee
    uses too (there of width 1024). They see every patch; `pool_size` and `padding` only choose the grid that
    the adaptive average pooling reaches, the same as the other projectors', so that all give equally many tokens.

    Differs from the paper: (Honeybee's) no learned position table, because a grid may have any size here, and the
    blocks' zero padding already tells the borders.
    """

    def __init__(self, *, hidden_size: int, output_size: int, pool_size: int = 2, padding: Padding = "none") -> None:
        super().__init__(hidden_size=hidden_size, output_size=output_size, pool_size=pool_size, padding=padding)
        self.before, self.after = (
            RegStage(3, hidden_size, hidden_size, stride=1, dilation=1, act_layer=nn.SiLU, norm_layer=LayerNorm2d)
            for _ in range(2)
        )
        self.mlp = _two_layers(hidden_size, output_size)

    def project(self, features: Patches, grid: tuple[int, int]) -> TokenGrid:
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
    """Build a projector of `VISUAL_PROJECTORS` from its own constructor's options."""
    return build_by_name(VISUAL_PROJECTORS, name, "visual projector", options)
