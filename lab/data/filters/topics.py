"""Diversity by topic: embeddings in clusters, and how many samples of each may stay.

Section 3 of the paper (over 200 tasks in the fine-tuning data). Differs from the paper: how topics are found or
balanced is not found there. Axes: `samples`, `width` (of an embedding, of length 1), `topics`.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from lab.data.filters.filtering import Filtered, filtered
from lab.data.filters.words import words
from lab.errors import LabError

FULL = "its topic has enough"
NUM_WORDS = 6
_ROUNDS, _STARTS = 20, 5
_BLOCK = 8192


@dataclass(frozen=True, kw_only=True)
class Topic:
    """The account of one topic; `example` is the first of its texts that stays (of all, where none does).

    `words` are those that tell it from the rest: how many of its texts hold the word, times the logarithm of all texts
    over those that hold it.
    """

    number: int
    num_samples: int
    num_kept: int
    example: str
    words: tuple[str, ...]


def find_topics(
    embeddings: Float[ndarray, "samples width"], *, num_topics: int, seed: int = 0
) -> Int[ndarray, " samples"]:
    """Cluster by seeded k-means on the sphere (faiss); topics are numbered from the largest, from 0.

    Raises:
        LabError: fewer than one topic, more than samples, or an embedding that is not finite.
    """
    num_samples, width = embeddings.shape
    if not 1 <= num_topics <= num_samples:
        raise LabError(f"num_topics is {num_topics}, expected 1 to {num_samples}, the number of samples")
    # The best of several starts: one that puts two centres into one topic stays there.
    options = {"niter": _ROUNDS, "nredo": _STARTS, "min_points_per_centroid": 1}
    means = faiss.Kmeans(width, num_topics, seed=seed, spherical=True, **options)
    rows = np.ascontiguousarray(embeddings, dtype=np.float32)
    if not np.isfinite(rows).all():
        raise LabError(f"the embedding of sample {int(np.argmin(np.isfinite(rows).all(1)))} (from 0) is not finite")
    means.train(rows)
    assert means.centroids is not None
    found = np.concatenate(
        [(rows[at : at + _BLOCK] @ means.centroids.T).argmax(1) for at in range(0, num_samples, _BLOCK)]
    )
    by_size = np.argsort(-np.bincount(found, minlength=num_topics), kind="stable")
    numbers = np.empty(num_topics, dtype=np.int64)
    numbers[by_size] = np.arange(num_topics)
    return numbers[found]


def cap_topics(ids: Sequence[str], topics: Int[ndarray, " samples"], *, most: int, seed: int = 0) -> Filtered:
    """Keep at most `most` samples of each topic, drawn by seed.

    Raises:
        LabError: not one topic a sample, or `most` below 1.
    """
    if most < 1:
        raise LabError(f"most is {most}, expected at least 1 sample of each topic")
    sizes = _sizes(ids, topics)
    return _drawn(ids, topics, np.minimum(sizes, most), seed, "cap_topics", {"most": most, "seed": seed})


def balance_topics(
    ids: Sequence[str], topics: Int[ndarray, " samples"], *, num_samples: int, temperature: float, seed: int = 0
) -> Filtered:
    """Draw `num_samples` without replacement, topics in proportion to size ** (1 / temperature).

    Temperature 1 keeps the topics' shares, a large one evens them out; a topic too small for its share is kept whole
    and the others fill up.

    Raises:
        LabError: not one topic a sample, `num_samples` outside 0 to all, or a temperature below 1 or not finite.
    """
    if not 1 <= temperature < math.inf:
        raise LabError(f"temperature is {temperature}, expected a finite number of at least 1")
    if not 0 <= num_samples <= len(ids):
        raise LabError(f"num_samples is {num_samples}, expected 0 to {len(ids)}, as many as there are")
    quotas = balanced_quotas(_sizes(ids, topics), num_samples, temperature)
    parameters = {"num_samples": num_samples, "temperature": temperature, "seed": seed}
    return _drawn(ids, topics, quotas, seed, "balance_topics", parameters)


def balanced_quotas(sizes: Int[ndarray, " topics"], total: int, temperature: float) -> Int[ndarray, " topics"]:
    """How many to draw of each topic, `total` in all, none more than it has.

    >>> balanced_quotas(np.array([90, 9, 1]), 10, 1.0).tolist(), balanced_quotas(np.array([90, 9, 1]), 10, 100).tolist()
    ([9, 1, 0], [5, 4, 1])
    """
    weights = np.where(sizes > 0, np.maximum(sizes, 1).astype(np.float64) ** (1 / temperature), 0.0)
    quotas, fixed = np.zeros(len(sizes)), sizes == 0
    while not fixed.all():
        left = total - sizes[fixed].sum()
        share = left * weights / weights[~fixed].sum()
        over = ~fixed & (share >= sizes)
        if not over.any():
            quotas[~fixed] = share[~fixed]
            break
        fixed |= over
    quotas[fixed] = sizes[fixed]
    whole = np.floor(quotas + 1e-9).astype(np.int64)
    # What rounding down leaves goes to the largest remainders, the larger topic first.
    order = np.lexsort((-sizes, -(quotas - whole)))
    order = order[whole[order] < sizes[order]]
    whole[order[: total - whole.sum()]] += 1
    return whole


def topic_reports(
    texts: Sequence[str], topics: Int[ndarray, " samples"], keep: Bool[ndarray, " samples"]
) -> list[Topic]:
    """An account of each topic: how many of how many stay, its first text that stays, and its own words.

    Raises:
        LabError: not one text and one decision a sample.
    """
    if not len(texts) == len(topics) == len(keep):
        raise LabError(f"{len(texts)} texts, {len(topics)} topics and {len(keep)} decisions; expected one each")
    everywhere: Counter[str] = Counter()
    own: dict[int, Counter[str]] = {}
    members: dict[int, list[int]] = {}
    for i, (text, topic) in enumerate(zip(texts, topics.tolist(), strict=True)):
        held = set(words(text.lower()))
        everywhere.update(held)
        own.setdefault(topic, Counter()).update(held)
        members.setdefault(topic, []).append(i)
    reports = []
    for topic, samples in sorted(members.items()):
        telling = {word: count * math.log(len(texts) / everywhere[word]) for word, count in own[topic].items()}
        best = sorted(telling, key=lambda word: (-telling[word], word))[:NUM_WORDS]
        stays = [i for i in samples if keep[i]]
        example = texts[(stays or samples)[0]]
        reports.append(
            Topic(number=topic, num_samples=len(samples), num_kept=len(stays), example=example, words=tuple(best))
        )
    return reports


def _sizes(ids: Sequence[str], topics: Int[ndarray, " samples"]) -> Int[ndarray, " topics"]:
    if len(ids) != len(topics):
        raise LabError(f"{len(topics)} topics for {len(ids)} samples; expected one each")
    return np.bincount(topics) if len(topics) else np.zeros(0, dtype=np.int64)


def _drawn(
    ids: Sequence[str],
    topics: Int[ndarray, " samples"],
    quotas: Int[ndarray, " topics"],
    seed: int,
    name: str,
    parameters: dict[str, float],
) -> Filtered:
    """Keep `quotas` of each topic by a seeded shuffle of all."""
    if seed < 0:
        raise LabError(f"seed is {seed}, expected at least 0")
    left = quotas.tolist()
    reasons: list[str | None] = [FULL] * len(ids)
    for i in np.random.default_rng(seed).permutation(len(ids)).tolist():
        if left[topics[i]]:
            left[topics[i]] -= 1
            reasons[i] = None
    return filtered(ids, reasons, name=name, parameters=parameters)
