"""Video scenes as descriptions: cut-out pictures that move, turn, grow, come and go, and a question about them.

The project's stand-in for the paper's video data (section 3), for machines without a hub. A scene holds whole numbers
only: times in milliseconds, places and sizes in thousandths of the frame, angles in degrees; so one seed gives the same
scene on every machine. `standins.scenes.questions` makes scenes; any moment is drawn, from cut-outs that are read and
resized once.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw

from lab.data.images import read_cutout
from lab.data.splits import Split
from lab.errors import LabError, choose
from standins.drawn import Question
from standins.pictures.pictures import Picture

THOUSAND = 1000
# Cut-outs are kept at this many pixels, enough for a third of a frame of 768.
_KEPT_PIXELS = 256
_ANGLE_STEP = 3


@dataclass(frozen=True)
class Key:
    """What an actor is at one moment; between two keys everything but `visible` changes evenly.

    `x` and `y` are the centre's, from the left and from the top; `size` is the longer side of the picture; `angle` is
    anticlockwise. `visible` holds until the next key. Places beyond the frame wrap round: see `State`.
    """

    milliseconds: int
    x: int
    y: int
    size: int
    angle: int = 0
    visible: bool = True


@dataclass(frozen=True)
class State:
    """An actor at one moment, as it is drawn: wholly out of the frame on one side, it comes in on the other."""

    x: int
    y: int
    size: int
    angle: int
    visible: bool


@dataclass(frozen=True)
class Actor:
    """One thing on the stage: `word` is its class, the only name that questions use for it."""

    picture: Picture
    word: str
    keys: tuple[Key, ...]

    def state(self, milliseconds: int) -> State:
        """Give the state at a moment; before the first key and after the last one it stays as it is there."""
        after = next((place for place, key in enumerate(self.keys) if key.milliseconds > milliseconds), len(self.keys))
        start = self.keys[max(after - 1, 0)]
        end = self.keys[min(after, len(self.keys) - 1)]
        span = end.milliseconds - start.milliseconds
        done = min(max(milliseconds - start.milliseconds, 0), span)

        def between(first: int, last: int) -> int:
            return first + (last - first) * done // span if span else first

        size = between(start.size, end.size)
        return State(
            x=wrapped(between(start.x, end.x), size),
            y=wrapped(between(start.y, end.y), size),
            size=size,
            angle=between(start.angle, end.angle) % 360,
            visible=start.visible,
        )


def wrapped(place: int, size: int) -> int:
    """Bring a centre back to where its thing is at least partly in the frame, from half a size before to half behind.

    >>> wrapped(1150, 300), wrapped(1151, 300), wrapped(500, 300)
    (-150, -149, 500)
    """
    return (place + size // 2) % (THOUSAND + size) - size // 2


@dataclass(frozen=True)
class Background:
    """A pattern of `PATTERNS` in two colours, repeated every `spacing` thousandths."""

    pattern: str
    first: tuple[int, int, int]
    second: tuple[int, int, int]
    spacing: int = 200


@dataclass(frozen=True)
class Scene:
    """A course of things, drawn from the first actor to the last, so that later ones hide earlier ones.

    A still has `milliseconds` 0. `twins` names the group of scenes that share everything but what the answer is about.
    """

    id: str
    split: Split
    milliseconds: int
    background: Background
    actors: tuple[Actor, ...]
    question: Question
    twins: str = field(default="")

    @property
    def seconds(self) -> float:
        """The length."""
        return self.milliseconds / THOUSAND

    def states(self, seconds: float) -> tuple[State, ...]:
        """Give the states of all actors, in their order, at a moment of the scene."""
        milliseconds = round(seconds * THOUSAND)
        if not 0 <= milliseconds <= self.milliseconds:
            raise LabError(f"scene {self.id} lasts {self.seconds} seconds and has no moment {seconds}")
        return tuple(actor.state(milliseconds) for actor in self.actors)


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


def standing_box(actor: Actor) -> tuple[int, int, int, int]:
    """Where a thing stands as a scene begins: left, top, right and bottom, in thousandths of the frame."""
    state, cutout = actor.state(0), _cutout(actor.picture.path)
    half = [state.size * side // max(cutout.size) // 2 for side in cutout.size]
    corners = (state.x - half[0], state.y - half[1], state.x + half[0], state.y + half[1])
    left, top, right, bottom = (min(max(place, 0), THOUSAND) for place in corners)
    return left, top, right, bottom


def frames(scene: Scene, seconds: ndarray, size: int) -> UInt8[ndarray, "frames size size 3"]:
    """Draw several moments."""
    return np.stack([frame(scene, float(moment), size) for moment in seconds])
