"""Image files and bytes, in any of the usual formats and pixel layouts, as 8-bit RGB or RGBA, upright and whole."""

import io
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import ExifTags, Image

from lab.errors import LabError

# Pillow's own limit; beyond it the pixels alone take more than a quarter of a gigabyte.
MAX_PIXELS = 89_478_485
# Pillow knows more: some it opens by starting other programs (EPS), some are no images as meant here (PDF).
FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)
# EXIF orientation: what brings the image upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(
    source: Path | bytes, *, background: Colour = WHITE, max_pixels: int = MAX_PIXELS, name: str | None = None
) -> Image.Image:
    """Read as RGB: turned as its EXIF orientation says, what is transparent laid on `background`.

    Of an animation this is the first frame. 16 bits a channel become the nearest 8. `name` stands for the image in
    messages (a path names itself). Larger limits than `MAX_PIXELS` need `PIL.Image.MAX_IMAGE_PIXELS` raised as well.

    Raises:
        LabError: missing, empty, truncated or broken, in none of `FORMATS`, of more than `max_pixels` pixels (which
            is known from the header, before anything is decoded), or with more than 8 bits of grey in an unknown range.
    """
    return on_background(read_cutout(source, max_pixels=max_pixels, name=name), background)


def read_cutout(source: Path | bytes, *, max_pixels: int = MAX_PIXELS, name: str | None = None) -> Image.Image:
    """Read as RGBA, opaque (255) where the file knows no transparency; for the rest see `read_image`.

    Raises:
        LabError: as `read_image`.
    """
    name = name or (str(source) if not isinstance(source, bytes) else "image bytes")
    with open_image(source, max_pixels=max_pixels, name=name) as image:
        try:
            image.load()
        except Exception as error:
            raise broken(name, error) from error
        return upright(as_rgba(image, name), image)


def open_image(source: Path | bytes, *, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read the header only; its pixels come with `load`.

    Raises:
        LabError: missing, empty, in none of `FORMATS`, a broken header, more than `max_pixels` pixels.
    """
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise LabError(f"{name} cannot be read: {error.strerror}; expected an image file") from error
    if not data:
        raise LabError(f"{name} is empty; expected an image file")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise LabError(f"{name} is too large to be decoded safely: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise LabError(f"{name} is not an image that can be read; expected one of: {', '.join(FORMATS)}") from error
    except Exception as error:
        raise broken(name, error) from error
    width, height = image.size
    limit = min(max_pixels, Image.MAX_IMAGE_PIXELS or max_pixels)
    if width * height > limit:
        raise LabError(
            f"{name} is too large to be decoded safely: {width} x {height} = {width * height} pixels, "
            f"at most {limit} are allowed"
        )
    return image


def broken(name: str, error: Exception) -> LabError:
    """Word what went wrong inside a decoder; over broken bytes Pillow raises nearly any kind of error."""
    return LabError(f"{name} is truncated or broken ({str(error) or type(error).__name__})")


def as_rgba(image: Image.Image, name: str) -> Image.Image:
    """Convert a loaded image of any mode to RGBA.

    Raises:
        LabError: more than 8 bits of grey in an unknown range.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep_grey(image, name)
    return image.convert("RGBA")


def _from_deep_grey(image: Image.Image, name: str) -> Image.Image:
    """More than 8 bits of grey; Pillow's own conversion would cut everything above 255 to white."""
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


def upright(pixels: Image.Image, image: Image.Image) -> Image.Image:
    """Turn and mirror `pixels` as the EXIF orientation of `image` says; EXIF data that are broken say nothing."""
    turn = None
    with suppress(Exception):
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return pixels if turn is None else pixels.transpose(turn)


def on_background(cutout: Image.Image, background: Colour = WHITE) -> Image.Image:
    """Lay RGBA on one colour; the result is RGB."""
    ground = Image.new("RGBA", cutout.size, (*background, 255))
    return Image.alpha_composite(ground, cutout).convert("RGB")


def fit_within(height: int, width: int, max_height: int, max_width: int) -> tuple[int, int]:
    """Height and width after shrinking with the aspect kept; never enlarged, at least 1 pixel each.

    >>> fit_within(1080, 1920, 384, 768)
    (384, 683)
    >>> fit_within(10_000, 1, 384, 768)
    (384, 1)

    Raises:
        LabError: a size below 1.
    """
    if min(height, width, max_height, max_width) < 1:
        raise LabError(
            f"an image of {height} x {width} pixels cannot be made to fit {max_height} x {max_width}: "
            "expected heights and widths of at least 1"
        )
    if height <= max_height and width <= max_width:
        return height, width
    if height * max_width >= width * max_height:  # height binds; in whole numbers, so that nothing can be off by one
        return max_height, max(1, (2 * width * max_height + height) // (2 * height))
    return max(1, (2 * height * max_width + width) // (2 * width)), max_width


def shrink(
    image: Image.Image,
    max_height: int,
    max_width: int,
    *,
    resampling: Literal[Image.Resampling.BICUBIC, Image.Resampling.LANCZOS] = Image.Resampling.BICUBIC,
) -> Image.Image:
    """Resize to what `fit_within` gives, antialiased; colours under full transparency do not bleed into the rest.

    Raises:
        LabError: a limit below 1.
    """
    height, width = fit_within(image.height, image.width, max_height, max_width)
    return image if (width, height) == image.size else image.resize((width, height), resampling)
