"""The typefaces of rendered text, and the size at which a typeface is as high as asked.

The Latin ones come with matplotlib, the Chinese one with a pinned package (`lab.data.fetch`). Heights are in pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import ImageFont

from lab.data.fetch import fetch
from lab.errors import LabError, choose

_DIGITS = "0123456789"
# Its strokes reach from the top to the bottom of a Chinese character's square.
_TALL_HAN = "国"


@dataclass(frozen=True)
class Typeface:
    """A font file: `package` is a key of `sources.toml`, `None` for matplotlib's own folder.

    `reference` is the text whose ink is as high as the text height: the digits, or a Chinese character.
    """

    file: str
    package: str | None = None
    languages: tuple[str, ...] = ("en",)
    reference: str = _DIGITS

    def path(self) -> Path:
        """Find the file; a package is fetched when it is not in the cache yet."""
        if self.package is not None:
            return fetch(self.package) / self.file
        # Importing matplotlib takes a second, and only its folder is wanted.
        spec = find_spec("matplotlib")
        path = Path(spec.origin if spec and spec.origin else "").parent / "mpl-data/fonts/ttf" / self.file
        if not path.is_file():
            raise LabError(f"font {self.file} is not at {path}, expected a matplotlib that ships it")
        return path


@lru_cache(maxsize=512)
def sized_font(name: str, text_height: int) -> ImageFont.FreeTypeFont:
    """Load a typeface at the smallest size whose reference text has ink exactly `text_height` pixels high.

    Hinting makes the height a step function of the size that may jump over a height: then the nearest one below.
    """
    typeface = choose(TYPEFACES, name, "typeface")
    path = str(typeface.path())
    nearest: ImageFont.FreeTypeFont | None = None
    best = 0
    for size in np.arange(text_height * 0.75, text_height * 2.5, 0.125):
        # The basic layout: with the other one, what is drawn depends on which text-shaping library is there.
        font = ImageFont.truetype(path, float(size), layout_engine=ImageFont.Layout.BASIC)
        _, top, _, bottom = font.getbbox(typeface.reference)
        height = int(bottom - top)
        if best < height <= text_height:
            nearest, best = font, height
        if height >= text_height:
            break
    if nearest is None:
        raise LabError(f"typeface {name!r} cannot be drawn {text_height} pixels high")
    return nearest


def ink_width(font: ImageFont.FreeTypeFont, text: str) -> int:
    """Width of what is drawn of a text, in pixels."""
    left, _, right, _ = font.getbbox(text)
    return int(right - left)


@lru_cache(maxsize=512)
def row_extent(name: str, text_height: int, signs: str) -> tuple[int, int]:
    """How far the highest of these signs reaches above the baseline and the lowest below it, in pixels."""
    _, top, _, bottom = sized_font(name, text_height).getbbox(signs, anchor="ls")
    return int(-top), max(0, int(bottom))


def typefaces_for(language: str) -> tuple[str, ...]:
    """Name the typefaces that have the signs of a language, "en" or "zh", in the order of `TYPEFACES`."""
    return tuple(name for name, typeface in TYPEFACES.items() if language in typeface.languages)


TYPEFACES: Mapping[str, Typeface] = {
    "dejavu_sans": Typeface("DejaVuSans.ttf"),
    "dejavu_sans_bold": Typeface("DejaVuSans-Bold.ttf"),
    "dejavu_serif": Typeface("DejaVuSerif.ttf"),
    "dejavu_mono": Typeface("DejaVuSansMono.ttf"),
    "stix": Typeface("STIXGeneral.ttf"),
    "computer_modern_roman": Typeface("cmr10.ttf"),
    "computer_modern_sans": Typeface("cmss10.ttf"),
    "computer_modern_mono": Typeface("cmtt10.ttf"),
    "micro_hei": Typeface(
        "usr/share/fonts/truetype/wqy/wqy-microhei.ttc", "fonts-wqy-microhei", ("zh",), reference=_TALL_HAN
    ),
}
