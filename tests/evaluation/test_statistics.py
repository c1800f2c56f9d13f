from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lab.errors import LabError
from lab.evaluation.statistics import bootstrap_interval, pairwise_comparisons
from lab.evaluation.verdict import interaction
from tests.evaluation.results import exact, results

POOL, CONV = "mean_pool_mlp", "conv_gmlp"
CELLS = {(POOL, 2): 0.30, (CONV, 2): 0.28, (POOL, 8): 0.50, (CONV, 8): 0.40}
CLAIM = {"baseline": POOL, "candidate": CONV, "low_rate": 2, "high_rate": 8, "num_resamples": 2_000}


def same_in_every_utterance(per_seed: dict[tuple[str, int], list[int]], num_utterances: int = 4) -> pd.DataFrame:
    """Errors of 10 characters that differ between seeds and not between utterances."""
    return exact({cell: [[errors] * num_utterances for errors in seeds] for cell, seeds in per_seed.items()})


# Gap at n = 2: 1, 0, 2; at n = 8: 4, 5, 6 errors of 10. Growth by seed: 3, 5, 4; effect 0.4, standard deviation 0.1.
SPREAD_OF_SEEDS = {(POOL, 2): [3, 2, 4], (CONV, 2): [2, 2, 2], (POOL, 8): [7, 9, 8], (CONV, 8): [3, 4, 2]}


def test_pooled_rate_weighs_utterances_by_length() -> None:
    frame = exact({(POOL, 2): [[1, 0], [3, 0]]})
    # 10 and 30 characters: (1 + 3) errors of 2 x 40 characters.
    frame.loc[frame["id"] == "u1", "num_characters"] = 30
    assert bootstrap_interval(frame, f"{POOL} 2", num_resamples=100).estimate == pytest.approx(4 / 80)


def test_interval_between_seeds_alone_is_students() -> None:
    frame = same_in_every_utterance({(POOL, 2): [3, 5, 4]})
    found = bootstrap_interval(frame, f"{POOL} 2")
    low, high = stats.t.interval(0.95, df=2, loc=0.4, scale=0.1 / np.sqrt(3))
    assert (found.low, found.high) == (pytest.approx(low, rel=0.01), pytest.approx(high, rel=0.01))
    assert found.over_seeds


def test_interval_over_utterances_alone_is_scipys_percentile_bootstrap() -> None:
    errors = np.random.default_rng(1).integers(0, 8, 80).tolist()
    reference = stats.bootstrap((np.array(errors) / 10,), np.mean, method="percentile", rng=2).confidence_interval
    for num_seeds in (1, 3):  # three seeds that agree in everything add nothing
        found = bootstrap_interval(exact({(POOL, 2): [errors] * num_seeds}), f"{POOL} 2")
        assert found.low == pytest.approx(reference.low, abs=0.004)
        assert found.high == pytest.approx(reference.high, abs=0.004)
        assert found.over_seeds == (num_seeds == 3)


def test_utterances_of_one_sentence_are_drawn_together() -> None:
    # Every sentence stands four times with the same errors, so 80 utterances know no more than 20.
    errors = np.random.default_rng(3).integers(0, 8, 20).tolist()
    once = exact({(POOL, 2): [errors]})
    four = exact({(POOL, 2): [errors * 4]})
    four["group"] = "text " + (four["id"].str[1:].astype(int) % 20).astype(str)
    of_once, of_four = (bootstrap_interval(frame, f"{POOL} 2") for frame in (once, four))
    assert (of_four.low, of_four.high) == pytest.approx((of_once.low, of_once.high))
    assert (of_four.num_utterances, of_four.num_sentences) == (80, 20)


def test_seeds_that_agree_by_luck_do_not_narrow_the_interval_below_that_over_utterances() -> None:
    # One error in each seed, each in another utterance: seeds agree on the rate and differ in everything else.
    errors = [[8, 0, 0, 0, 0, 0], [0, 0, 8, 0, 0, 0], [0, 0, 0, 0, 8, 0]]
    found = bootstrap_interval(exact({(POOL, 2): errors}), f"{POOL} 2")
    alone = bootstrap_interval(exact({(POOL, 2): [[8 / 3, 0, 8 / 3, 0, 8 / 3, 0]]}), f"{POOL} 2")
    assert found.high - found.low > 0.9 * (alone.high - alone.low)


