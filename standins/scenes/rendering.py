"""Scenes drawn: any moment as an image, from cut-outs that are read and resized once."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw

from lab.data.images import read_cutout
from lab.errors import LabError, choose
from standins.scenes.scene import THOUSAND, Background, Scene

# Cut-outs are kept at this many pixels, enough for a third of a frame of 768.
_KEPT_PIXELS = 256
_ANGLE_STEP = 3


def _plain(image: Image.Image, background: Background) -> None:
    image.paste(background.first, (0, 0, *image.size))


def _gradient(image: Image.Image, background: Background) -> None:
    width, height = image.size
    draw = ImageDraw.Draw(image)
    for y in range(height):
        colour = tuple(
            (a * (height - y) + b * y) // height for a, b in zip(background.first, background.second, strict=True)
        )
        draw.line((0, y, width, y), fill=colour)


def _cells(image: Image.Image, background: Background, painted: Callable[[int, int], int]) -> None:
    _plain(image, background)
    draw = ImageDraw.Draw(image)
    for left, top, side, column, row in _grid(image.width, background.spacing):
        if painted(column, row):
            draw.rectangle((left, top, left + side - 1, top + side - 1), fill=background.second)


def _dots(image: Image.Image, background: Background) -> None:
    _plain(image, background)
    draw = ImageDraw.Draw(image)
    for left, top, side, _, _ in _grid(image.width, background.spacing):
        draw.ellipse(
            (left + side // 3, top + side // 3, left + 2 * side // 3, top + 2 * side // 3), fill=background.second
        )


def _grid(size: int, spacing: int) -> list[tuple[int, int, int, int, int]]:
    side = max(1, spacing * size // THOUSAND)
    cells = range(-(-size // side))
    return [(column * side, row * side, side, column, row) for row in cells for column in cells]


PATTERNS: dict[str, Callable[[Image.Image, Background], None]] = {
    "plain": _plain,
    "gradient": _gradient,
    "stripes": lambda image, background: _cells(image, background, lambda column, row: column % 2),
    "checks": lambda image, background: _cells(image, background, lambda column, row: (column + row) % 2),
    "dots": _dots,
}


@functools.lru_cache(maxsize=512)
def _background(background: Background, size: int) -> Image.Image:
    image = Image.new("RGB", (size, size))
    choose(PATTERNS, background.pattern, "background pattern")(image, background)
    return image


@functools.lru_cache(maxsize=512)
def _cutout(path: Path) -> Image.Image:
    """Read a picture once, without its empty border, so that its size is that of the thing."""
    cutout = read_cutout(path)
    box = cutout.getchannel("A").point(lambda alpha: 255 * (alpha > 16)).getbbox()
    if box is None:
        raise LabError(f"{path} is wholly transparent")
    cutout = cutout.crop(box)
    cutout.thumbnail((_KEPT_PIXELS, _KEPT_PIXELS), Image.Resampling.LANCZOS)
    return cutout


@functools.lru_cache(maxsize=4096)
def _drawn(path: Path, pixels: int, angle: int) -> Image.Image:
    """Give a cut-out whose longer side has so many pixels, turned anticlockwise."""
    cutout = _cutout(path)
    scale = max(cutout.size)
    size = tuple(max(1, side * pixels // scale) for side in cutout.size)
    small = cutout.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    return small.rotate(angle, Image.Resampling.BICUBIC, expand=True) if angle else small


def frame(scene: Scene, seconds: float, size: int) -> UInt8[ndarray, "size size 3"]:
    """Draw one moment, RGB, `size` pixels high and wide."""
    if size < 8:
        raise LabError(f"a frame of {size} pixels is too small; expected at least 8")
    image = _background(scene.background, size).copy()
    for actor, state in zip(scene.actors, scene.states(seconds), strict=True):
        if state.visible:
            angle = state.angle // _ANGLE_STEP * _ANGLE_STEP
            cutout = _drawn(actor.picture.path, max(1, state.size * size // THOUSAND), angle)
            corner = (state.x * size // THOUSAND - cutout.width // 2, state.y * size // THOUSAND - cutout.height // 2)
            image.paste(cutout, corner, cutout)
    return np.array(image)


def frames(scene: Scene, seconds: ndarray, size: int) -> UInt8[ndarray, "frames size size 3"]:
    """Draw several moments."""
    return np.stack([frame(scene, float(moment), size) for moment in seconds])
