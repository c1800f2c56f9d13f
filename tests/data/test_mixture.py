import math
import pickle
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.data.mixture import Draw, Mixture
from lab.errors import LabError

NAMES = ("stamps", "emoji", "scenes", "pages")


@st.composite
def mixtures(draw):
    count = draw(st.integers(1, len(NAMES)))
    weights = draw(st.lists(st.floats(0.02, 5.0), min_size=count, max_size=count))
    return {
        "sizes": {name: draw(st.integers(1, 40)) for name in NAMES[:count]},
        "weights": dict(zip(NAMES, weights, strict=False)),
        "batch_size": draw(st.integers(1, 9)),
        "seed": draw(st.integers(0, 1000)),
    }


def draws_of(mixture, steps):
    return [draw for step in range(steps) for draw in mixture.batch(step)]


def shares_of(weights):
    total = sum(Fraction(weight) for weight in weights.values())
    return {name: Fraction(weight) / total for name, weight in weights.items()}


@given(mixtures(), st.integers(0, 60))
@settings(max_examples=40, deadline=None)
def test_a_batch_depends_on_seed_and_step_alone(arguments, step):
    walked = Mixture(**arguments)
    for earlier in range(step):
        walked.batch(earlier)
    batch = walked.batch(step)
    assert len(batch) == arguments["batch_size"]
    # A mixture that was asked nothing before, and one that resumes there.
    assert Mixture(**arguments).batch(step) == batch
    assert next(Mixture(**arguments).batches(first_step=step)) == batch
    assert pickle.loads(pickle.dumps(walked)).batch(step) == batch
    assert walked.batch(0) == Mixture(**arguments).batch(0)


