"""Real English sentences: what the character language model is pretrained on, and what the synthetic voices say.

Words are counted at blanks. Every sentence that the language model sees passes `lab.data.splits.may_train_on`, as
every spoken training sentence does.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from lab.data.fetch import available, fetch, packages
from lab.data.splits import is_reserved, may_train_on, normalize_sentence, split_of
from lab.errors import LabError, choose
from standins.speech import amazon_queen

# What the character language model reads and writes; quotes, brackets and capitals are not heard.
PUNCTUATION = ".,?!-"
ALPHABET = " '" + PUNCTUATION + "abcdefghijklmnopqrstuvwxyz0123456789"

_SAME = str.maketrans({"’": "'", "‘": "'", "`": "'", "–": "-", "—": "-", "…": ".", ";": ",", ":": ",", "\t": " "})
_QUOTES = re.compile(r"[\"“”()\[\]*]|''")
_OUTSIDE = re.compile(f"[^{re.escape(ALPHABET)}]")
_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"')]))\s+(?=[\"'(]*[A-Z])")
_ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|Jr|Sr|vs|etc|Vol|[A-Z])\.$")
# A dialogue's "Q:" and "A:".
_SPEAKER = re.compile(r"^\s*[A-Z]:\s+")
_LETTER = re.compile(r"[a-z]")


_NUMBER = re.compile(r"(?<![\w.,-])\d+(?!\w|[.,]\d)")
_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def in_words(text: str) -> str:
    """Return the text with each whole number that stands alone in words; all others stay as they are.

    >>> in_words("Is 1,024 or 640 the 2nd of 019?")
    'Is 1,024 or six hundred forty the 2nd of zero one nine?'
    """
    return _NUMBER.sub(lambda found: _told(found.group()), text)


def _told(digits: str) -> str:
    if digits.startswith("0"):
        return " ".join(_UNITS[int(digit)] for digit in digits)
    number = int(digits)
    if number < len(_UNITS):
        return _UNITS[number]
    sizes = ((1_000_000, "million"), (1000, "thousand"), (100, "hundred"), (10, ""))
    size, name = next(one for one in sizes if number >= one[0])
    many, rest = divmod(number, size)
    words = [_told(str(many)), name] if name else [_TENS[many - 2]]
    return " ".join([*words, *([_told(str(rest))] if rest else [])])


def to_alphabet(text: str, *, punctuation: bool = True) -> str:
    """Return the text in `ALPHABET`: lower case, typographic marks made plain, whatever else is there dropped.

    >>> to_alphabet('"Whoah! That’s it," he said…')
    "whoah! that's it, he said."
    >>> to_alphabet("It's a left-handed one.", punctuation=False)
    "it's a left handed one"
    """
    plain = _OUTSIDE.sub("", _QUOTES.sub("", text.translate(_SAME)).lower())
    if not punctuation:
        plain = re.sub(f"[{re.escape(PUNCTUATION)}]", " ", plain)
    return " ".join(plain.split())


def in_alphabet(text: str) -> bool:
    """Tell whether `to_alphabet` would drop nothing but quotes and brackets, and a letter is there."""
    plain = _QUOTES.sub("", text.translate(_SAME)).lower()
    return not _OUTSIDE.search(plain) and bool(_LETTER.search(plain))


def split_sentences(text: str) -> list[str]:
    """Cut running text behind `.`, `!` or `?` where a capital follows, but not behind an abbreviation or initial."""
    found: list[str] = []
    for part in _END.split(" ".join(text.split())):
        if found and _ABBREVIATION.search(found[-1]):
            found[-1] += " " + part
        else:
            found.append(part)
    return [sentence.strip() for sentence in found if sentence.strip()]


def chatterbot_sentences(language: str = "english") -> Iterator[str]:
    """Yield the conversations of chatterbot-corpus, turn by turn; `language` is the name of its folder."""
    for path in sorted((fetch("chatterbot-corpus") / "chatterbot_corpus/data" / language).glob("*.yml")):
        for conversation in yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)["conversations"]:
            for turn in conversation:
                yield from split_sentences(str(turn))


def fortune_sentences() -> Iterator[str]:
    """Yield the fortunes without their headings and attributions, drawings apart."""
    folder = fetch("fortunes") / "usr/share/games/fortunes"
    for path in sorted(folder.iterdir()):
        if path.suffix == "" and path.is_file() and path.name != "ascii-art":
            for entry in path.read_text(encoding="utf-8", errors="replace").split("\n%\n"):
                yield from _sentences_of_fortune(entry)


def _sentences_of_fortune(entry: str) -> Iterator[str]:
    lines: list[str] = []
    for line in entry.replace("\b", "").splitlines():
        if line.lstrip().startswith("--"):
            break
        line = _SPEAKER.sub("", line)
        if not (line.rstrip().endswith(":") and not lines):
            lines.append(line)
    for sentence in split_sentences(" ".join(lines)):
        # A heading, a menu or a fortune that stops in mid-sentence does not end like a sentence.
        if sentence.rstrip("\"')").endswith((".", "!", "?")):
            yield sentence


TEXT_SOURCES: Mapping[str, tuple[str, Callable[[], Iterable[str]]]] = {
    "chatterbot": ("chatterbot-corpus", chatterbot_sentences),
    "fortunes": ("fortunes", fortune_sentences),
    "amazon_queen": (amazon_queen.PACKAGE, amazon_queen.transcripts),
}


def available_text_sources() -> tuple[str, ...]:
    """Return the names in `TEXT_SOURCES` whose package can be fetched, in order."""
    return tuple(name for name, (package, _) in TEXT_SOURCES.items() if available(package))


def spoken_text_sources() -> tuple[str, ...]:
    """Name the sources whose sentences voices speak on this machine, where none are named."""
    return tuple(name for name in available_text_sources() if name != "amazon_queen")


def sentences(
    sources: Iterable[str] = ("chatterbot", "fortunes"), *, min_words: int = 2, max_words: int = 14
) -> list[str]:
    """Return the sentences of all splits, each once (after normalisation), with their capitals and punctuation.

    Those with a sign outside `ALPHABET` are left out, and those with more or fewer words.
    """
    found: dict[str, str] = {}
    for name in sources:
        _, read = choose(TEXT_SOURCES, name, "text source")
        for sentence in read():
            if min_words <= len(sentence.split()) <= max_words and in_alphabet(sentence):
                found.setdefault(normalize_sentence(sentence), sentence)
    return list(found.values())


@dataclass(frozen=True)
class TrainingText:
    """Sentences in `ALPHABET`; `manifest` counts what was kept by source and what was left out by reason."""

    sentences: list[str]
    manifest: dict[str, Any]


def training_text(
    sources: Iterable[str] | None = None, *, min_words: int = 1, max_words: int = 30, punctuation: bool = True
) -> TrainingText:
    """Return the language model's training text: sentences of the train split only, none reserved, each once.

    `sources` are names in `TEXT_SOURCES`; `None` takes all that can be fetched.
    """
    names = tuple(available_text_sources() if sources is None else sources)
    if not names:
        raise LabError(f"no text source can be fetched; expected one of: {', '.join(TEXT_SOURCES)}")
    seen: set[str] = set()
    kept: list[str] = []
    counts: dict[str, int] = {}
    left_out: Counter[str] = Counter()
    for name in names:
        before = len(kept)
        for sentence in sentences([name], min_words=min_words, max_words=max_words):
            identity = normalize_sentence(sentence)
            if identity in seen or not identity:
                left_out["said before"] += 1
            elif not may_train_on(sentence):
                left_out["reserved for asterisk" if is_reserved(sentence) else f"{split_of(sentence)} sentence"] += 1
            else:
                kept.append(to_alphabet(sentence, punctuation=punctuation))
            seen.add(identity)
        counts[name] = len(kept) - before
    manifest = {
        "sources": {name: packages()[TEXT_SOURCES[name][0]].sha256 for name in names},
        "sentences": counts,
        "characters": sum(map(len, kept)),
        "left_out": dict(left_out),
        "alphabet": ALPHABET,
        "sha256": hashlib.sha256("\n".join(kept).encode()).hexdigest(),
    }
    return TrainingText(kept, manifest)
