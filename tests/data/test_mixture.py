from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.data.packing import mixture

WEIGHTS = st.lists(st.integers(1, 50), min_size=1, max_size=5)


@given(WEIGHTS, st.integers(1, 300), st.integers(0, 9))
def test_every_kind_has_as_many_steps_as_its_share_says_less_than_one_off(weights, steps, seed):
    shares = {f"k{n}": weight / sum(weights) for n, weight in enumerate(weights)}
    found = mixture(shares, steps, seed=seed)
    assert len(found) == steps
    for kind, share in shares.items():
        assert abs(Counter(found)[kind] - share * steps) < 1


def test_what_is_left_goes_to_the_largest_remainders():
    found = Counter(mixture({"a": 0.5, "b": 0.3, "c": 0.2}, 9, seed=0))
    # 4.5, 2.7 and 1.8: two steps are left of 4 + 2 + 1.
    assert found == {"a": 4, "b": 3, "c": 2}


def test_a_seed_repeats_exactly_and_another_draws_another_order():
    shares = {"image": 0.5, "video": 0.5}
    drawn = [mixture(shares, 40, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert sorted(drawn[0]) == sorted(drawn[2])


@pytest.mark.parametrize("seed", range(3))
def test_one_kind_alone_is_every_step(seed):
    assert mixture({"image": 1.0}, 7, seed=seed) == ["image"] * 7
