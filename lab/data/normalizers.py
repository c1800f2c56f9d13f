"""What a transcript and its hypothesis are reduced to before errors are counted; each has a name and a version.

The normaliser moves an error rate as much as an ablation does, so both stand with every score.
"""

import functools
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Literal


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
    transformers, so it is left empty here ("colour" and "color" differ); the version says `no_spelling_map`.
    """
    return " ".join(_english_text_normalizer()(text).split())


def chinese_characters(text: str) -> str:
    """NFKC (full-width forms become plain), lower case, without punctuation, symbols and white space.

    The unit is the character, so only a character error rate is reported. Numbers stay as they are written.
    """
    folded = unicodedata.normalize("NFKC", text).lower()
    return "".join(c for c in folded if unicodedata.category(c)[0] not in "PSZC")


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
        version=f"1-transformers{_TRANSFORMERS_MAJOR}-no_spelling_map",
        language="en",
        reports=("wer", "cer"),
        normalize=whisper_english,
    ),
    "chinese_characters": Normalizer(
        name="chinese_characters",
        version="1",
        language="zh",
        reports=("cer",),
        normalize=chinese_characters,
    ),
    "lowercase_alphanumeric": Normalizer(
        name="lowercase_alphanumeric",
        version="1",
        language="en",
        reports=("wer", "cer"),
        normalize=lowercase_alphanumeric,
    ),
}