@given(mixtures())
@settings(max_examples=40, deadline=None)
def test_no_sample_comes_twice_in_an_epoch_of_its_source_and_epochs_follow_one_another(arguments):
    mixture = Mixture(**arguments)
    draws = draws_of(mixture, 80)
    for name, size in arguments["sizes"].items():
        own = [draw for draw in draws if draw.source == name]
        assert [draw.epoch for draw in own] == [place // size for place in range(len(own))]
        assert all(0 <= draw.index < size for draw in own)
        for epoch in range(len(own) // size):
            assert sorted(draw.index for draw in own[epoch * size : (epoch + 1) * size]) == list(range(size))
        rest = [draw.index for draw in own[len(own) // size * size :]]
        assert len(set(rest)) == len(rest)


@given(mixtures())
@settings(max_examples=40, deadline=None)
def test_at_the_end_of_a_block_every_source_is_less_than_one_draw_from_its_share(arguments):
    mixture = Mixture(**arguments)
    counts: Counter[str] = Counter()
    for number in range(6 * mixture.block_size):
        counts[mixture.draw(number).source] += 1
        if (number + 1) % mixture.block_size == 0:
            for name, share in shares_of(arguments["weights"]).items():
                assert abs(counts[name] - share * (number + 1)) < 1


@given(mixtures())
@settings(max_examples=40, deadline=None)
def test_at_every_draw_a_source_is_near_its_share(arguments):
    mixture = Mixture(**arguments)
    counts: Counter[str] = Counter()
    # Less than one off at the block's start, one by its offset inside it, and the offsets of all the others.
    bound = len(arguments["weights"]) + 3
    for number in range(4 * mixture.block_size):
        counts[mixture.draw(number).source] += 1
        for name, share in shares_of(arguments["weights"]).items():
            assert abs(counts[name] - share * (number + 1)) < bound


@given(mixtures(), st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_counts_say_what_the_batches_hold(arguments, steps):
    mixture = Mixture(**arguments)
    held = Counter(draw.source for draw in draws_of(mixture, steps))
    assert mixture.counts(steps) == {name: held[name] for name in arguments["sizes"]}


def test_shares_stay_exact_after_a_million_million_steps():
    mixture = Mixture(sizes={"a": 10, "b": 7}, weights={"a": 0.1, "b": 0.2}, batch_size=8, seed=0)
    steps = 10**12
    exact = Fraction(0.1) / (Fraction(0.1) + Fraction(0.2)) * steps * 8
    assert abs(mixture.counts(steps)["a"] - exact) < 4
    assert sum(mixture.counts(steps).values()) == 8 * steps
    assert len(mixture.batch(steps)) == 8


def test_one_batch_holds_both_sources_near_their_ratio():
    mixture = Mixture(sizes={"image": 99, "video": 50}, weights={"image": 3, "video": 1}, batch_size=16, seed=5)
    for step in range(100):
        assert Counter(draw.source for draw in mixture.batch(step))["video"] in (3, 4, 5)


def test_a_source_left_out_by_weight_zero_is_never_drawn_and_changes_nothing():
    sizes = {"image": 9, "video": 5}
    with_zero = Mixture(sizes=sizes, weights={"image": 0, "video": 1}, batch_size=4, seed=1)
    alone = Mixture(sizes={"video": 5}, weights={"video": 0.3}, batch_size=4, seed=1)
    assert draws_of(with_zero, 20) == draws_of(alone, 20)
    assert with_zero.counts(20) == {"video": 80}


def test_the_order_of_a_source_does_not_depend_on_the_others():
    def own(mixture):
        return [draw for draw in draws_of(mixture, 60) if draw.source == "video"][:30]

    sizes = {"video": 11, "image": 9}
    first = Mixture(sizes=sizes, weights={"video": 1, "image": 1}, batch_size=4, seed=1)
    weights = {"pages": 1, "image": 1, "video": 2}
    second = Mixture(sizes={"pages": 5, **sizes}, weights=weights, batch_size=4, seed=1)
    assert own(first) == own(second)


def test_seeds_epochs_and_sources_are_shuffled_differently():
    def orders(seed):
        mixture = Mixture(sizes={"a": 30, "b": 30}, weights={"a": 1, "b": 1}, batch_size=10, seed=seed)
        draws = draws_of(mixture, 12)
        return [tuple(d.index for d in draws if (d.source, d.epoch) == (s, e)) for s in "ab" for e in (0, 1)]

    assert len(set(orders(0) + orders(1))) == 8
    assert all(order != tuple(range(30)) for order in orders(0))
    sources = [
        [draw.source for draw in draws_of(Mixture(sizes=NINE, weights=NINE, batch_size=10, seed=seed), 6)]
        for seed in range(5)
    ]
    assert len({tuple(order) for order in sources}) > 1


NINE = {"a": 4, "b": 5}


def test_a_draw_names_source_epoch_and_index():
    mixture = Mixture(sizes={"only": 1}, weights={"only": 2.5}, batch_size=2, seed=0)
    assert mixture.batch(1) == [Draw("only", 2, 0), Draw("only", 3, 0)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sizes": {}},
            "a mixture needs a size and a weight for each source, not sizes of nothing and weights of a, b",
        ),
        ({"weights": {"a": 1}}, "not sizes of a, b and weights of a$"),
        ({"weights": {"a": 1, "c": 1}}, "not sizes of a, b and weights of a, c"),
        ({"batch_size": 0}, "batch size and seed are 0 and 0, expected at least 1 and 0"),
        ({"seed": -1}, "batch size and seed are 2 and -1, expected at least 1 and 0"),
        ({"sizes": {"a": 1, "b": 0}}, "source 'b' has 0 samples, expected at least 1"),
        ({"weights": {"a": 1, "b": -0.5}}, "source 'b' has weight -0.5, expected a finite number of at least 0"),
        ({"weights": {"a": math.nan, "b": 1}}, "source 'a' has weight nan, expected a finite"),
        ({"weights": {"a": math.inf, "b": 1}}, "source 'a' has weight inf, expected a finite"),
        ({"weights": {"a": 0, "b": 0}}, "all weights are 0, expected one above 0 among a, b"),
        ({"weights": {"a": 1, "b": 1e-6}}, "source 'b' has share 1e-06, expected at least 1e-05 or 0"),
    ],
)
def test_what_cannot_be_mixed_is_refused(changes, message):
    arguments = {"sizes": {"a": 3, "b": 4}, "weights": {"a": 1, "b": 1}, "batch_size": 2, "seed": 0, **changes}
    with pytest.raises(LabError, match=message):
        Mixture(**arguments)


def test_negative_steps_are_refused():
    mixture = Mixture(sizes={"a": 3}, weights={"a": 1}, batch_size=2, seed=0)
    with pytest.raises(LabError, match="draw or step is -2, expected at least 0"):
        mixture.batch(-1)
    with pytest.raises(LabError, match="draw or step is -1, expected at least 0"):
        mixture.draw(-1)
    with pytest.raises(LabError, match="draw or step is -1, expected at least 0"):
        mixture.counts(-1)
