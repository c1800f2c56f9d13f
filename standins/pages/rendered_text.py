"""Pages of small text, on which reading depends on resolution, and questions about them: for the AnyRes study.

Section 4.5, Table 9. A page holds entries, one a row, at random places: a value, with or without a label before it. All
lengths are in pixels.

How much of a page can be read, as a share of digits right (a perceptron with 128 hidden units that learnt from
8,000 digits between their neighbours, in all Latin typefaces, at full size and averaged down):

| text height | full | half | third | quarter |
|---|---|---|---|---|
| 6 | 0.94 | 0.50 | 0.29 | 0.18 |
| 7 | 0.99 | 0.65 | 0.36 | 0.22 |
| 8 | 1.00 | 0.73 | 0.48 | 0.28 |
| 10 | 1.00 | 0.85 | 0.63 | 0.41 |
| 12 | 1.00 | 0.98 | 0.82 | 0.55 |
"""

import hashlib
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw

from lab.data.splits import Split
from standins.drawn import Question, generator, offered
from standins.pages.fonts import ink_width, row_extent, sized_font, typefaces_for
from standins.pages.page_values import draw_values, signs

Range = tuple[int, int]
Colour = tuple[int, int, int]

MARGIN = 4
# One purpose of a page's random numbers.
_CHOICES = 2
_NUM_CHOICES = 4
_WORDING: Mapping[str, Mapping[str, str]] = {
    "en": {
        "beside": "What stands beside {label}?",
        "line": "What is written on line {line}?",
        "page": "What is written on the page?",
    },
    "zh": {"beside": "{label}旁边写着什么？", "line": "第{line}行写着什么？", "page": "页面上写着什么？"},
}
TRANSCRIBE = {"en": "Write down the text of the page, line by line.", "zh": "请逐行写出页面上的文字。"}


@dataclass(frozen=True, kw_only=True)
class PageSettings:
    """What pages look like; a range is drawn from uniformly, ends included.

    `text_height` is that of the digits, in Chinese that of a character. `values` are keys of `VALUES`, one is drawn
    for each page; `value_length` counts signs. Labels are words that all splits share.
    """

    width: Range = (256, 512)
    height: Range = (256, 512)
    text_height: Range = (8, 14)
    num_entries: Range = (2, 6)
    labels: bool = True
    language: str = "en"
    values: tuple[str, ...] = ("number",)
    value_length: Range = (3, 4)
    typefaces: tuple[str, ...] = ()

    def chosen_typefaces(self) -> tuple[str, ...]:
        """Name the typefaces that pages are set in: those asked for, else all of the language."""
        return self.typefaces or typefaces_for(self.language)


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
        told = astuple(self.settings)
        # Two settings that are gone stand as they always were, so that no page is renamed.
        digest = hashlib.sha256(repr((*told[:5], False, *told[5:], 0.0)).encode()).hexdigest()[:8]
        return f"{digest}-{self.split}-{self.seed}-{self.index}"


def make_page(settings: PageSettings, *, seed: int, index: int, split: Split) -> Page:
    """Draw the page of that number, of which there are endlessly many; the same arguments give the same page."""
    rng = generator(seed, index, split)
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
        labels = draw_values("word", rng, count=count, split=None, language=settings.language, apart_from=values)
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
    return np.array(image)


def _tinted(rng: np.random.Generator, low: int, high: int) -> Colour:
    red, green, blue = (rng.integers(low, high + 1) + rng.integers(-10, 11, 3)).tolist()
    return red, green, blue


def _leading(text_height: int) -> int:
    return max(2, text_height // 2)


def questions(page: Page) -> tuple[Question, ...]:
    """Ask once for every entry: by its label if it has one, else by its line, counted from 1 at the top.

    Whoever does not see the page is at chance, exactly: the answer and its alternatives come from one distribution, and
    the answer's place among the choices is uniform. Alternatives are other values of the same page as far as there are
    enough, so that knowing what stands on the page is not enough either. (Who compares the questions of one page
    without seeing it learns which values are on it: give a model one question at a time.)
    """
    asked = []
    for row, entry in enumerate(page.entries):
        kind = "beside" if entry.label else "line" if len(page.entries) > 1 else "page"
        text = _WORDING[page.settings.language][kind].format(label=entry.label, line=row + 1)
        asked.append(Question(kind, text, _choices(page, row), entry.value))
    return tuple(asked)


def transcript(page: Page) -> str:
    """All text of a page, a row a line from the top, a label and its value apart by a blank."""
    return "\n".join(f"{entry.label} {entry.value}".strip() for entry in page.entries)


def _choices(page: Page, row: int) -> tuple[str, ...]:
    rng = generator(page.seed, page.index, page.split, _CHOICES, row)
    on_page = [entry.value for entry in page.entries]
    answer = on_page.pop(row)
    # A label is never a value of its own page, so as a choice it would give itself away.
    taken = [answer, *on_page, *(entry.label for entry in page.entries)]
    others = [on_page[i] for i in rng.permutation(len(on_page))[: _NUM_CHOICES - 1]]
    others += draw_values(
        page.kind,
        rng,
        count=_NUM_CHOICES - 1 - len(others),
        split=page.split,
        language=page.settings.language,
        length=page.settings.value_length,
        apart_from=taken,
    )
    return offered(rng, answer, others)


_EASY = PageSettings(
    width=(256, 256), height=(256, 256), text_height=(7, 7), num_entries=(1, 1), labels=False, value_length=(3, 3)
)

PAGES: Mapping[str, PageSettings] = {
    # One number that is lost when the page is seen at half its size, and one as large, on a page that is not reduced.
    "easy": _EASY,
    "easy_small": replace(_EASY, width=(128, 128), height=(128, 128)),
    # Two letters, for language models without digits; a fixed resolution of half the page leaves five pixels of them.
    "reading": replace(
        _EASY, width=(128, 128), height=(128, 128), text_height=(9, 11), values=("letters",), value_length=(2, 2)
    ),
    "lines": PageSettings(labels=False),
    "labelled": PageSettings(),
    "labelled_small": PageSettings(width=(128, 192), height=(128, 192), text_height=(8, 10), num_entries=(2, 4)),
    "words": PageSettings(values=("number", "letters", "word")),
    # One sum, difference or product, to be worked out.
    "maths": replace(
        _EASY, width=(128, 128), height=(128, 128), text_height=(10, 14), values=("sum", "difference", "product")
    ),
    "chinese": PageSettings(language="zh", values=("number", "characters"), text_height=(12, 18), value_length=(2, 3)),
}
