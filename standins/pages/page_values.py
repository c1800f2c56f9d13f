"""What is written on rendered pages: strings without meaning, and words, held out by their hash.

Digits, letters and characters are uniform and independent, so that nothing but the page tells which one stands there.
Sums, differences and products are of whole numbers, and none comes to less than nothing.
"""

import operator
import string
from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path

import numpy as np

from lab.data.splits import Split, split_of
from lab.errors import LabError, choose

# Two signs for digits leave about 10 values to the test split, 5 to dev.
_MAX_DRAWS = 20_000


@cache
def words(language: str) -> tuple[str, ...]:
    """Read the words of a language, "en" or "zh", in the order of the file; word k of one means word k of the other."""
    column = choose({"en": 0, "zh": 1}, language, "language of words")
    lines = Path(__file__).with_name("reading_words.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line.split()[column] for line in lines if line and not line.startswith("#"))


@cache
def characters() -> str:
    """Return the Chinese characters of the words, each once."""
    return "".join(sorted(set("".join(words("zh")))))


@cache
def signs(language: str) -> str:
    """Return every sign that may stand on a page in a language, each once."""
    han = characters() if language == "zh" else ""
    return string.digits + string.ascii_lowercase + han


def draw_values(
    kind: str,
    rng: np.random.Generator,
    *,
    count: int,
    split: Split | None,
    language: str = "en",
    length: tuple[int, int] = (3, 4),
    apart_from: Collection[str] = (),
) -> list[str]:
    """Draw different values of a split (of all splits for `None`); `length` is a range, and words ignore it."""
    chosen = choose(VALUES, kind, "kind of value")
    found: list[str] = []
    for _ in range(_MAX_DRAWS):
        if len(found) == count:
            return found
        value = chosen(rng, language, int(rng.integers(length[0], length[1] + 1)))
        if value not in found and value not in apart_from and split in (None, split_of(value)):
            found.append(value)
    raise LabError(
        f"only {len(found)} different values of kind {kind!r}, length {length[0]} to {length[1]}, are in split "
        f"{split or 'any'}, expected {count}: ask for fewer entries or choices, or longer values"
    )


def _joined(signs: str) -> Callable[[np.random.Generator, str, int], str]:
    return lambda rng, language, length: "".join(signs[i] for i in rng.integers(0, len(signs), length))


def _reckoned(sign: str, low: int, high: int) -> Callable[[np.random.Generator, str, int], str]:
    def draw(rng: np.random.Generator, language: str, length: int) -> str:
        first, second = sorted(rng.integers(low, high + 1, 2).tolist(), reverse=sign == "-" or bool(rng.integers(2)))
        return f"{first} {sign} {second}"

    return draw


_OPERATIONS = {"+": operator.add, "-": operator.sub, "×": operator.mul}


def result(value: str) -> int:
    """What a sum, difference or product comes to.

    >>> result("7 + 5"), result("7 × 5")
    (12, 35)
    """
    first, sign, second = value.split()
    return int(_OPERATIONS[sign](int(first), int(second)))


VALUES: Mapping[str, Callable[[np.random.Generator, str, int], str]] = {
    "number": _joined(string.digits),
    "letters": _joined(string.ascii_lowercase),
    "word": lambda rng, language, length: words(language)[int(rng.integers(len(words(language))))],
    "sum": _reckoned("+", 1, 20),
    "difference": _reckoned("-", 1, 20),
    "product": _reckoned("×", 2, 10),
    "characters": lambda rng, language, length: _joined(characters())(rng, language, length),
}
"""What is drawn, given a language and a length."""
