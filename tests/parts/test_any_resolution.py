from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from lab.errors import LabError
from lab.parts.any_resolution import (
    NEWLINE,
    arrange_tokens,
    best_grid,
    image_views,
    num_views,
    token_order,
)

SIZE = 16
SHAPES = [
    (1, 1),
    (1, 10_000),
    (10_000, 1),
    (16, 16),
    (17, 17),
    (40, 16),
    (48, 96),
    (33, 70),
    (90, 11),
    (64, 64),
    (5, 31),
]
MAX_TILES = (1, 2, 4, 6, 9)
VIEW_GRIDS = [(1, 1), (2, 2), (3, 4), (4, 4)]


def slow_best_grid(height: int, width: int, image_size: int, max_tiles: int) -> tuple[int, int]:
    """Every grid in turn, in exact fractions, without a sort key."""
    best, best_kept, best_waste = (0, 0), -1, 0
    for rows in range(1, max_tiles + 1):
        for columns in range(1, max_tiles + 1):
            if rows * columns > max_tiles:
                continue
            scale = min(Fraction(rows * image_size, height), Fraction(columns * image_size, width))
            fitted_height = max(1, int(height * scale + Fraction(1, 2)))
            fitted_width = max(1, int(width * scale + Fraction(1, 2)))
            kept = min(fitted_height * fitted_width, height * width)
            waste = rows * columns * image_size**2 - kept
            if kept > best_kept or (kept == best_kept and waste < best_waste):
                best, best_kept, best_waste = (rows, columns), kept, waste
    return best


def coloured(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, (height, width, 3), dtype=np.uint8)


# The grid of tiles.


