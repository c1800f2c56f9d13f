"""What a text and its hypothesis are reduced to before errors are counted, and the errors in words and characters.

A normaliser moves an error rate as much as an ablation does, so its name and version stand with every score.
"""

import functools
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Literal

import jiwer
import pandas as pd

from lab.errors import LabError


@dataclass(frozen=True, kw_only=True)
class Normalizer:
    """A function from raw to normalised text, with what identifies it.

    `version` changes whenever the output for some text can change. `reports` says which rates are meaningful: a
    language written without blanks has no words to count. The output has no blank at either end and none doubled.
    """

    name: str
    version: str
    language: Literal["en", "zh"]
    reports: tuple[Literal["wer", "cer"], ...]
    normalize: Callable[[str], str] = field(repr=False)

    def __call__(self, text: str) -> str:
        """Return `text` normalised; an empty string where nothing is left."""
        return self.normalize(text)


@functools.cache
def _english_text_normalizer() -> Callable[[str], str]:
    # Imported on first use: transformers' Whisper module is slow to import, and most commands score nothing.
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer({})


def whisper_english(text: str) -> str:
    """Whisper's English normaliser (Radford et al. 2022, appendix C), as transformers carries it.

    Lower case; brackets and their contents, fillers and punctuation go; contractions and titles are written out;
    numbers become digits (so a lone "oh" becomes "0", as in Whisper's own).

    Differs from Whisper's: its table of British and American spellings is part of the tokenizer on the hub and not of
    transformers, so it is left empty here ("colour" and "color" differ); the version says `no_spelling_map`. A word
    without a letter or digit goes: Whisper's own leaves the last dot of "well..." standing, a word that nobody can say.
    The typographer's apostrophe is the plain one.
    """
    words = _english_text_normalizer()(text.replace("’", "'")).split()
    return " ".join(word for word in words if any(map(str.isalnum, word)))


@functools.cache
def _simplified() -> Callable[[str], str]:
    from opencc import OpenCC

    convert: Callable[[str], str] = OpenCC("t2s").convert
    return convert


def chinese_characters(text: str) -> str:
    """NFKC (full-width forms become plain), lower case, simplified characters, without punctuation and white space.

    The unit is the character, so only a character error rate is reported. Numbers stay as they are written, and so does
    the point within one ("3.5" is not "35").
    """
    folded = _simplified()(unicodedata.normalize("NFKC", text).lower())
    points = {found.start() for found in re.finditer(r"(?<=\d)\.(?=\d)", folded)}
    return "".join(c for at, c in enumerate(folded) if at in points or unicodedata.category(c)[0] not in "PSZC")


def lowercase_alphanumeric(text: str) -> str:
    """NFKC, lower case, letters and digits; apostrophes vanish ("don't" is "dont"), all else parts words."""
    folded = unicodedata.normalize("NFKC", text).lower().replace("'", "").replace("’", "")
    # Combining marks stay: they are parts of letters in some scripts.
    kept = (c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in folded)
    return " ".join("".join(kept).split())


_TRANSFORMERS_MAJOR = version("transformers").split(".")[0]

NORMALIZERS = {
    "whisper_english": Normalizer(
        name="whisper_english",
        version=f"2-transformers{_TRANSFORMERS_MAJOR}-no_spelling_map",
        language="en",
        reports=("wer", "cer"),
        normalize=whisper_english,
    ),
    "chinese_characters": Normalizer(
        name="chinese_characters", version="2", language="zh", reports=("cer",), normalize=chinese_characters
    ),
    "lowercase_alphanumeric": Normalizer(
        name="lowercase_alphanumeric",
        version="1",
        language="en",
        reports=("wer", "cer"),
        normalize=lowercase_alphanumeric,
    ),
}


def _edits(alignment: Sequence[jiwer.AlignmentChunk]) -> int:
    """Substitutions, deletions and insertions of one text's alignment."""
    return sum(
        max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
        for chunk in alignment
        if chunk.type != "equal"
    )


def text_errors(
    answers: Sequence[str], given: Sequence[str], normalizer: Normalizer, ids: Sequence[str]
) -> pd.DataFrame:
    """Compare what was given with the right answers; one line each, in the order given.

    Columns: `id`, `answer` and `given`, both normalised, `wrong_answers` (whether these differ), and the errors and
    lengths in characters and words. The blank between two words counts as a character, as in jiwer. Nothing given is
    all deletions. Where the normaliser does not report words, `num_words` and `word_errors` are 0.

    Raises:
        LabError: a right answer is empty after normalisation; the message names its item.
    """
    expected = [normalizer(text) for text in answers]
    found = [normalizer(text) for text in given]
    for name, raw, normalized in zip(ids, answers, expected, strict=True):
        if not normalized:
            raise LabError(
                f"the answer of {name!r}, {raw!r}, is empty after the normaliser {normalizer.name!r}; leave it out or "
                "choose another normaliser"
            )
    characters = jiwer.process_characters(expected, found) if expected else None
    words = jiwer.process_words(expected, found) if expected and "wer" in normalizer.reports else None
    counts = {
        "wrong_answers": [int(a != b) for a, b in zip(expected, found, strict=True)],
        "num_questions": [1] * len(expected),
        "character_errors": [_edits(a) for a in characters.alignments] if characters else [],
        "num_characters": [len(r) for r in characters.references] if characters else [],
        "word_errors": [_edits(a) for a in words.alignments] if words else [0] * len(expected),
        "num_words": [len(r) for r in words.references] if words else [0] * len(expected),
    }
    texts = {
        "id": list(ids),
        "answer": list(answers),
        "given": list(given),
        "answer_normalized": expected,
        "given_normalized": found,
    }
    return pd.DataFrame(texts | counts).astype(dict.fromkeys(counts, "int64"))
