"""Published rules of thumb for the quality of a text: each a named function from a text to one number.

Section 3 of the paper. From Gopher (Rae et al. 2021, arXiv 2112.11446, appendix A.1.1 and table A1) and C4 (Raffel et
al. 2020, JMLR 21, section 2.2). Words are those of `lab.data.filters.words`, lines those with something on them.
"""

import re
from collections import Counter
from collections.abc import Callable

from lab.data.filters.words import words

_STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
_BULLETS = ("•", "‣", "▪", "*", "-")
_ELLIPSES = ("...", "…")
_TERMINAL = ('"', ".", "!", "?", "”", "。", "\uff01", "\uff1f")
_SENTENCE_END = re.compile(r"[.!?](?=[\s\"')\]]|$)|[。\uff01\uff1f]")


def num_words(text: str) -> float:
    """How many words, as `lab.data.filters.words` counts them."""
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