@pytest.mark.parametrize("max_tiles", MAX_TILES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_grid_keeps_most_pixels_then_wastes_least(shape: tuple[int, int], max_tiles: int) -> None:
    assert best_grid(*shape, image_size=SIZE, max_tiles=max_tiles) == slow_best_grid(*shape, SIZE, max_tiles)


@pytest.mark.parametrize(
    ("shape", "grid"),
    [
        ((384, 384), (1, 1)),
        ((384, 768), (1, 2)),  # the paper's largest frame: two tiles and the whole view, three times 182 tokens
        ((216, 384), (1, 1)),
        ((768, 768), (2, 2)),
        ((1000, 300), (3, 1)),
        ((20_000, 20_000), (3, 3)),
        ((1, 10_000), (1, 9)),
        ((1, 1), (1, 1)),
    ],
)
def test_grids_at_the_papers_size_and_nine_tiles(shape: tuple[int, int], grid: tuple[int, int]) -> None:
    assert best_grid(*shape, image_size=384, max_tiles=9) == grid


def test_a_frame_of_the_paper_takes_182_to_546_tokens() -> None:
    counts = {
        len(token_order(height, width, image_size=384, max_tiles=2, view_grid=(13, 14)))
        for height in range(1, 385, 16)
        for width in range(1, 769, 16)
    }
    assert counts == {182, 546}


# The views.


def test_tiles_are_the_whole_image_row_by_row_where_it_fits() -> None:
    image = coloured(2 * SIZE, 3 * SIZE)
    views = image_views(image, image_size=SIZE, max_tiles=6)
    assert views.grid == (2, 3)
    assert views.pixels.shape == (num_views(views.grid), SIZE, SIZE, 3) == (7, SIZE, SIZE, 3)
    for row in range(2):
        for column in range(3):
            tile = image[row * SIZE : (row + 1) * SIZE, column * SIZE : (column + 1) * SIZE]
            assert np.array_equal(views.pixels[1 + row * 3 + column], tile)


@pytest.mark.parametrize("fit", ["pad", "stretch"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_has_views_of_the_encoders_size(shape: tuple[int, int], fit: Any) -> None:
    views = image_views(coloured(*shape), image_size=SIZE, max_tiles=6, fit=fit)
    grid = best_grid(*shape, image_size=SIZE, max_tiles=6)
    assert views.grid == grid
    assert views.pixels.shape == (num_views(grid), SIZE, SIZE, 3)
    assert views.pixels.dtype == np.uint8
    # White is padding, the image is darker: something of it is in the whole view.
    assert (views.pixels[0] < 230).any()


def test_padding_keeps_the_aspect_and_centres_the_image() -> None:
    image = np.zeros((SIZE // 2, SIZE, 3), dtype=np.uint8)
    view = image_views(image, image_size=SIZE, max_tiles=1).pixels[0]
    assert (view[:4] == 255).all()
    assert (view[4:12] == 0).all()
    assert (view[12:] == 255).all()


def test_stretching_fills_the_square() -> None:
    image = np.zeros((SIZE // 2, SIZE, 3), dtype=np.uint8)
    assert (image_views(image, image_size=SIZE, max_tiles=1, fit="stretch").pixels == 0).all()


def test_one_tile_is_the_whole_view_alone() -> None:
    views = image_views(coloured(100, 300), image_size=SIZE, max_tiles=1)
    assert (len(views.pixels), views.grid) == (1, (1, 1))


def test_an_empty_image_and_an_unknown_fit_are_refused() -> None:
    options: dict[str, Any] = {"image_size": SIZE, "max_tiles": 2}
    with pytest.raises(LabError, match="width is 0; expected at least 1"):
        image_views(np.zeros((4, 0, 3), dtype=np.uint8), **options)
    with pytest.raises(LabError, match="unknown fit 'crop'; choose one of: pad, stretch"):
        image_views(coloured(4, 4), fit="crop", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["height", "width", "image_size", "max_tiles"])
def test_a_size_below_1_is_refused_by_name(name: str) -> None:
    sizes = {"height": 4, "width": 4, "image_size": 4, "max_tiles": 4, name: 0}
    with pytest.raises(LabError, match=f"{name} is 0; expected at least 1"):
        best_grid(**sizes)


# Tokens: their number and order, against tokens that are really laid out.


def laid_out(
    shape: tuple[int, int], max_tiles: int, view_grid: tuple[int, int], *, unpad: bool, newline: bool, fit: Any = "pad"
) -> list[str]:
    """The sequence of an image, by painting: every token is a name at its place in the picture of its view.

    Padding is found in pixels: a black image on white is cut by `image_views`, and a token of the tiles is padding when
    no dark pixel lies in its share of the canvas.
    """
    views = image_views(np.zeros((*shape, 3), np.uint8), image_size=SIZE, max_tiles=max_tiles, fit=fit)
    (tile_rows, tile_columns), (view_rows, view_columns) = views.grid, view_grid
    sequence = [f"whole {r},{c}" for r in range(view_rows) for c in range(view_columns)]
    if len(views.pixels) == 1:
        return sequence
    names, dark = {}, {}
    for index, tile in enumerate(views.pixels[1:]):
        top, left = divmod(index, tile_columns)
        for r in range(view_rows):
            for c in range(view_columns):
                place = (top * view_rows + r, left * view_columns + c)
                names[place] = f"tile {index}: {r},{c}"
                low_r, high_r = r * SIZE // view_rows, -(-(r + 1) * SIZE // view_rows)
                low_c, high_c = c * SIZE // view_columns, -(-(c + 1) * SIZE // view_columns)
                dark[place] = bool((tile[low_r:high_r, low_c:high_c] < 128).any())
    for r in range(tile_rows * view_rows):
        kept = [
            names[r, c] for c in range(tile_columns * view_columns) if not unpad or (dark[r, c] or fit == "stretch")
        ]
        sequence += [*kept, "newline"] if kept and newline else kept
    return sequence


@pytest.mark.parametrize("newline", [False, True])
@pytest.mark.parametrize("unpad", [False, True])
@pytest.mark.parametrize("view_grid", [(1, 1), (2, 2), (4, 4), (8, 2)])  # divisors, so that shares are whole pixels
@pytest.mark.parametrize("shape", SHAPES)
def test_tokens_stand_where_they_lie_in_the_image(
    shape: tuple[int, int], view_grid: tuple[int, int], unpad: bool, newline: bool
) -> None:
    for max_tiles in MAX_TILES:
        wanted = laid_out(shape, max_tiles, view_grid, unpad=unpad, newline=newline)
        sizes: dict[str, Any] = {"image_size": SIZE, "max_tiles": max_tiles, "view_grid": view_grid}
        order = token_order(*shape, unpad=unpad, newline=newline, **sizes)
        per_view = [f"{r},{c}" for r in range(view_grid[0]) for c in range(view_grid[1])]
        views = ["whole", *(f"tile {index}:" for index in range(max_tiles))]
        flat = [f"{view} {token}" for view in views for token in per_view]
        assert [flat[place] if place != NEWLINE else "newline" for place in order] == wanted


@pytest.mark.parametrize("fit", ["pad", "stretch"])
@pytest.mark.parametrize("view_grid", VIEW_GRIDS)
def test_the_number_of_tokens_is_the_orders_length_and_no_token_comes_twice(
    view_grid: tuple[int, int], fit: Any
) -> None:
    for height, width in SHAPES:
        for unpad in (False, True):
            options: dict[str, Any] = {"image_size": SIZE, "max_tiles": 6, "view_grid": view_grid, "fit": fit}
            order = token_order(height, width, unpad=unpad, newline=True, **options)
            real = order[order != NEWLINE]
            assert len(set(real.tolist())) == len(real)
            views = num_views(best_grid(height, width, image_size=SIZE, max_tiles=6))
            every = views * view_grid[0] * view_grid[1]
            assert len(real) <= every
            if not unpad or fit == "stretch":
                assert len(real) == every


def test_the_worked_example_of_the_docstring() -> None:
    options: dict[str, Any] = {"image_size": SIZE, "max_tiles": 2, "view_grid": (2, 2)}
    assert token_order(SIZE, 2 * SIZE, **options).tolist() == [0, 1, 2, 3, 4, 5, 8, 9, 6, 7, 10, 11]
    assert token_order(SIZE, 2 * SIZE, newline=True, **options).tolist() == [
        0,
        1,
        2,
        3,
        4,
        5,
        8,
        9,
        -1,
        6,
        7,
        10,
        11,
        -1,
    ]
    assert best_grid(300, 100, image_size=128, max_tiles=4) == (3, 1)


def test_unpad_leaves_a_strip_one_token_high() -> None:
    options: dict[str, Any] = {"image_size": SIZE, "max_tiles": 9, "view_grid": (4, 4)}
    # 16 tokens of the whole view, 9 tiles of 4 x 4, of which one row of 36 shows the strip (and one newline).
    assert len(token_order(1, 10_000, **options)) == 16 + 9 * 16
    assert len(token_order(1, 10_000, unpad=True, **options)) == 16 + 36
    assert len(token_order(1, 10_000, unpad=True, newline=True, **options)) == 16 + 37


def test_arranging_gathers_tokens_and_newlines_with_gradients() -> None:
    tokens = torch.arange(12.0).view(3, 4, 1).requires_grad_()
    newline = torch.tensor([99.0], requires_grad=True)
    order = token_order(SIZE, 2 * SIZE, image_size=SIZE, max_tiles=2, view_grid=(2, 2), newline=True)
    arranged = arrange_tokens(tokens, order, newline=newline)
    assert arranged[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 8, 9, 99, 6, 7, 10, 11, 99]
    arranged.sum().backward()
    assert tokens.grad is not None
    assert newline.grad is not None
    assert tokens.grad.eq(1).all()
    assert newline.grad.item() == 2


def test_an_order_with_an_unknown_fit_is_refused() -> None:
    with pytest.raises(LabError, match="unknown fit 'crop'; choose one of: pad, stretch"):
        token_order(4, 4, image_size=SIZE, max_tiles=4, view_grid=(2, 2), fit="crop")
