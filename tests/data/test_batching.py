import itertools
from collections import Counter

import numpy as np
import pytest

from lab.data.packing import bucketed_epoch, padding_share
from lab.errors import LabError


def realistic_lengths(count: int, seed: int = 0) -> list[int]:
    """Token counts of joined sequences: log-normal, median 60."""
    rng = np.random.default_rng(seed)
    return np.maximum(2, np.round(np.exp(rng.normal(np.log(60), 0.5, count)))).astype(int).tolist()


@pytest.mark.parametrize(("count", "batch_size"), [(100, 16), (64, 16), (1, 1), (700, 7), (2100, 16)])
def test_an_epoch_holds_every_utterance_at_most_once_and_all_but_a_rest(count, batch_size):
    batches = bucketed_epoch(realistic_lengths(count), batch_size=batch_size, seed=0, epoch=0)
    assert {len(batch) for batch in batches} == {batch_size}
    seen = Counter(itertools.chain(*batches))
    assert set(seen.values()) == {1}
    assert len(seen) == count - count % batch_size
    assert set(seen) <= set(range(count))


def test_fewer_utterances_than_a_batch_are_one_batch():
    batches = bucketed_epoch([5, 9, 7], batch_size=16, seed=0, epoch=0)
    assert [sorted(batch) for batch in batches] == [[0, 1, 2]]


def test_no_utterance_of_a_small_corpus_is_left_out_of_every_epoch():
    lengths = list(range(2, 42))
    seen = set()
    for epoch in range(20):
        seen |= set(itertools.chain(*bucketed_epoch(lengths, batch_size=16, seed=0, epoch=epoch)))
    assert seen == set(range(40))


def test_batches_are_those_of_their_seed_and_epoch():
    lengths = realistic_lengths(200)

    def batches(seed: int, epoch: int) -> list[list[int]]:
        return bucketed_epoch(lengths, batch_size=8, seed=seed, epoch=epoch)

    assert batches(1, 2) == batches(1, 2)
    assert batches(1, 2) != batches(1, 3)
    assert batches(1, 2) != batches(2, 2)


def test_batches_do_not_come_in_order_of_length():
    lengths = realistic_lengths(400)
    longest = [max(lengths[i] for i in batch) for batch in bucketed_epoch(lengths, batch_size=8, seed=0, epoch=0)]
    assert longest != sorted(longest)


def test_padding_share_of_a_worked_example():
    # The first batch computes 2 * 4 positions for 4 + 1, the second 3 for 3.
    assert padding_share([4, 1, 3], [[0, 1], [2]]) == pytest.approx(3 / 11)


@pytest.mark.parametrize("count", [1500, 4000, 20000])
@pytest.mark.parametrize("seed", range(3))
def test_at_most_five_percent_of_realistic_batches_are_padding(count, seed):
    lengths = realistic_lengths(count, seed)
    assert padding_share(lengths, bucketed_epoch(lengths, batch_size=16, seed=seed, epoch=0)) <= 0.05


@pytest.mark.parametrize(("lengths", "batch_size"), [([], 4), ([3], 0)])
def test_no_utterances_or_no_batch_size_are_refused(lengths, batch_size):
    expected = f"samples and a size of at least 1, not {len(lengths)} and {batch_size}"
    with pytest.raises(LabError, match=expected):
        bucketed_epoch(lengths, batch_size=batch_size, seed=0, epoch=0)
