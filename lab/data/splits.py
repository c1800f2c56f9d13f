"""Which sentence may be trained on: a pure function of the sentence itself, the same in every corpus and every text.

So no sentence of any test split can stand in the training split of another corpus, nor in the text that a language
model was pretrained on.
"""

import hashlib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Literal

from lab.errors import LabError

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
_TEST_PERCENT = 10
_DEV_PERCENT = 5

_NOT_KEPT = re.compile(r"[^\w']|_")
# Some Mandarin transcripts set blanks between characters or words, others do not.
_BLANK_BETWEEN_HAN = re.compile(r"(?<=[\u4e00-\u9fff]) (?=[\u4e00-\u9fff])")


def normalize_sentence(text: str) -> str:
    """Lower case, only letters, digits and apostrophes, single blanks: what makes two sentences the same.

    >>> normalize_sentence("  Well -- THAT's it...")
    "well that's it"
    """
    parts = _NOT_KEPT.sub(" ", text.lower().replace("’", "'")).split()
    return _BLANK_BETWEEN_HAN.sub("", " ".join(word for part in parts if (word := part.strip("'"))))


def sentence_hash(text: str) -> str:
    """SHA-256, in hexadecimal, of the normalised sentence."""
    return hashlib.sha256(normalize_sentence(text).encode()).hexdigest()


def split_of(text: str) -> Split:
    """Give the split of a sentence: 10% test, 5% dev, 85% train, by its hash."""
    return split_of_hash(sentence_hash(text))


def split_of_hash(digest: str) -> Split:
    """Give the split of a hash in hexadecimal digits, with these shares."""
    bucket = int(digest[:8], 16) % 100
    if bucket < _TEST_PERCENT:
        return "test"
    return "dev" if bucket < _TEST_PERCENT + _DEV_PERCENT else "train"


@cache
def reserved_hashes() -> frozenset[str]:
    """The first 16 hexadecimal digits of the hash of every sentence of `asterisk`, the out-of-domain test.

    They stand in a file, so that a machine that cannot fetch `asterisk` splits every other corpus in the same way.
    """
    lines = Path(__file__).with_name("reserved_sentences.txt").read_text(encoding="ascii").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def is_reserved(text: str) -> bool:
    """Tell whether a sentence belongs to `asterisk`, and so to no training and no development text."""
    return sentence_hash(text)[:16] in reserved_hashes()


def may_train_on(text: str) -> bool:
    """Tell whether a sentence may stand in training, be it speech or text."""
    return split_of(text) == "train" and not is_reserved(text)


def assign_split(
    text: str, *, own_split: Split | None = None, held_out_speaker: bool = False
) -> tuple[Split | None, str]:
    """Give an utterance its split, or `None` and the reason why it is left out.

    `own_split` is the source's own. Its test split wins over the hash; what it trains or tunes on still leaves out
    every sentence of the hash's test bucket, because another corpus tests on it. A held-out speaker's utterances are
    never trained on.
    """
    if own_split == "test":
        return "test", ""
    by_hash = split_of(text)
    if own_split is not None and by_hash == "test":
        return None, f"{own_split} sentence of the test bucket"
    split = own_split or by_hash
    if split != "test" and is_reserved(text):
        return None, f"{split} sentence reserved for asterisk"
    if split == "train" and held_out_speaker:
        return None, "training sentence of a held-out speaker"
    return split, ""


def held_out_speakers(speakers: Iterable[str], fraction: float) -> frozenset[str]:
    """Choose the speakers that are never trained on, by hash of their name alone; at least one where there are two."""
    if not 0.0 <= fraction < 1.0:
        raise LabError(f"fraction of held-out speakers {fraction} is not in [0, 1)")
    names = sorted(set(speakers), key=lambda name: hashlib.sha256(f"speaker:{name}".encode()).hexdigest())
    if fraction == 0.0 or len(names) < 2:
        return frozenset()
    return frozenset(names[: max(1, round(fraction * len(names)))])
