"""What a threshold of deduplication keeps and loses, on real sentences with planted rewordings.

    python benchmarks/dedup_thresholds.py [--sentences 2000] [--filters near_duplicates semantic_duplicates]

The paper names no threshold for its semantic deduplication, and no filter of wording. The sentences are chatterbot's
and fortunes', each once; of a quarter a copy is planted behind all of them, edited by seed one to four times, each in
another way: a word left out, a filler put in ("really", "just"), two neighbours exchanged, a contraction or verb
written otherwise, or the whole asked politely ("Could you tell me, ...").

A filter is right to drop a planted copy, and wrong to drop anything else; but the sentences hold twins of their own,
which count as wrong here, so that precision is a lower bound. Printed for each filter, as a Markdown table: threshold,
share kept, precision and recall of the planted, and recall by the number of edits. `--filters semantic_duplicates`
embeds with `minilm`, which is fetched the first time.
"""

import argparse
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lab.data.filters.filtering import Filtered
from lab.data.filters.near_duplicates import NearDuplicates
from lab.data.filters.semantic_duplicates import SemanticDuplicates
from lab.data.filters.step import Step
from lab.errors import LabError, choose
from standins.texts import sentences

MOST_EDITS = 4
_FILLERS = ("really", "just", "actually", "perhaps", "then", "now")
_OTHERWISE = {"what's": "what is", "it's": "it is", "i'm": "i am", "don't": "do not", "is": "would be", "can": "could"}
_POLITE = ("Could you tell me,", "Please say,", "I would like to know,", "Tell me:")


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Sentences and behind them the planted copies; `edits` is 0 for what was there."""

    texts: list[str]
    edits: list[int]


def edited(text: str, count: int, rng: random.Random) -> str:
    """The text with so many edits, each of another kind, so that none takes back what another did."""
    while True:
        parts, left = text.split(), count
        for kind in rng.sample(_KINDS, len(_KINDS)):
            before = list(parts)
            parts = kind(parts, rng) if left else parts
            left -= parts != before
        if not left and parts != text.split():
            return " ".join(parts)


def _without(parts: list[str], rng: random.Random) -> list[str]:
    at = rng.randrange(1, len(parts))
    return [*parts[:at], *parts[at + 1 :]]


def _with_filler(parts: list[str], rng: random.Random) -> list[str]:
    at = rng.randrange(len(parts))
    return [*parts[:at], rng.choice(_FILLERS), *parts[at:]]


def _exchanged(parts: list[str], rng: random.Random) -> list[str]:
    at = rng.randrange(len(parts) - 1)
    return [*parts[:at], parts[at + 1], parts[at], *parts[at + 2 :]]


def _otherwise(parts: list[str], rng: random.Random) -> list[str]:
    return [_OTHERWISE.get(part.lower(), part) for part in parts]


def _politely(parts: list[str], rng: random.Random) -> list[str]:
    return [*rng.choice(_POLITE).split(), *parts]


_KINDS = (_without, _with_filler, _exchanged, _otherwise, _politely)


def planted(found: Sequence[str], seed: int = 0) -> Corpus:
    """Plant edited copies of a quarter of the sentences, as many of each number of edits."""
    rng = random.Random(seed)
    chosen = rng.sample(range(len(found)), len(found) // 4)
    counts = [1 + place % MOST_EDITS for place in range(len(chosen))]
    copies = [edited(found[i], count, rng) for i, count in zip(chosen, counts, strict=True)]
    return Corpus(texts=[*found, *copies], edits=[0] * len(found) + counts)


def table(corpus: Corpus, run: Callable[[float], Filtered], thresholds: Sequence[float]) -> str:
    """One line a threshold."""
    edits = np.array(corpus.edits)
    by_edits = " | ".join(f"{count} edit{'s' if count > 1 else ''}" for count in range(1, MOST_EDITS + 1))
    lines = [f"| threshold | kept | precision | recall | {by_edits} |", "|" + "---|" * (4 + MOST_EDITS)]
    for threshold in thresholds:
        dropped = ~run(threshold).keep
        right = dropped & (edits > 0)
        recalls = [right[edits == count].mean() for count in range(1, MOST_EDITS + 1)]
        precision = f"{right.sum() / dropped.sum():.3f}" if dropped.any() else "none dropped"
        recall = right.sum() / (edits > 0).sum()
        shown = " | ".join(f"{value:.2f}" for value in recalls)
        lines.append(f"| {threshold:g} | {1 - dropped.mean():.1%} | {precision} | {recall:.3f} | {shown} |")
    return "\n".join(lines)


def _prepared(step: Callable[[float], Step], corpus: Corpus) -> Callable[[float], Filtered]:
    rows = pa.table({"id": list(map(str, range(len(corpus.texts)))), "text": corpus.texts})
    return lambda threshold: step(threshold).apply(rows)


def _wording(threshold: float) -> Step:
    return NearDuplicates(threshold=threshold, columns=("text",))


def _meaning(threshold: float) -> Step:
    return SemanticDuplicates(threshold=threshold, columns=("text",))


FILTERS: Mapping[str, tuple[Callable[[float], Step], tuple[float, ...]]] = {
    "near_duplicates": (_wording, (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)),
    "semantic_duplicates": (_meaning, (0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Plant, filter at each threshold, print."""
    parser = argparse.ArgumentParser(description="What a threshold of deduplication keeps and loses.")
    parser.add_argument("--sentences", type=int, default=2000, help="real ones, before the planted [2000]")
    parser.add_argument("--filters", nargs="+", default=sorted(FILTERS), help=f"among {', '.join(sorted(FILTERS))}")
    options = parser.parse_args(arguments)
    chosen = {name: choose(FILTERS, name, "filter") for name in options.filters}
    if options.sentences < 4 * MOST_EDITS:
        raise LabError(f"--sentences is {options.sentences}, expected at least {4 * MOST_EDITS}")
    found = sentences(min_words=5)
    random.Random(0).shuffle(found)
    corpus = planted(found[: options.sentences])
    print(f"{len(found[: options.sentences]):,} sentences, {np.count_nonzero(corpus.edits):,} edited copies planted")
    for name, (step, thresholds) in chosen.items():
        print(f"\n{name}\n\n{table(corpus, _prepared(step, corpus), thresholds)}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        sys.exit(f"error: {error}")
