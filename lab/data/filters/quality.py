"""Quality of a text by published rules of thumb: each rule's number has to lie between two limits.

From Gopher (Rae et al. 2021, arXiv 2112.11446, appendix A.1.1 and table A1) and C4 (Raffel et al. 2020, JMLR 21,
section 2.2), with their limits as defaults. Differs from the paper: which rules it uses, if any, is not found. The
limits were set for pages of English: an instruction is shorter and Chinese has other words, so give limits of your own
or leave rules out. C4 drops single lines, this the whole text: half an instruction is none. (Early versions of the C4
paper print 5 sentences, the last and its code 3.) Lines are those with something on them; words are `words`.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, ClassVar

import pyarrow as pa
from pydantic import Field

from lab.data.filters.filtering import Reasons
from lab.data.filters.step import Columns, Step, joined, one_of
from lab.errors import LabError

Limits = tuple[float, float]


@dataclass(frozen=True)
class QualityRule:
    """What is measured, and the least and the most of it that its source lets pass."""

    score: Callable[[str], float]
    limits: Limits
    source: str


# Scripts without blanks between words: Han, Kana. Each of their characters is a word of its own here.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W_{_UNSPACED}]+(?:['’][^\\W_{_UNSPACED}]+)*")
_STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
_BULLETS = ("•", "‣", "▪", "*", "-")
_ELLIPSES = ("...", "…")
_TERMINAL = ('"', ".", "!", "?", "”", "。", "\uff01", "\uff1f")
_SENTENCE_END = re.compile(r"[.!?](?=[\s\"')\]]|$)|[。\uff01\uff1f]")


def words(text: str) -> list[str]:
    """The words of a text, without punctuation, as they are written.

    >>> words("It's 5 o'clock: 你好!")
    ["It's", '5', "o'clock", '你', '好']
    """
    return _WORD.findall(text)


def num_words(text: str) -> float:
    """How many words, as `words` counts them."""
    return len(words(text))


def mean_word_length(text: str) -> float:
    """Mean number of characters of a word; 0 without words."""
    found = words(text)
    return sum(map(len, found)) / len(found) if found else 0.0


def symbols_per_word(text: str) -> float:
    """Hash signs or ellipses, whichever are more, for each word (without words: for one)."""
    ellipses = text.count("…") + text.count("...")
    return max(text.count("#"), ellipses) / max(1, len(words(text)))


def bullet_lines(text: str) -> float:
    """Share of lines that begin with a bullet."""
    return _share(text, lambda line: line.startswith(_BULLETS))


def ellipsis_lines(text: str) -> float:
    """Share of lines that end with an ellipsis."""
    return _share(text, lambda line: line.endswith(_ELLIPSES))


def alphabetic_words(text: str) -> float:
    """Share of what blanks part that holds a letter of any script."""
    found = text.split()
    return sum(any(c.isalpha() for c in word) for word in found) / len(found) if found else 0.0


def different_stop_words(text: str) -> float:
    """How many of the, be, to, of, and, that, have, with are there."""
    return len(_STOP_WORDS.intersection(word.lower() for word in words(text)))


def repeated_lines(text: str) -> float:
    """Share of lines that an earlier line is equal to."""
    lines = _lines(text)
    return 1 - len(set(lines)) / len(lines) if lines else 0.0


def repeated_line_characters(text: str) -> float:
    """Share of the characters that stand in lines that an earlier line is equal to."""
    lines = _lines(text)
    total = sum(map(len, lines))
    return 1 - sum(map(len, set(lines))) / total if total else 0.0


def commonest_n_gram(text: str, *, size: int) -> float:
    """Share of the words' characters in the commonest run of `size` words; 0 where none comes twice."""
    found = words(text.lower())
    runs = Counter(tuple(found[i : i + size]) for i in range(len(found) - size + 1))
    if not runs or max(runs.values()) == 1:
        return 0.0
    # Of those equally common, the longest, so that the order of the text does not matter.
    count, length = max((count, sum(map(len, run))) for run, count in runs.items())
    return min(1.0, count * length / sum(map(len, found)))