def test_comparison_of_two_rows_is_the_paired_t_test_where_utterances_are_alike() -> None:
    frame = same_in_every_utterance({(POOL, 8): [7, 9, 8], (CONV, 8): [3, 4, 2]})
    reference = stats.ttest_rel([0.7, 0.9, 0.8], [0.3, 0.4, 0.2])
    line = pairwise_comparisons(frame, [(f"{POOL} 8", f"{CONV} 8")]).iloc[0]
    assert line["difference"] == pytest.approx(0.5)
    assert (line["low"], line["high"]) == pytest.approx(tuple(reference.confidence_interval()), rel=0.02)
    assert line["p_value"] == pytest.approx(reference.pvalue, rel=0.02)


def test_all_pairs_are_compared_and_holm_multiplies_the_smallest_p_by_their_number() -> None:
    table = pairwise_comparisons(results(CELLS), num_resamples=1_000)
    assert len(table) == 6
    ordered = table.sort_values("p_value")
    by_hand = np.minimum(1, np.maximum.accumulate(ordered["p_value"].to_numpy() * np.arange(6, 0, -1)))
    assert ordered["p_value_holm"].to_numpy() == pytest.approx(by_hand)
    assert (table["num_seeds"] == 3).all()
    assert table["over_seeds"].all()


def test_row_equal_to_another_differs_by_nothing() -> None:
    line = pairwise_comparisons(exact({(POOL, 2): [[1, 2], [2, 3]], (CONV, 2): [[1, 2], [2, 3]]})).iloc[0]
    assert (line["difference"], line["low"], line["high"], line["p_value"]) == (0, 0, 0, 1)


def test_swapping_the_rows_of_a_pair_flips_the_sign() -> None:
    frame = results(CELLS)
    one, other = (
        pairwise_comparisons(frame, [pair], num_resamples=1_000).iloc[0]
        for pair in ((f"{POOL} 8", f"{CONV} 8"), (f"{CONV} 8", f"{POOL} 8"))
    )
    assert (one["difference"], one["low"], one["high"]) == pytest.approx(
        (-other["difference"], -other["high"], -other["low"])
    )
    assert one["p_value"] == pytest.approx(other["p_value"])


def test_interaction_is_as_worked_by_hand_and_its_interval_students() -> None:
    found = interaction(same_in_every_utterance(SPREAD_OF_SEEDS), **{**CLAIM, "num_resamples": 10_000})
    assert "goes from 10.00 to 50.00 percentage points" in found.found
    assert found.interval.estimate == pytest.approx(0.4)
    low, high = stats.t.interval(0.95, df=2, loc=0.4, scale=0.1 / np.sqrt(3))
    assert (found.interval.low, found.interval.high) == (pytest.approx(low, rel=0.01), pytest.approx(high, rel=0.01))
    assert found.p_value == pytest.approx(stats.ttest_1samp([0.3, 0.5, 0.4], 0).pvalue, rel=0.01)


@settings(deadline=None, max_examples=8)
@given(rng_seed=st.integers(0, 10_000))
def test_swapping_baseline_and_candidate_flips_the_interaction(rng_seed: int) -> None:
    frame = results(CELLS, rng_seed=rng_seed)
    one = interaction(frame, **CLAIM)
    other = interaction(frame, **{**CLAIM, "baseline": CONV, "candidate": POOL})
    assert one.interval.estimate == pytest.approx(-other.interval.estimate)
    assert (one.interval.low, one.interval.high) == pytest.approx((-other.interval.high, -other.interval.low))
    assert one.p_value == pytest.approx(other.p_value)


@settings(deadline=None, max_examples=8)
@given(rng_seed=st.integers(0, 10_000), low=st.integers(0, 9), high=st.integers(0, 9))
def test_errors_added_to_both_projectors_at_a_rate_leave_the_interaction(rng_seed: int, low: int, high: int) -> None:
    frame = results(CELLS, rng_seed=rng_seed)
    before = interaction(frame, **CLAIM)
    frame["character_errors"] += frame["downsample_rate"].map({2: low, 8: high})
    after = interaction(frame, **CLAIM)
    assert after.interval.estimate == pytest.approx(before.interval.estimate)
    assert (after.interval.low, after.interval.high) == pytest.approx((before.interval.low, before.interval.high))


