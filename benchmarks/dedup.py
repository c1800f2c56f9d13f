"""How much faster the semantic deduplication of a whole corpus is than the product of all pairs, and what it misses.

    python benchmarks/dedup.py [--samples 200000] [--from 20000] [--threshold 0.9] [--threads 2]

The embeddings are made on the spot, of width 384: centres drawn on the sphere, one for every 200 samples, around each
its samples (`--spread` of a sample's squared length is its own; with the default 0.6 two of a cluster have a cosine of
about 0.4), and for a tenth of all a twin at a cosine drawn evenly from threshold - 0.05 to 0.999, all shuffled by seed.
At 0.9 a third of the twins lies just below the threshold.

Both sides use the same number of threads. The product goes over blocks of 4,096 x 4,096 of the upper triangle and
notes the pairs at or above the threshold: what has to be found. Ours is `first_of_like`, clustering included. Printed,
for both sizes: seconds on the wall and of the processor, their ratios, the share of the samples dropped by keeping the
first of the product's pairs that ours drops too, and peak memory; then both sides' growth from the smaller to the
larger size.
"""

import argparse
import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lab.data.filters.semantic_duplicates import first_of_like, share_of_clusters
from lab.errors import LabError

WIDTH, PER_CENTRE, BLOCK = 384, 200, 4096


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Both sides at one size; `cpu` is processor time; `dropped_too`: the share of what the product drops."""

    num_samples: int
    num_pairs: int
    product_seconds: float
    our_seconds: float
    product_cpu: float
    our_cpu: float
    num_dropped: int
    dropped_too: float


def made(num_samples: int, *, threshold: float, spread: float, seed: int = 0) -> np.ndarray:
    """The embeddings, float32, of length 1."""
    rng = np.random.default_rng(seed)
    num_twins = num_samples // 10
    centres = _unit(rng, max(1, num_samples // PER_CENTRE))
    rows = np.empty((num_samples, WIDTH), dtype=np.float32)
    of = rng.integers(len(centres), size=num_samples - num_twins)
    for at in range(0, len(of), BLOCK):
        some = of[at : at + BLOCK]
        own = np.float32(np.sqrt(spread)) * _unit(rng, len(some))
        part = np.float32(np.sqrt(1 - spread)) * centres[some] + own
        rows[at : at + len(some)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    originals = rows[rng.integers(len(of), size=num_twins)]
    across = _unit(rng, num_twins)
    across -= (across * originals).sum(1, keepdims=True) * originals
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    cosines = rng.uniform(threshold - 0.05, 0.999, (num_twins, 1)).astype(np.float32)
    rows[len(of) :] = cosines * originals + np.sqrt(1 - cosines**2) * across
    return rows[rng.permutation(num_samples)]


def _unit(rng: np.random.Generator, count: int) -> np.ndarray:
    rows = rng.standard_normal((count, WIDTH), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def all_pairs(rows: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The other side: every block of the upper triangle, and the pairs in it."""
    earlier, later = [], []
    for top in range(0, len(rows), BLOCK):
        for left in range(top, len(rows), BLOCK):
            i, j = np.nonzero(rows[top : top + BLOCK] @ rows[left : left + BLOCK].T >= threshold)
            upper = top + i < left + j
            earlier.append(top + i[upper])
            later.append(left + j[upper])
    return np.concatenate(earlier), np.concatenate(later)


def compare(num_samples: int, *, threshold: float, spread: float) -> Comparison:
    """Time both sides on the same embeddings."""
    rows = made(num_samples, threshold=threshold, spread=spread)
    begun, cpu = time.perf_counter(), time.process_time()
    ours_stay = first_of_like(rows, threshold=threshold)
    ours, our_cpu = time.perf_counter() - begun, time.process_time() - cpu
    begun, cpu = time.perf_counter(), time.process_time()
    earlier, later = all_pairs(rows, threshold)
    product, product_cpu = time.perf_counter() - begun, time.process_time() - cpu
    stays = np.ones(num_samples, dtype=bool)
    order = np.lexsort((earlier, later))
    for i, j in zip(earlier[order].tolist(), later[order].tolist(), strict=True):
        if stays[i]:
            stays[j] = False
    dropped = ~ours_stay
    return Comparison(
        num_samples=num_samples,
        num_pairs=len(earlier),
        product_seconds=product,
        our_seconds=ours,
        product_cpu=product_cpu,
        our_cpu=our_cpu,
        num_dropped=int((~stays).sum()),
        dropped_too=float(dropped[~stays].mean()) if not stays.all() else 1.0,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare at both sizes and print."""
    parser = argparse.ArgumentParser(description="Semantic deduplication against the product of all pairs.")
    parser.add_argument("--samples", type=int, default=200_000, help="the larger size [200000]")
    parser.add_argument("--from", dest="fewer", type=int, default=20_000, help="the smaller size [20000]")
    parser.add_argument("--threshold", type=float, default=0.9, help="cosine from which two are the same [0.9]")
    parser.add_argument("--spread", type=float, default=0.6, help="a sample's own part of its squared length [0.6]")
    parser.add_argument("--threads", type=int, default=2, help="of each side [2]")
    options = parser.parse_args(arguments)
    if not 100 <= options.fewer < options.samples or not 0.1 < options.threshold < 0.99 or not 0 < options.spread < 1:
        raise LabError(
            "the benchmark needs 100 <= --from < --samples, a threshold of 0.1 to 0.99, and a spread between 0 and 1"
        )
    import faiss
    from threadpoolctl import threadpool_limits

    faiss.omp_set_num_threads(options.threads)
    with threadpool_limits(options.threads):
        settings = {"threshold": options.threshold, "spread": options.spread}
        looked = f"{share_of_clusters(options.threshold):.0%} of the clusters looked into"
        print(f"embeddings of width {WIDTH}, {options.threads} threads a side, {os.cpu_count()} cores; {looked}")
        fewer, more = (told(compare(count, **settings)) for count in (options.fewer, options.samples))
    growth = (more.product_seconds / fewer.product_seconds, more.our_seconds / fewer.our_seconds)
    between = f"from {fewer.num_samples:,} to {more.num_samples:,}"
    cpu = (more.product_cpu / fewer.product_cpu, more.our_cpu / fewer.our_cpu)
    print(f"growth {between}: all pairs {growth[0]:.1f} times, ours {growth[1]:.1f} times")
    print(f"  of processor time: all pairs {cpu[0]:.1f} times, ours {cpu[1]:.1f} times")
    print(f"peak memory, both sides: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def told(size: Comparison) -> Comparison:
    """Print what was measured at one size."""
    print(
        f"{size.num_samples:,} samples: all pairs {size.product_seconds:.1f} s, ours {size.our_seconds:.1f} s; "
        f"ratio, all pairs / ours: {size.product_seconds / size.our_seconds:.1f}"
    )
    print(
        f"  processor time: all pairs {size.product_cpu:.1f} s, ours {size.our_cpu:.1f} s; "
        f"ratio {size.product_cpu / size.our_cpu:.1f}"
    )
    print(
        f"  {size.num_pairs:,} pairs; {size.dropped_too:.2%} of {size.num_dropped:,} samples to drop dropped; "
        f"{os.getloadavg()[0]:.1f} processes want to run",
        flush=True,
    )
    return size


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        sys.exit(f"error: {error}")
