"""Error rates of the same transcripts under every normaliser of a language, each with its interval.

The first normaliser gives the rates that are compared with other people's (`word_error_rate`); those of the others
stand under its name and theirs (`word_error_rate/raw`).
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, get_args

import pandas as pd

from lab.errors import LabError, choose
from lab.evaluation.benchmarks.benchmark import Score
from lab.evaluation.benchmarks.intervals import error_rate_score
from lab.evaluation.error_rates import utterance_errors
from lab.evaluation.normalizers import NORMALIZERS, Normalizer

Language = Literal["en", "zh"]
_RATES = {"wer": "word_error_rate", "cer": "character_error_rate"}


def raw(text: str) -> str:
    """The text as it stands, but for its white space: case and punctuation count as errors."""
    return " ".join(text.split())


_RAW_ENGLISH = Normalizer(name="raw", version="1", language="en", reports=("wer", "cer"), normalize=raw)
_RAW_CHINESE = Normalizer(
    name="raw", version="1", language="zh", reports=("cer",), normalize=lambda text: "".join(text.split())
)
_OF_LANGUAGE: dict[str, tuple[Normalizer, ...]] = {
    "en": (NORMALIZERS["whisper_english"], NORMALIZERS["lowercase_alphanumeric"], _RAW_ENGLISH),
    "zh": (NORMALIZERS["chinese_characters"], _RAW_CHINESE),
}


def normalizers_of(language: str) -> tuple[Normalizer, ...]:
    """Those that a language's transcripts are scored with, the one that counts first.

    Raises:
        LabError: another language than English and Chinese.
    """
    return choose({name: _OF_LANGUAGE[name] for name in get_args(Language)}, language, "language")


def unique(ids: Sequence[str]) -> list[str]:
    """The ids, with a number behind those that come again: FLEURS names a sentence, which several people read.

    >>> unique(["7", "8", "7"])
    ['7', '8', '7#2']
    """
    seen: Counter[str] = Counter()
    named = []
    for one in ids:
        seen[one] += 1
        named.append(one if seen[one] == 1 else f"{one}#{seen[one]}")
    return named


def score_transcripts(
    ids: Sequence[str], references: Sequence[str], hypotheses: Sequence[str], language: str
) -> tuple[tuple[Score, ...], pd.DataFrame]:
    """The rates under every normaliser, and a line an utterance with its errors under the first.

    An utterance of which the first normaliser leaves no reference is left out of all rates and of the answers: it has
    nothing to get wrong.

    Raises:
        LabError: no utterance is left.
    """
    first, *others = normalizers_of(language)
    kept = [place for place, text in enumerate(references) if all(one(text) for one in (first, *others))]
    if not kept:
        raise LabError(f"none of the {len(ids)} references has a word left under the normaliser {first.name!r}")
    scores: list[Score] = []
    tables: list[pd.DataFrame] = []
    for normalizer in (first, *others):
        table = utterance_errors(
            [references[place] for place in kept],
            [hypotheses[place] for place in kept],
            normalizer,
            [ids[place] for place in kept],
        )
        tables.append(table)
        suffix = "" if normalizer is first else f"/{normalizer.name}"
        for kind in normalizer.reports:
            scores.append(error_rate_score(table, _RATES[kind], metric=f"{_RATES[kind]}{suffix}"))
    table = tables[0]
    counted, length = ("word_errors", "num_words") if "wer" in first.reports else ("character_errors", "num_characters")
    answers = pd.DataFrame(
        {
            "id": table["utterance"],
            "prompt": "",
            "reference": table["reference"],
            "answer": table["hypothesis"],
            "score": table[counted] / table[length],
            **{name: table[name] for name in table.columns[3:]},
        }
    )
    return tuple(scores), answers
