"""Pictures of things pasted on plain or shaded grounds: what makes many views of the few pictures that there are."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image

from lab.data.images import read_cutout
from standins.pictures.things import Picture

MAX_ROTATION_DEGREES = 20.0
SMALLEST_SHARE = 0.45
SHADED_SHARE = 0.5
# A drawing in one colour, such as a letter, would be lost on a ground of the same colour.
_LEAST_CONTRAST = 80.0
_MAX_GROUNDS = 8


def cutouts(pictures: Sequence[Picture], *, longest_side: int) -> list[Image.Image]:
    """Read pictures as RGBA, cropped to what is not transparent, made smaller where they exceed `longest_side` pixels.

    Raises:
        LabError: a picture cannot be read, as `lab.data.images.read_cutout`.
    """
    return [_cutout(picture, longest_side) for picture in pictures]


def _cutout(picture: Picture, longest_side: int) -> Image.Image:
    cutout = read_cutout(picture.path)
    cutout = cutout.crop(cutout.getchannel("A").getbbox() or (0, 0, *cutout.size))
    cutout.thumbnail((longest_side, longest_side))
    return cutout


def paste(
    cutout: Image.Image, *, image_size: int, rng: np.random.Generator
) -> UInt8[ndarray, "image_size image_size 3"]:
    """Paste at a random size, place and turn on a random ground; all of the picture stays in sight.

    Its longer side, once turned by at most 20 degrees either way, takes 45 to 100% of the image's.
    """
    turned = cutout.rotate(float(rng.uniform(-1, 1)) * MAX_ROTATION_DEGREES, Image.Resampling.BILINEAR, expand=True)
    scale = image_size * float(rng.uniform(SMALLEST_SHARE, 1.0)) / max(turned.size)
    width, height = (max(1, round(side * scale)) for side in turned.size)
    pasted = turned.resize((width, height), Image.Resampling.BILINEAR)
    image = Image.fromarray(_contrasting_ground(pasted, image_size, rng))
    place = (int(rng.integers(0, image_size - width + 1)), int(rng.integers(0, image_size - height + 1)))
    image.paste(pasted, place, pasted)
    return np.asarray(image)


def ground(image_size: int, rng: np.random.Generator) -> UInt8[ndarray, "image_size image_size 3"]:
    """Draw a ground: half of them of one colour, half shaded between two along a random direction."""
    first, second = rng.uniform(0, 255, (2, 3))
    if rng.random() >= SHADED_SHARE:
        second = first
    angle = rng.uniform(0, 2 * np.pi)
    steps = np.linspace(-1, 1, image_size)
    along = np.cos(angle) * steps[None, :] + np.sin(angle) * steps[:, None]
    share = ((along - along.min()) / max(float(np.ptp(along)), 1e-9))[..., None]
    return np.rint(first + (second - first) * share).astype(np.uint8)


def _contrasting_ground(pasted: Image.Image, image_size: int, rng: np.random.Generator) -> UInt8[ndarray, "s s 3"]:
    colour = _mean_colour(pasted)
    chosen = ground(image_size, rng)
    for _ in range(_MAX_GROUNDS - 1):
        if float(np.linalg.norm(chosen.mean(axis=(0, 1)) - colour)) >= _LEAST_CONTRAST:
            break
        chosen = ground(image_size, rng)
    return chosen


def _mean_colour(image: Image.Image) -> Float[ndarray, "3"]:
    pixels = np.asarray(image, dtype=np.float64)
    weights = pixels[..., 3:] + 1e-9
    return (pixels[..., :3] * weights).sum(axis=(0, 1)) / weights.sum()
