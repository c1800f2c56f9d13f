"""The contract of every visual projector: a grid of patches in, language-model tokens out, row by row.

Section 3.1 of the paper. Axes: `batch` (views of images, or frames of videos), `rows` and `columns` (the encoder's grid
of patches), `tokens` (rows x columns of `output_grid`), `hidden_size` (encoder width), `output_size` (language-model
width).
"""

from abc import ABC, abstractmethod
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lab.errors import LabError

Padding = Literal["none", "both", "columns"]


class VisualProjector(nn.Module, ABC):
    """Maps a grid of patches onto language-model tokens; a subclass says how, in `output_grid` and `project`.

    Raises:
        LabError: a width is not positive.
    """

    built_as: tuple[str, dict[str, Any]] | None = None
    """Name and options, where it was built by name."""

    def __init__(self, *, hidden_size: int, output_size: int) -> None:
        super().__init__()
        check_positive(hidden_size=hidden_size, output_size=output_size)
        self.hidden_size = hidden_size
        self.output_size = output_size

    def output_grid(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns of tokens for a grid of patches.

        Raises:
            LabError: the grid is too small for one token; the message has the numbers.
        """
        if rows < 1 or columns < 1:
            raise LabError(f"a grid of {rows} x {columns} patches holds no token; expected at least 1 x 1")
        return rows, columns

    def forward(
        self, features: Float[Tensor, "batch rows columns hidden_size"]
    ) -> Float[Tensor, "batch tokens output_size"]:
        """Project a batch of grids; tokens stand row by row.

        Raises:
            LabError: the grid is too small for one token.
            ValueError: the features are of another width.
        """
        batch, rows, columns, hidden_size = features.shape
        if hidden_size != self.hidden_size:
            raise ValueError(f"features are {hidden_size} wide; this projector was built for {self.hidden_size}")
        grid = self.output_grid(rows, columns)
        return self.project(features, grid).reshape(batch, grid[0] * grid[1], self.output_size)

    @abstractmethod
    def project(
        self, features: Float[Tensor, "batch rows columns hidden_size"], grid: tuple[int, int]
    ) -> Float[Tensor, "batch token_rows token_columns output_size"]:
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
        """Windows along each axis: floor of its patches over `pool_size`, or ceil where `padding` repeats them."""
        super().output_grid(rows, columns)
        token_rows = self._windows(rows, padded=self.padding == "both")
        token_columns = self._windows(columns, padded=self.padding != "none")
        if token_rows * token_columns < 1:
            raise LabError(
                f"a grid of {rows} x {columns} patches holds no window of {self.pool_size} x {self.pool_size} "
                f"with padding {self.padding!r}; expected more patches, a smaller pool_size, or padding 'both'"
            )
        return token_rows, token_columns

    def _windows(self, patches: int, *, padded: bool) -> int:
        return -(-patches // self.pool_size) if padded else patches // self.pool_size

    def whole_windows(
        self, features: Float[Tensor, "batch rows columns hidden_size"], grid: tuple[int, int]
    ) -> Float[Tensor, "batch token_rows token_columns window hidden_size"]:
        """Cut patches into the windows of `grid`; a window's patches stand row by row."""
        size, (token_rows, token_columns) = self.pool_size, grid
        for axis, windows in ((1, token_rows), (2, token_columns)):
            taken = torch.arange(windows * size, device=features.device).clamp(max=features.shape[axis] - 1)
            features = features.index_select(axis, taken)
        windows_apart = features.unflatten(2, (token_columns, size)).unflatten(1, (token_rows, size))
        return windows_apart.transpose(2, 3).flatten(3, 4)


def check_positive(**sizes: int) -> None:
    """Refuse a size below 1 by its name.

    Raises:
        LabError: a size is below 1.
    """
    for name, size in sizes.items():
        if size < 1:
            raise LabError(f"{name} is {size}; expected at least 1")