@settings(deadline=None, max_examples=3)
@given(rng_seed=st.integers(0, 10_000))
def test_order_of_the_lines_does_not_matter(rng_seed: int) -> None:
    frame = results(CELLS)
    shuffled = frame.sample(frac=1, random_state=rng_seed)
    assert interaction(shuffled, **CLAIM) == interaction(frame, **CLAIM)
    pd.testing.assert_frame_equal(
        pairwise_comparisons(shuffled, num_resamples=500), pairwise_comparisons(frame, num_resamples=500)
    )


def test_seeds_to_decide_is_the_first_number_at_which_students_interval_leaves_zero_out() -> None:
    # Growth by seed 0, 2, 4 errors of 10: effect 0.2, standard deviation 0.2; utterances are alike.
    errors = {(POOL, 2): [3, 3, 3], (CONV, 2): [2, 2, 2], (POOL, 8): [4, 6, 8], (CONV, 8): [3, 3, 3]}
    found = interaction(same_in_every_utterance(errors), **{**CLAIM, "num_resamples": 10_000})
    needed = next(k for k in range(3, 100) if stats.t.ppf(0.975, df=k - 1) * 0.2 / np.sqrt(k) < 0.2)
    assert found.seeds_to_decide() == (needed - 3, "if the effect and the spread between seeds stay as estimated")


def test_no_number_of_seeds_decides_what_utterances_leave_open() -> None:
    rng = np.random.default_rng(0)
    errors = {cell: [rng.integers(0, 9, 12).tolist()] * 3 for cell in CELLS}
    found = interaction(exact(errors), **CLAIM)
    assert found.interval.low < 0 < found.interval.high
    assert found.seeds_to_decide() == (
        None,
        "12 utterances leave it open however many seeds are run, unless more of them move the effect further than the "
        "spread of these 3 allows",
    )


def test_effect_that_is_tiny_beside_the_seeds_needs_more_than_any_plan() -> None:
    errors = {(POOL, 2): [30, 30, 30], (CONV, 2): [30, 30, 30], (POOL, 8): [1, 31, 59], (CONV, 8): [30, 30, 30]}
    found = interaction(same_in_every_utterance(errors), **CLAIM)
    assert found.seeds_to_decide() == (
        None,
        "up to 1000 seeds would not decide it if the effect and the spread between seeds stay as estimated, but more "
        "may move both",
    )
    assert not found.hopeless()


def test_one_seed_gives_an_interval_over_utterances_and_no_plan() -> None:
    frame = results(CELLS, num_seeds=1)
    found = interaction(frame, **CLAIM)
    assert not found.interval.over_seeds
    assert found.seeds_to_decide() == (None, "one seed does not show how much seeds differ")
    assert not pairwise_comparisons(frame, num_resamples=500)["over_seeds"].any()


@pytest.mark.parametrize("num_resamples", [500, 2_000, 10_000])
@pytest.mark.parametrize("num_seeds", [1, 3])
def test_effect_of_exactly_zero_is_not_made_positive_by_rounding(num_seeds: int, num_resamples: int) -> None:
    # In floating point (0.7 - 0.6) - (0.5 - 0.4) is -5.6e-17, and its mirror image +5.6e-17.
    cells = {(POOL, 2): 5, (CONV, 2): 4, (POOL, 8): 7, (CONV, 8): 6}
    frame = same_in_every_utterance({cell: [errors] * num_seeds for cell, errors in cells.items()})
    for baseline, candidate in ((POOL, CONV), (CONV, POOL)):
        claim = {**CLAIM, "baseline": baseline, "candidate": candidate, "num_resamples": num_resamples}
        found = interaction(frame, **claim)
        assert (found.interval.low, found.interval.high, found.p_value) == (0, 0, 1)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=4, max_size=4), st.integers(2, 30))
def test_utterances_that_are_alike_add_no_width(per_seed: list[list[int]], num_utterances: int) -> None:
    cells = dict(zip(CELLS, per_seed, strict=True))
    found = interaction(same_in_every_utterance(cells, num_utterances), **CLAIM)
    growth = np.array([1, -1, -1, 1]) @ np.array([cells[c] for c in ((POOL, 8), (CONV, 8), (POOL, 2), (CONV, 2))]) / 10
    width = 2 * stats.t.ppf(0.975, df=2) * growth.std(ddof=1) / np.sqrt(3)
    assert found.interval.high - found.interval.low == pytest.approx(width, rel=0.02, abs=1e-9)


