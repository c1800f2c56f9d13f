"""Rate and memory of the filter of near-duplicate wording on short texts.

    python benchmarks/near_duplicates.py [--samples 100000] [--threshold 0.8]

The texts are made on the spot: 12 to 24 words drawn from the fortunes' own, by seed; a tenth are copies of earlier ones
with one word exchanged. Printed: samples a second on the wall and of the processor, how many of the copies at or above
the threshold go, and peak memory beyond the texts, each counted in a process that does nothing else.
"""

import argparse
import random
import resource
import sys
import time
from collections.abc import Sequence

import pyarrow as pa

from lab.data.filters.near_duplicates import NearDuplicates, bands_and_rows, shingles
from lab.errors import LabError
from standins.texts import fortune_sentences

MEGABYTE = 1e6


def made(count: int, vocabulary: Sequence[str], seed: int = 0) -> tuple[list[str], dict[int, int]]:
    """Texts, and of each copy the number of its original."""
    rng = random.Random(seed)
    texts: list[str] = []
    of: dict[int, int] = {}
    for number in range(count):
        if texts and rng.random() < 0.1:
            of[number] = rng.randrange(len(texts))
            parts = texts[of[number]].split()
            parts[rng.randrange(len(parts))] = rng.choice(vocabulary)
        else:
            parts = rng.choices(vocabulary, k=rng.randint(12, 24))
        texts.append(" ".join(parts))
    return texts, of


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the texts, filter them, print."""
    parser = argparse.ArgumentParser(description="Rate and memory of the filter of near-duplicate wording.")
    parser.add_argument("--samples", type=int, default=100_000, help="[100000]")
    parser.add_argument("--threshold", type=float, default=0.8, help="overlap of shingles of 5 characters [0.8]")
    options = parser.parse_args(arguments)
    if options.samples < 10:
        raise LabError(f"--samples is {options.samples}, expected at least 10")
    vocabulary = sorted({word for sentence in fortune_sentences() for word in sentence.split()})
    texts, of = made(options.samples, vocabulary)
    rows = pa.table({"id": list(map(str, range(len(texts)))), "text": texts})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    begun, cpu = time.perf_counter(), time.process_time()
    result = NearDuplicates(threshold=options.threshold, columns=("text",)).apply(rows)
    wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / MEGABYTE
    bands, agreeing = bands_and_rows(options.threshold, 128)
    print(result)
    print(f"{len(texts) / wall:,.0f} samples a second on the wall, {len(texts) / cpu:,.0f} of processor time")
    print(f"{memory:.0f} MB beyond the texts at most; {bands} bands of {agreeing} rows")
    near = [copy for copy, original in of.items() if _overlap(texts[copy], texts[original]) >= options.threshold]
    # A copy's original may itself have gone, and what it went for be too far from the copy.
    firsts = [copy for copy in near if result.keep[of[copy]]]
    gone = sum(not result.keep[copy] for copy in firsts)
    print(f"{gone / max(1, len(firsts)):.2%} of {len(firsts):,} copies of texts that stay are gone")


def _overlap(one: str, other: str) -> float:
    first, second = shingles(one, 5), shingles(other, 5)
    return len(first & second) / len(first | second)


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        sys.exit(f"error: {error}")
