"""Words of any text for the data filters, Chinese too: what is counted, compared and listed."""

import re
import unicodedata

# Scripts without blanks between words: Han, Kana. Each of their characters is a word of its own here.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W_{_UNSPACED}]+(?:['’][^\\W_{_UNSPACED}]+)*")


def plain(text: str) -> str:
    """NFKC (full-width forms become plain), lower case, white space as single blanks, none at the ends."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def words(text: str) -> list[str]:
    """The words of a text, without punctuation, as they are written.

    >>> words("It's 5 o'clock: 你好!")
    ["It's", '5', "o'clock", '你', '好']
    """
    return _WORD.findall(text)
