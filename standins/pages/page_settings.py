"""What rendered pages look like, and the kinds that the studies use. All lengths are in pixels.

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

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lab.errors import LabError, choose
from standins.pages.fonts import MAX_TEXT_HEIGHT, MIN_TEXT_HEIGHT, TYPEFACES, typefaces_for
from standins.pages.page_values import VALUES

Range = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class PageSettings:
    """What pages look like; a range is drawn from uniformly, ends included.

    `text_height` is that of the digits, in Chinese that of a character. `values` are keys of `VALUES`, one is drawn
    for each page; `value_length` counts signs. Labels are words that all splits share, unless `held_out_labels`.
    `grain` is the standard deviation of the paper's noise, in grey levels of 255.

    Raises:
        LabError: a range that is empty or outside what can be drawn, an unknown name, a kind of value without signs in
            the language.
    """

    width: Range = (256, 512)
    height: Range = (256, 512)
    text_height: Range = (8, 14)
    num_entries: Range = (2, 6)
    labels: bool = True
    held_out_labels: bool = False
    language: str = "en"
    values: tuple[str, ...] = ("number",)
    value_length: Range = (3, 4)
    typefaces: tuple[str, ...] = ()
    grain: float = 0.0

    def __post_init__(self) -> None:
        limits = {
            "width": (16, 8192),
            "height": (16, 8192),
            "text_height": (MIN_TEXT_HEIGHT, MAX_TEXT_HEIGHT),
            "num_entries": (1, 100),
            "value_length": (2, 12),
        }
        for name, (low, high) in limits.items():
            first, last = getattr(self, name)
            if not low <= first <= last <= high:
                raise LabError(f"{name} is ({first}, {last}), expected a range inside {low} to {high}")
        for kind in self.values or ("",):
            languages = choose(VALUES, kind, "kind of value").languages
            if self.language not in languages:
                raise LabError(f"values of kind {kind!r} are for language {', '.join(languages)}, not {self.language}")
        for typeface in self.chosen_typefaces():
            if self.language not in choose(TYPEFACES, typeface, "typeface").languages:
                raise LabError(f"typeface {typeface!r} is not for language {self.language!r}")
        if not 0.0 <= self.grain <= 128.0:
            raise LabError(f"grain is {self.grain}, expected 0 to 128 grey levels")

    def chosen_typefaces(self) -> tuple[str, ...]:
        """Name the typefaces that pages are set in: those asked for, else all of the language."""
        return self.typefaces or typefaces_for(self.language)


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
    "chinese": PageSettings(language="zh", values=("number", "characters"), text_height=(12, 18), value_length=(2, 3)),
}
