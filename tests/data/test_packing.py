import itertools
import math
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.packing_lengths import read_lengths
from lab.data.packing import PackedEpochs, pack_best_fit
from lab.errors import LabError


def slow_best_fit(lengths: list[int], budget: int) -> list[list[int]]:
    """Longest first, each into the pack with the least space that holds it."""
    packs: list[list[int]] = []
    for length in sorted(lengths, reverse=True):
        fitting = [pack for pack in packs if budget - sum(pack) >= length]
        if fitting:
            min(fitting, key=lambda pack: budget - sum(pack)).append(length)
        else:
            packs.append([length])
    return packs


def fills(packs) -> list[int]:
    return sorted(int(packs.lengths[pack].sum()) for pack in packs)


def test_a_worked_example():
    packs = pack_best_fit([2, 7, 3, 6, 4], 10)
    assert sorted(sorted(pack.tolist()) for pack in packs) == [[0], [1, 2], [3, 4]]
    statistics = packs.statistics()
    assert (statistics.num_samples, statistics.num_packs, statistics.num_tokens) == (5, 3, 22)
    assert statistics.waste == pytest.approx(8 / 30)
    assert str(statistics) == "5 samples (22 tokens) in 3 packs: 1.7 a pack, 26.7% waste"


@given(st.integers(1, 50).flatmap(lambda b: st.tuples(st.just(b), st.lists(st.integers(1, b), min_size=1))))
@settings(max_examples=200, deadline=None)
def test_packs_are_as_full_as_those_of_a_slow_best_fit_and_hold_every_sample_once(case):
    budget, lengths = case
    packs = pack_best_fit(lengths, budget)
    assert fills(packs) == sorted(sum(pack) for pack in slow_best_fit(lengths, budget))
    assert sorted(itertools.chain(*packs)) == list(range(len(lengths)))
    assert max(fills(packs)) <= budget


@pytest.mark.parametrize("budget", [2048, 4096])
@pytest.mark.parametrize("corpus", ["speech", "chat_english", "chat_chinese"])
def test_at_most_two_percent_of_packs_of_the_projects_own_lengths_is_waste(corpus, budget):
    lengths = read_lengths()[corpus]
    # A small corpus ends in a pack that is not full, whoever packs it: it is taken as often as fills 100 packs.
    lengths = np.tile(lengths, math.ceil(100 * budget / lengths.sum()))
    fitting = lengths[lengths <= budget]
    assert len(fitting) > 0.99 * len(lengths)
    assert pack_best_fit(fitting, budget).statistics().waste <= 0.02


def test_a_million_lengths_are_packed_in_seconds():
    lengths = np.clip(np.exp(np.random.default_rng(0).normal(4, 0.8, 1_000_000)), 1, 4096).astype(int)
    before = time.process_time()
    statistics = pack_best_fit(lengths, 4096).statistics()
    # Half a second; the bound leaves room for a busy machine, and none for a search through all packs.
    assert time.process_time() - before < 5
    assert statistics.num_tokens == lengths.sum()
    assert statistics.waste < 0.001


def test_what_is_too_long_is_refused_by_name():
    with pytest.raises(LabError, match="sample 'b' has 12 tokens, more than the budget of 10"):
        pack_best_fit([3, 12, 4, 11], 10, ids=["a", "b", "c", "d"])
    with pytest.raises(LabError, match="sample 1 has 12 tokens"):
        pack_best_fit([3, 12, 4, 11], 10)


@pytest.mark.parametrize(
    ("lengths", "budget", "options", "message"),
    [
        ([], 4, {}, "packing needs samples and a budget of at least 1 token, not 0 and 4"),
        ([1], 0, {}, "packing needs samples and a budget of at least 1 token, not 1 and 0"),
        ([2, 0], 4, {"ids": ["x", "y"]}, "sample 'y' has 0 tokens, expected at least 1"),
    ],
)
def test_what_cannot_be_packed_is_refused(lengths, budget, options, message):
    with pytest.raises(LabError, match=message):
        pack_best_fit(lengths, budget, **options)


def epochs(**options) -> PackedEpochs:
    lengths = np.random.default_rng(0).integers(1, 30, 200)
    return PackedEpochs(**{"lengths": lengths, "budget": 64, "seed": 3, **options})


def steps(order: PackedEpochs, count: int, first_step: int = 0) -> list[list[int]]:
    return [order.pack(step).tolist() for step in range(first_step, first_step + count)]


def test_every_epoch_holds_every_sample_once_in_packs_of_its_own():
    order = epochs()
    size = order.statistics.num_packs
    first, second = steps(order, size), steps(order, size, size)
    for packs in (first, second):
        assert Counter(itertools.chain(*packs)) == Counter(range(200))
    assert {frozenset(pack) for pack in first} != {frozenset(pack) for pack in second}
    assert order.statistics.num_packs == size


@pytest.mark.parametrize("first_step", [0, 1, 40, 100, 1000])
def test_packs_from_any_step_are_those_of_an_undisturbed_run(first_step):
    undisturbed = steps(epochs(), first_step + 5)
    assert steps(epochs(), 5, first_step) == undisturbed[first_step:]
    order = epochs()
    assert [order.pack(first_step + k).tolist() for k in (4, 0)] == [undisturbed[first_step + k] for k in (4, 0)]


def test_another_seed_is_another_order_and_packs_do_not_come_in_order_of_length():
    assert steps(epochs(), 20) != steps(epochs(seed=4), 20)
    counts = [len(pack) for pack in steps(epochs(), epochs().statistics.num_packs)]
    assert counts not in (sorted(counts), sorted(counts, reverse=True))


def test_the_extremes_are_a_pack_with_the_longest_sample_and_one_with_the_most():
    order = epochs(lengths=[3, 10, 2, 9, 4], budget=10)
    assert [pack.tolist() for pack in order.extremes] == [[1], [4, 0, 2]]
    assert [pack.tolist() for pack in epochs(lengths=[3, 10, 2], budget=20).extremes] == [[1, 0, 2]]


def test_one_sample_is_one_pack_in_every_step():
    assert steps(epochs(lengths=[5]), 3) == [[0], [0], [0]]


def test_an_order_of_what_is_too_long_is_refused():
    with pytest.raises(LabError, match="sample 0 has 5 tokens, more than the budget of 4"):
        epochs(lengths=[5], budget=4)
