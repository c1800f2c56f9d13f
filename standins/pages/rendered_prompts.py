"""An instruction's prompt drawn as a picture, so that it has to be read before it can be followed (section 3).

Sizes are in pixels. The picture is as wide as asked and as high as its lines need.
"""

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from fontTools.ttLib import TTFont
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw

from lab.data.cross_modal import break_places, is_han, with_last_text
from lab.data.fetch import packages
from lab.data.filters.filtering import Dropped, LeftOut
from lab.data.images import png
from lab.data.sample import Image as Picture
from lab.data.sample import Part, Sample, Text
from lab.data.sources import OuterSource, check_source, open_samples, sources_sha256
from lab.data.splits import Split
from lab.errors import LabError
from standins.pages.fonts import TYPEFACES, row_extent, sized_font, typefaces_for

QUESTION = {"en": "Do what the picture says.", "zh": "请按图片中的文字回答。"}
# The highest and lowest signs: between two rows of these nothing touches.
_TALL = {"en": "ÂÅbdfghjklpqy|()ç", "zh": "国Âgjpqy|()，"}
WIDTH, MARGIN, MAX_HEIGHT = 384, 16, 2048
_TEXT_HEIGHT = (9, 14)


@dataclass(frozen=True)
class RenderedPrompt:
    """A prompt laid out: its lines joined are the prompt again, but for the blanks at the breaks."""

    lines: tuple[str, ...]
    typeface: str
    text_height: int
    language: str
    pixels: UInt8[ndarray, "height width 3"]


def render_prompt(text: str, *, sample: str = "", seed: int = 0) -> RenderedPrompt:
    """Draw a prompt; typeface, text height and colours follow from its id, its text and the seed.

    Raises:
        LabError: nothing to draw, a sign that no typeface has, or more lines than fit; the message names the sample.
    """
    what = f"the prompt of {sample!r}" if sample else f"the prompt {text[:40]!r}"
    # Tabs and the like are drawn as blanks, which is how they look.
    text = "\n".join(" ".join(line.split()) for line in unicodedata.normalize("NFC", text).strip().splitlines())
    if not text:
        raise LabError(f"{what} is empty; expected some text to draw")
    digest = hashlib.sha256(repr((seed, sample, text)).encode()).digest()
    rng = np.random.default_rng(list(digest[:16]))
    language = "zh" if any(is_han(sign) for sign in text) else "en"
    typeface = _drawn_typeface(rng, text, typefaces_for(language), what)
    low, high = _TEXT_HEIGHT
    # A Chinese character has more strokes than a letter: it is drawn larger, as on pages.
    text_height = int(rng.integers(low, high + 1)) + 4 * (language == "zh")
    font = sized_font(typeface, text_height)
    room = WIDTH - 2 * MARGIN
    lines = [line for paragraph in text.split("\n") for line in _wrapped(paragraph, font.getlength, room)]
    above, below = row_extent(typeface, text_height, _TALL[language])
    pitch = above + below + max(2, text_height // 3)
    height = 2 * MARGIN + len(lines) * pitch
    if height > MAX_HEIGHT:
        raise LabError(f"{what} needs {len(lines)} lines and {height} pixels, more than {MAX_HEIGHT}; leave it out")
    paper, ink = (tuple(rng.integers(least, most, 3).tolist()) for least, most in ((225, 256), (0, 60)))
    image = Image.new("RGB", (WIDTH, height), paper)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        left = MARGIN - min(0, font.getbbox(line, anchor="ls")[0])
        draw.text((left, MARGIN + number * pitch + above), line, font=font, fill=ink, anchor="ls")
    return RenderedPrompt(tuple(lines), typeface, text_height, language, np.array(image))


def _drawn_typeface(rng: np.random.Generator, text: str, among: tuple[str, ...], what: str) -> str:
    needed = set(text) - {"\n", " "}
    able = [name for name in among if not needed - _signs(name)]
    if not able:
        lacking = min((needed - _signs(name) for name in among), key=lambda signs: (len(signs), sorted(signs)))
        raise LabError(f"{what} has signs that no typeface of {', '.join(among)} has: {' '.join(sorted(lacking)[:5])}")
    return able[int(rng.integers(len(able)))]


@lru_cache(maxsize=32)
def _signs(name: str) -> frozenset[str]:
    with TTFont(TYPEFACES[name].path(), fontNumber=0, lazy=True) as font:
        return frozenset(map(chr, font.getBestCmap()))


def _wrapped(text: str, length: Callable[[str], float], room: float) -> list[str]:
    """Break where `break_places` allows, as late as fits; a word wider than the picture is cut between its letters."""
    lines = []
    while length(text) > room:
        places = [place for place, _ in break_places(text) if length(text[:place].rstrip()) <= room]
        if places:
            place = places[-1]
        else:
            place = max((k for k in range(1, len(text)) if length(text[:k]) <= room), default=1)
        lines.append(text[:place].rstrip())
        text = text[place:].lstrip()
    return [*lines, text]


def prompt_samples(samples: Iterable[Sample], left_out: LeftOut, *, seed: int = 0) -> Iterator[Sample]:
    """The last thing that is written of each sample is drawn as a picture; the answer stays.

    What cannot be drawn (nothing written, too long, signs that no typeface has) is left out and named.
    """

    def draw(sample: Sample, asked: Text) -> tuple[Part, ...]:
        try:
            drawn = render_prompt(asked.text, sample=sample.id, seed=seed)
        except LabError as error:
            raise Dropped("prompt that cannot be drawn") from error
        return Picture(png(drawn.pixels), asked.role), Text(QUESTION[drawn.language], asked.role)

    return with_last_text(samples, draw, left_out)


def _read(split: Split, count: int, inner: str) -> tuple[list[Sample], LeftOut]:
    samples, left_out = open_samples(inner, split, count)
    return list(prompt_samples(samples, left_out)), left_out


def _state(inner: str) -> str:
    return f"{sources_sha256(inner)} {packages()['fonts-wqy-microhei'].sha256}"


DRAWN = OuterSource(read=_read, check=check_source, state=_state, any_size=True)
"""A source of samples whose questions are pictures."""