def repeated_n_grams(text: str, *, size: int) -> float:
    """Share of the words' characters in runs of `size` words that come more than once; overlaps count once."""
    found = words(text.lower())
    runs = [tuple(found[i : i + size]) for i in range(len(found) - size + 1)]
    often = Counter(runs)
    covered = {i + k for i, run in enumerate(runs) if often[run] > 1 for k in range(size)}
    return sum(len(found[i]) for i in covered) / sum(map(len, found)) if found else 0.0


def unfinished_lines(text: str) -> float:
    """Share of lines without a terminal mark (. ! ? or a closing quote)."""
    return _share(text, lambda line: not line.endswith(_TERMINAL) or line.endswith(_ELLIPSES))


def num_sentences(text: str) -> float:
    """How many marks end a sentence."""
    return len(_SENTENCE_END.findall(text))


def code_signs(text: str) -> float:
    """Curly brackets, "javascript" and "lorem ipsum": what C4 takes for code or filler."""
    lower = text.lower()
    return text.count("{") + lower.count("javascript") + lower.count("lorem ipsum")


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _share(text: str, holds: Callable[[str], bool]) -> float:
    lines = _lines(text)
    return sum(map(holds, lines)) / len(lines) if lines else 0.0


_GOPHER, _TABLE_A1, _C4 = "Rae et al. 2021, A.1.1", "Rae et al. 2021, table A1", "Raffel et al. 2020, 2.2"
QUALITY_RULES = {
    "num_words": QualityRule(num_words, (50, 100_000), _GOPHER),
    "mean_word_length": QualityRule(mean_word_length, (3, 10), _GOPHER),
    "symbols_per_word": QualityRule(symbols_per_word, (0, 0.1), _GOPHER),
    "bullet_lines": QualityRule(bullet_lines, (0, 0.9), _GOPHER),
    "ellipsis_lines": QualityRule(ellipsis_lines, (0, 0.3), _GOPHER),
    "alphabetic_words": QualityRule(alphabetic_words, (0.8, 1), _GOPHER),
    "different_stop_words": QualityRule(different_stop_words, (2, math.inf), _GOPHER),
    "repeated_lines": QualityRule(repeated_lines, (0, 0.3), _TABLE_A1),
    "repeated_line_characters": QualityRule(repeated_line_characters, (0, 0.2), _TABLE_A1),
    **{
        f"commonest_{n}_gram": QualityRule(partial(commonest_n_gram, size=n), (0, most), _TABLE_A1)
        for n, most in {2: 0.2, 3: 0.18, 4: 0.16}.items()
    },
    **{
        f"repeated_{n}_grams": QualityRule(partial(repeated_n_grams, size=n), (0, most), _TABLE_A1)
        for n, most in {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.1}.items()
    },
    "unfinished_lines": QualityRule(unfinished_lines, (0, 0), _C4),
    "num_sentences": QualityRule(num_sentences, (3, math.inf), _C4),
    "code_signs": QualityRule(code_signs, (0, 0), _C4),
}


@dataclass(frozen=True, kw_only=True)
class Quality(Step):
    """Drop rows whose texts in `columns` break one of `rules`, keys of `QUALITY_RULES`; the first broken is the reason.

    `limits` replace those of the rules' sources, by name: least and most, both included.
    """

    rules: Annotated[tuple[Annotated[str, one_of(QUALITY_RULES, "quality rule")], ...], Field(min_length=1)]
    limits: Mapping[str, Limits] = field(default_factory=dict)
    columns: Columns = ("answer",)
    use: ClassVar[str] = "quality"

    def __post_init__(self) -> None:
        for rule, (least, most) in self.limits.items():
            if rule not in self.rules or least > most:
                raise LabError(
                    f"limits of {rule!r} are {[least, most]}; expected one of the rules used ({', '.join(self.rules)}) "
                    "and the least first"
                )

    def judge(self, known: pa.Table) -> Reasons:
        """All columns' texts as one."""
        return [next(self._broken(text), None) for text in joined(known, self.columns).to_pylist()]

    def _broken(self, text: str) -> Iterator[str]:
        for name in self.rules:
            least, most = self.limits.get(name, QUALITY_RULES[name].limits)
            if not least <= QUALITY_RULES[name].score(text) <= most:
                yield name