def test_word_errors_are_another_metric() -> None:
    found = bootstrap_interval(results(CELLS), f"{POOL} 2", metric="word_error_rate", num_resamples=100)
    assert found.estimate == pytest.approx(1 / 5)


FRAME = results(CELLS, num_utterances=6)


def without(**values: object) -> pd.DataFrame:
    keep = np.logical_or.reduce([FRAME[name] != value for name, value in values.items()])
    return FRAME[keep]


def compare(frame: pd.DataFrame) -> object:
    return pairwise_comparisons(frame, num_resamples=10)


def claim(frame: pd.DataFrame, **changes: object) -> object:
    return interaction(frame, **{**CLAIM, **changes})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: bootstrap_interval(FRAME, "q_former 2"),
            r"no results of row 'q_former 2'; there are: 'conv_gmlp 2', ",
        ),
        (lambda: bootstrap_interval(FRAME, f"{POOL} 2", metric="bleu"), "unknown metric 'bleu'; choose one of: char"),
        (lambda: bootstrap_interval(pd.DataFrame(), "x"), "lack the column row, which says what each cell is"),
        (lambda: compare(FRAME.drop(columns=["id"])), "lack the columns id; needed: row, seed, "),
        (lambda: compare(FRAME[:0]), "no results of single utterances were given"),
        (
            lambda: compare(pd.concat([FRAME, FRAME[:1]])),
            "row 'mean_pool_mlp 2', seed 0, has two results for utterance 'u0'",
        ),
        (
            lambda: compare(without(row=f"{CONV} 8", seed=2)),
            "of seeds 0, 1, 2 row 'conv_gmlp 8' lacks 2$",
        ),
        (
            lambda: compare(without(row=f"{CONV} 8", seed=2, id="u3")),
            "row 'conv_gmlp 8', seed 2, lacks 1 that other cells have: 'u3'$",
        ),
        (
            lambda: compare(FRAME.assign(group=["other", *FRAME["group"][1:]])),
            "utterance 'u0' has different references in different cells",
        ),
        (lambda: compare(FRAME.assign(group="a")), "needs at least two sentences"),
        (lambda: compare(FRAME.assign(num_characters=0)), "num_characters is 0 in every result"),
        (lambda: compare(FRAME[FRAME["row"] == f"{CONV} 8"]), "at least two rows; there is only 'conv_gmlp 8'"),
        (lambda: pairwise_comparisons(FRAME, []), "no pair of rows was given"),
        (lambda: pairwise_comparisons(FRAME, [(f"{POOL} 2", "x")]), "no results of row 'x'"),
        (lambda: claim(FRAME, low_rate=8), "low downsample rate, 8, must be below the high one, 8"),
        (lambda: claim(FRAME, candidate=POOL), "baseline and candidate are both 'mean_pool_mlp'"),
        (
            lambda: claim(FRAME, high_rate=4),
            "no results of projector 'mean_pool_mlp' at downsample rate 4; there are: conv_gmlp at 2, conv_gmlp at 8, ",
        ),
        (
            lambda: claim(pd.concat([FRAME, FRAME.assign(row=FRAME["row"] + " wide")])),
            "projector 'mean_pool_mlp' at downsample rate 8 is in 2 rows: 'mean_pool_mlp 8', 'mean_pool_mlp 8 wide'",
        ),
        (lambda: claim(FRAME.drop(columns=["projector"])), "lack the columns projector, which say"),
    ],
)
def test_input_that_cannot_be_compared_is_refused_by_name(call: Callable[[], object], message: str) -> None:
    with pytest.raises(LabError, match=message):
        call()


def test_more_than_three_missing_utterances_are_counted_and_not_all_named() -> None:
    lacking = FRAME[(FRAME["row"] != f"{CONV} 8") | (FRAME["id"] == "u0")]
    with pytest.raises(LabError, match=r"lacks 5 that other cells have: 'u1', 'u2', 'u3', \.\.\.$"):
        compare(lacking)
