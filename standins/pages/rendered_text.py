"""Pages of small text, on which reading depends on resolution: for the AnyRes study (section 4.5, Table 9).

A page holds entries, one a row, at random places: a value, with or without a label before it. All lengths are in
pixels.
"""

from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw

from lab.data.splits import Split
from lab.errors import LabError
from standins.drawn import generator, name_of
from standins.pages.fonts import ink_width, row_extent, sized_font
from standins.pages.page_settings import PageSettings
from standins.pages.page_values import VALUES, draw_values, signs, words

Colour = tuple[int, int, int]

MARGIN = 4


@dataclass(frozen=True)
class Entry:
    """One row: `label` begins at column `left` and `value` at `value_left`, both on the row `baseline`."""

    label: str
    value: str
    left: int
    value_left: int
    baseline: int


@dataclass(frozen=True)
class Page:
    """Everything that `render` draws, the entries from the top to the bottom."""

    settings: PageSettings
    seed: int
    index: int
    split: Split
    width: int
    height: int
    typeface: str
    text_height: int
    paper: Colour
    ink: Colour
    kind: str
    entries: tuple[Entry, ...]

    @property
    def id(self) -> str:
        """Name the page; two pages of one name are the same page."""
        return name_of(self.settings, self.split, self.seed, self.index)


def make_page(settings: PageSettings, *, seed: int, index: int, split: Split) -> Page:
    """Draw the page of that number, of which there are endlessly many; the same arguments give the same page.

    Raises:
        LabError: entries that may not fit on the page, a negative seed or index, an unknown split, or fewer values in
            the split than entries.
    """
    _check_that_entries_fit(settings)
    rng = page_generator(seed, index, split)
    width, height, text_height, count = (
        int(rng.integers(low, high + 1))
        for low, high in (settings.width, settings.height, settings.text_height, settings.num_entries)
    )
    typeface = settings.chosen_typefaces()[int(rng.integers(len(settings.chosen_typefaces())))]
    kind = settings.values[int(rng.integers(len(settings.values)))]
    # Light paper and dark ink, each a little tinted.
    paper, ink = _tinted(rng, 210, 245), _tinted(rng, 10, 70)
    values = draw_values(kind, rng, count=count, split=split, language=settings.language, length=settings.value_length)
    labels = [""] * count
    if settings.labels:
        held_out = split if settings.held_out_labels else None
        labels = draw_values("word", rng, count=count, split=held_out, language=settings.language, apart_from=values)
    font = sized_font(typeface, text_height)
    above, below = row_extent(typeface, text_height, signs(settings.language))
    pitch = above + below + _leading(text_height)
    slack = height - 2 * MARGIN - count * pitch + _leading(text_height)
    entries = []
    for row, offset in enumerate(sorted(rng.integers(0, slack + 1, count).tolist())):
        indent = ink_width(font, labels[row]) + text_height if labels[row] else 0
        free = width - 2 * MARGIN - indent - ink_width(font, values[row])
        left = MARGIN + int(rng.integers(0, free + 1))
        entries.append(Entry(labels[row], values[row], left, left + indent, MARGIN + row * pitch + offset + above))
    return Page(settings, seed, index, split, width, height, typeface, text_height, paper, ink, kind, tuple(entries))


page_generator = partial(generator, what="page")


def render(page: Page) -> UInt8[ndarray, "height width 3"]:
    """Draw a page; the same one, bit for bit, with the same Pillow."""
    image = Image.new("RGB", (page.width, page.height), page.paper)
    draw = ImageDraw.Draw(image)
    font = sized_font(page.typeface, page.text_height)
    for entry in page.entries:
        for text, left in ((entry.label, entry.left), (entry.value, entry.value_left)):
            if text:
                bearing = font.getbbox(text, anchor="ls")[0]
                draw.text((left - bearing, entry.baseline), text, font=font, fill=page.ink, anchor="ls")
    pixels = np.array(image)
    if page.settings.grain:
        noise = page_generator(page.seed, page.index, page.split, 1).normal(0, page.settings.grain, pixels.shape[:2])
        pixels = (pixels + noise[..., None]).round().clip(0, 255).astype(np.uint8)
    return pixels


def _tinted(rng: np.random.Generator, low: int, high: int) -> Colour:
    red, green, blue = (rng.integers(low, high + 1) + rng.integers(-10, 11, 3)).tolist()
    return red, green, blue


def _leading(text_height: int) -> int:
    return max(2, text_height // 2)


@lru_cache(maxsize=64)
def _check_that_entries_fit(settings: PageSettings) -> None:
    """Hold the smallest page against the most and the widest entries, so that no page fails in the middle of a run."""
    high, count = settings.text_height[1], settings.num_entries[1]
    labels = words(settings.language) if settings.labels else ()
    values = {v for kind in settings.values for v in VALUES[kind].widest(settings.language, settings.value_length[1])}
    for name in settings.chosen_typefaces():
        font = sized_font(name, high)
        wide = max(ink_width(font, value) for value in values)
        if labels:
            wide += max(ink_width(font, label) for label in labels) + high
        tall = count * (sum(row_extent(name, high, signs(settings.language))) + _leading(high)) - _leading(high)
        for side, needed, least in (("width", wide, settings.width[0]), ("height", tall, settings.height[0])):
            if needed + 2 * MARGIN > least:
                raise LabError(
                    f"{count} entries of text {high} pixels high in {name} may need a page {side} of "
                    f"{needed + 2 * MARGIN} pixels, the smallest is {least}: make pages larger or text smaller"
                )
