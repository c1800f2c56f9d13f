"""Image files and bytes, in any of the usual formats and pixel layouts, as 8-bit RGB or RGBA, upright and whole."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageOps

from lab.errors import LabError

# Pillow's own limit; beyond it the pixels alone take more than a quarter of a gigabyte.
MAX_PIXELS = 89_478_485
# Pillow knows more: some it opens by starting other programs (EPS), some are no images as meant here (PDF).
FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


def read_image(source: Path | bytes) -> Image.Image:
    """Read as RGB: turned as its EXIF orientation says, what is transparent laid on white.

    Of an animation this is the first frame. 16 bits a channel become the nearest 8.

    Raises:
        LabError: missing, empty, truncated or broken, in none of `FORMATS`, of more than `MAX_PIXELS` pixels (which
            is known from the header, before anything is decoded), or with more than 8 bits of grey in an unknown range.
    """
    return on_white(read_cutout(source))


def read_cutout(source: Path | bytes) -> Image.Image:
    """Read as RGBA, opaque (255) where the file knows no transparency; for the rest see `read_image`."""
    with open_image(source) as image:
        image.load()
        with suppress(Exception):  # EXIF data that are broken say nothing
            ImageOps.exif_transpose(image, in_place=True)
        return as_rgba(image, _name(source))


@contextmanager
def open_image(source: Path | bytes) -> Iterator[Image.Image]:
    """Read the header only; its pixels come with `load`."""
    name = _name(source)
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise LabError(f"{name} cannot be read: {error.strerror}; expected an image file") from error
    if not data:
        raise LabError(f"{name} is empty; expected an image file")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise Image.DecompressionBombError(
                    f"{width} x {height} = {width * height} pixels, at most {MAX_PIXELS} are allowed"
                )
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise LabError(f"{name} is too large to be decoded safely: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise LabError(f"{name} is not an image that can be read; expected one of: {', '.join(FORMATS)}") from error
    except LabError:
        raise
    except Exception as error:  # over broken bytes Pillow raises nearly any kind of error
        raise LabError(f"{name} is truncated or broken ({str(error) or type(error).__name__})") from error


def _name(source: Path | bytes) -> str:
    return "image bytes" if isinstance(source, bytes) else str(source)


def as_rgba(image: Image.Image, name: str) -> Image.Image:
    """Convert a loaded image of any mode to RGBA."""
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image.convert("RGBA")
    # Of more than 8 bits of grey, Pillow's own conversion would cut everything above 255 to white.
    values = np.asarray(image, dtype=np.float64)
    top = 1.0 if image.mode == "F" else 65535.0
    if not (values.min() >= 0 and values.max() <= top):
        raise LabError(
            f"{name} has grey values of mode {image.mode} from {values.min():g} to {values.max():g}, "
            f"expected 0 to {top:g}"
        )
    grey = Image.fromarray(np.rint(values * (255.0 / top)).astype(np.uint8)).convert("RGBA")
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def on_white(cutout: Image.Image) -> Image.Image:
    """Lay RGBA on white; the result is RGB."""
    return Image.alpha_composite(Image.new("RGBA", cutout.size, "white"), cutout).convert("RGB")


def png(pixels: UInt8[ndarray, "height width 3"]) -> bytes:
    """The file of a picture, without loss; weakly compressed, because nothing is to wait for it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def fit_within(height: int, width: int, max_height: int, max_width: int) -> tuple[int, int]:
    """Height and width after shrinking with the aspect kept; never enlarged, at least 1 pixel each.

    >>> fit_within(1080, 1920, 384, 768)
    (384, 683)
    >>> fit_within(10_000, 1, 384, 768)
    (384, 1)
    """
    if height <= max_height and width <= max_width:
        return height, width
    if height * max_width >= width * max_height:  # height binds; in whole numbers, so that nothing can be off by one
        return max_height, max(1, (2 * width * max_height + height) // (2 * height))
    return max(1, (2 * height * max_width + width) // (2 * width)), max_width
