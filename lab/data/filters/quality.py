"""Quality of a text by published rules: each rule's number has to lie between two limits.

Section 3 of the paper. Differs from the paper: which rules it uses, if any, is not found; these are Gopher's and C4's
(`lab.data.filters.quality_scores`), with their sources' limits as defaults. Those were set for pages of English: an
instruction is shorter and Chinese has other words, so give limits of your own or leave rules out. C4 drops single
lines, this the whole text: half an instruction is none. (Early versions of the C4 paper print 5 sentences, the last
and its code 3.)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from lab.data.filters.filtering import Filtered, filtered
from lab.data.filters.quality_scores import (
    alphabetic_words,
    bullet_lines,
    code_signs,
    commonest_n_gram,
    different_stop_words,
    ellipsis_lines,
    mean_word_length,
    num_sentences,
    num_words,
    repeated_line_characters,
    repeated_lines,
    repeated_n_grams,
    symbols_per_word,
    unfinished_lines,
)
from lab.errors import LabError, choose

Limits = tuple[float | None, float | None]


@dataclass(frozen=True, kw_only=True)
class QualityRule:
    """What is measured, and the least and the most of it that its source lets pass (None: any)."""

    score: Callable[[str], float]
    limits: Limits
    source: str


def quality(
    ids: Sequence[str], texts: Sequence[str], *, rules: Sequence[str], limits: Mapping[str, Limits] | None = None
) -> Filtered:
    """Keep the texts that pass every rule; the first that one fails, in the order of `rules`, is its reason.

    `limits` replace those of the rules' sources, by name, as (least, most) with both included.

    Raises:
        LabError: no rules, an unknown one, limits of a rule that is not used or with least above most, or not one text
            a sample.
    """
    chosen = {name: choose(QUALITY_RULES, name, "quality rule") for name in rules}
    if not chosen:
        raise LabError(f"quality needs at least one rule; choose among: {', '.join(sorted(QUALITY_RULES))}")
    if unused := sorted(set(limits or {}) - set(chosen)):
        raise LabError(f"limits are given for {unused[0]!r}, which is none of the rules used: {', '.join(chosen)}")
    if len(ids) != len(texts):
        raise LabError(f"{len(texts)} texts for {len(ids)} samples; expected one each")
    used = {name: (limits or {}).get(name, rule.limits) for name, rule in chosen.items()}
    for name, (least, most) in used.items():
        if least is not None and most is not None and not least <= most:
            raise LabError(f"rule {name!r} has limits {least} to {most}, expected the least first")
    reasons = [
        next((name for name, rule in chosen.items() if not _within(rule.score(text), used[name])), None)
        for text in texts
    ]
    return filtered(ids, reasons, name="quality", parameters=used)


def quality_scores(text: str, rules: Sequence[str]) -> dict[str, float]:
    """Every rule's number for one text.

    Raises:
        LabError: an unknown rule.
    """
    return {name: choose(QUALITY_RULES, name, "quality rule").score(text) for name in rules}


def _within(value: float, limits: Limits) -> bool:
    least, most = limits
    return (least is None or value >= least) and (most is None or value <= most)


_GOPHER = "Rae et al. 2021, A.1.1"
_TABLE_A1 = "Rae et al. 2021, table A1"
_C4 = "Raffel et al. 2020, 2.2"
QUALITY_RULES = {
    "num_words": QualityRule(score=num_words, limits=(50, 100_000), source=_GOPHER),
    "mean_word_length": QualityRule(score=mean_word_length, limits=(3, 10), source=_GOPHER),
    "symbols_per_word": QualityRule(score=symbols_per_word, limits=(None, 0.1), source=_GOPHER),
    "bullet_lines": QualityRule(score=bullet_lines, limits=(None, 0.9), source=_GOPHER),
    "ellipsis_lines": QualityRule(score=ellipsis_lines, limits=(None, 0.3), source=_GOPHER),
    "alphabetic_words": QualityRule(score=alphabetic_words, limits=(0.8, None), source=_GOPHER),
    "different_stop_words": QualityRule(score=different_stop_words, limits=(2, None), source=_GOPHER),
    "repeated_lines": QualityRule(score=repeated_lines, limits=(None, 0.3), source=_TABLE_A1),
    "repeated_line_characters": QualityRule(score=repeated_line_characters, limits=(None, 0.2), source=_TABLE_A1),
    **{
        f"commonest_{n}_gram": QualityRule(
            score=partial(commonest_n_gram, size=n), limits=(None, most), source=_TABLE_A1
        )
        for n, most in {2: 0.2, 3: 0.18, 4: 0.16}.items()
    },
    **{
        f"repeated_{n}_grams": QualityRule(
            score=partial(repeated_n_grams, size=n), limits=(None, most), source=_TABLE_A1
        )
        for n, most in {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.1}.items()
    },
    "unfinished_lines": QualityRule(score=unfinished_lines, limits=(None, 0), source=_C4),
    "num_sentences": QualityRule(score=num_sentences, limits=(3, None), source=_C4),
    "code_signs": QualityRule(score=code_signs, limits=(None, 0), source=_C4),
}
