"""AnyRes: an image of any shape as tiles of the encoder's size and one whole view, and the order of their tokens.

Section 3.1 of the paper: the image is cut into a grid of 384 x 384 tiles, to which a downsampled whole view is joined.
The list of grids and the largest number of tiles are not found there; here every grid of at most `max_tiles` tiles may
be chosen, by LLaVA-NeXT's idea: the one that keeps most of the image's pixels, then the one that wastes least.

The order of views and of tokens is one and the same everywhere: the whole view first, then the tiles row by row. The
tokens of the whole view stand row by row. The tokens of all tiles are merged into one grid, as they lie in the image,
and that grid is read row by row across the tiles; `newline` puts one more token after each of its rows, and `unpad`
leaves out its rows and columns that show padding only. An image for which one tile is best is its whole view alone, so
that `max_tiles=1` is a fixed resolution. That is the paper's range for a frame of at most 384 x 768 pixels: one view,
182 tokens, or two tiles and the whole, 546.

Axes: `views`, `tokens` (of one view, rows x columns of `view_grid`), `sequence`.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from lab.errors import choose
from lab.parts.part import check_positive

Fit = Literal["pad", "stretch"]
_FITS = dict.fromkeys(get_args(Fit))
NEWLINE = -1  # stands in a `token_order` where a newline token goes


@dataclass(frozen=True)
class Views:
    """What the encoder sees of one image, whole view first; `grid` is (rows, columns) of tiles, (1, 1) for no tiles."""

    pixels: UInt8[np.ndarray, "views image_size image_size 3"]
    grid: tuple[int, int]


def best_grid(height: int, width: int, *, image_size: int, max_tiles: int) -> tuple[int, int]:
    """Rows and columns of tiles for an image of `height` x `width` pixels.

    The image is fitted, aspect kept, into the canvas of every grid of at most `max_tiles` tiles. Effective pixels are
    those of the fitted image, at most the image's own, since enlarging adds none. The grid with most effective pixels
    is best; of those the smallest canvas, which wastes least; then the one with fewer rows.

    A 300 x 100 image at 128 px and four tiles: 3 x 1 fits it at 384 x 128, more than it has, so all its 30,000 pixels;
    2 x 1 keeps 256 x 85; 4 x 1 keeps all as well and wastes a tile. So (3, 1).

    Raises:
        LabError: a size or `max_tiles` is below 1.
    """
    check_positive(height=height, width=width, image_size=image_size, max_tiles=max_tiles)

    def merit(grid: tuple[int, int]) -> tuple[int, int, int]:
        canvas = (grid[0] * image_size, grid[1] * image_size)
        fitted = _fitted_size(height, width, canvas)
        return min(fitted[0] * fitted[1], height * width), -canvas[0] * canvas[1], -grid[0]

    grids = [(rows, columns) for rows in range(1, max_tiles + 1) for columns in range(1, max_tiles // rows + 1)]
    return max(grids, key=merit)


def num_views(grid: tuple[int, int]) -> int:
    """Views of an image: its tiles and the whole view, or the whole view alone for one tile."""
    tiles = grid[0] * grid[1]
    return tiles + 1 if tiles > 1 else 1


def image_views(
    pixels: UInt8[np.ndarray, "height width 3"], *, image_size: int, max_tiles: int, fit: Fit = "pad"
) -> Views:
    """Cut an image into its whole view and tiles, each a square of `image_size` pixels.

    `fit` says how an image meets a canvas of another aspect: `pad` keeps its aspect, centres it and fills the rest with
    white; `stretch` fills the canvas with it. Small images are enlarged. Resizing is bicubic with antialiasing.

    Raises:
        LabError: an empty image, an unknown `fit`, or a size below 1.
    """
    choose(_FITS, fit, "fit")
    rows, columns = grid = best_grid(*pixels.shape[:2], image_size=image_size, max_tiles=max_tiles)
    image = Image.fromarray(pixels)
    squares = [_on_canvas(image, (image_size, image_size), fit)]
    if rows * columns > 1:
        canvas = _on_canvas(image, (rows * image_size, columns * image_size), fit)
        tiles = canvas.reshape(rows, image_size, columns, image_size, 3).swapaxes(1, 2)
        squares += list(tiles.reshape(-1, image_size, image_size, 3))
    return Views(np.stack(squares), grid)


def token_order(
    height: int,
    width: int,
    *,
    image_size: int,
    max_tiles: int,
    view_grid: tuple[int, int],
    fit: Fit = "pad",
    unpad: bool = False,
    newline: bool = False,
) -> Int[np.ndarray, " sequence"]:
    """Where each token of an image's sequence stands among those of its views laid end to end; `NEWLINE` for a newline.

    Two tiles side by side of 2 x 2 tokens each, with the whole view tokens 0 to 3, the left tile 4 to 7 and the right
    one 8 to 11: 0 1 2 3, then 4 5 8 9 and 6 7 10 11, each of the two with a newline after it where wanted.

    A token stands for its equal share of a view; `unpad` drops those whose share is padding alone, in the tiles only.
    """
    choose(_FITS, fit, "fit")
    grid = best_grid(height, width, image_size=image_size, max_tiles=max_tiles)
    view_rows, view_columns = view_grid
    whole = np.arange(view_rows * view_columns)
    if num_views(grid) == 1:
        return whole
    canvas = (grid[0] * image_size, grid[1] * image_size)
    fitted = canvas if fit == "stretch" or not unpad else _fitted_size(height, width, canvas)
    kept = []
    for size, pixels, count in zip(fitted, canvas, (grid[0] * view_rows, grid[1] * view_columns), strict=True):
        start = (pixels - size) // 2
        kept.append(np.arange(start * count // pixels, -(-(start + size) * count // pixels)))
    row, column = kept[0][:, None], kept[1][None, :]
    view = 1 + row // view_rows * grid[1] + column // view_columns
    merged = (view * view_rows + row % view_rows) * view_columns + column % view_columns
    if newline:
        merged = np.pad(merged, ((0, 0), (0, 1)), constant_values=NEWLINE)
    return np.concatenate([whole, merged.ravel()])


def arrange_tokens(
    tokens: Float[Tensor, "views tokens output_size"],
    order: Int[np.ndarray, " sequence"],
    *,
    newline: Float[Tensor, " output_size"] | None = None,
) -> Float[Tensor, "sequence output_size"]:
    """Lay the tokens of an image's views in the `token_order` of that image, `newline` where it says so."""
    places = torch.from_numpy(order).to(tokens.device)
    flat = tokens.flatten(0, 1)
    if newline is not None and (order == NEWLINE).any():
        flat = torch.cat([flat, newline[None].to(flat.dtype)])
        places = torch.where(places == NEWLINE, len(flat) - 1, places)
    return flat.index_select(0, places)


def _fitted_size(height: int, width: int, canvas: tuple[int, int]) -> tuple[int, int]:
    """Height and width of an image fitted into a canvas, aspect kept, rounded half up, at least 1 pixel each."""
    if canvas[0] * width <= canvas[1] * height:
        return canvas[0], max(1, (2 * width * canvas[0] + height) // (2 * height))
    return max(1, (2 * height * canvas[1] + width) // (2 * width)), canvas[1]


def _on_canvas(image: Image.Image, canvas: tuple[int, int], fit: Fit) -> UInt8[np.ndarray, "height width 3"]:
    height, width = canvas if fit == "stretch" else _fitted_size(image.height, image.width, canvas)
    fitted = image.resize((width, height), Image.Resampling.BICUBIC)
    whole = Image.new("RGB", (canvas[1], canvas[0]), "white")
    whole.paste(fitted, ((canvas[1] - width) // 2, (canvas[0] - height) // 2))
    return np.array(whole)
