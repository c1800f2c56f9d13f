import math
import statistics
import time
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.data.filters.filtering import Filtered
from lab.data.filters.loss_filters import (
    LOSS_COLUMNS,
    LOSS_FILTERS,
    RANDOM,
    SUMMARY,
    Losses,
    filter_losses,
    filter_losses_by_group,
    loss_bounds,
    read_losses,
)
from lab.data.instructions.planted_faults import plant_faults
from lab.errors import LabError
from tests.data.instructions.test_planted_faults import clean

LOSSES = st.lists(st.floats(0.01, 20), min_size=3, max_size=40).filter(lambda v: statistics.pstdev(v) > 1e-6)
FITTED = [name for name, chosen in LOSS_FILTERS.items() if chosen.uses_k]


def losses_of(losses, without=None):
    alone = None if without is None else np.asarray(without, dtype=np.float64)
    return Losses([f"s{n}" for n in range(len(losses))], np.asarray(losses, dtype=np.float64), alone)


def slow_reasons(name, losses, without, k):
    """One sample at a time, by the definitions, from the standard library."""
    values = [math.log(v) for v in losses] if name == "log_gaussian" else losses
    low, high = -math.inf, math.inf
    if "gaussian" in name:
        mean, sigma = statistics.fmean(values), statistics.pstdev(values)
        low, high = mean - k * sigma, mean + k * sigma
    if name == "gaussian_low":
        high = math.inf
    if name == "gaussian_high":
        low = -math.inf
    if name == "median_mad":
        middle = statistics.median(values)
        spread = 1.4826 * statistics.median([abs(v - middle) for v in values])
        low, high = middle - k * spread, middle + k * spread
    if name == "ifd":
        ratios = [a / b for a, b in zip(losses, without, strict=True)]
        return [None if r <= 1 else "answer less likely with its prompt" for r in ratios], ratios, 1.0, 1.0
    return [
        "loss below the bound" if v < low else "loss above the bound" if v > high else None for v in values
    ], values, low, high  # fmt: skip


@pytest.mark.parametrize("name", LOSS_FILTERS)
@given(losses=LOSSES, k=st.floats(0, 3), data=st.data())
def test_a_filter_is_what_the_slow_one_is_with_its_whole_account(name, losses, k, data):
    without = data.draw(st.lists(st.floats(0.01, 20), min_size=len(losses), max_size=len(losses)))
    reasons, values, low, high = slow_reasons(name, losses, without, k)
    # A value on its bound may fall to either side by rounding.
    if any(abs(v - bound) < 1e-9 for v in values for bound in (low, high)):
        return
    parameters = {"k": k} if name in FITTED else {}
    expected = Filtered(losses_of(losses).ids, reasons, name=name, parameters=parameters)
    found = filter_losses(losses_of(losses, without), name, k=k)
    assert found.keep.tolist() == expected.keep.tolist()
    assert found.reasons.tolist() == expected.reasons
    assert (found.name, found.parameters) == (expected.name, expected.parameters)
    assert list(found.dropped.items()) == list(expected.dropped.items())
    assert found.examples == expected.examples


def write(path, losses, *, without=None, start=0, row_group_size=1000):
    columns = {
        "id": [f"s{n}" for n in range(start, start + len(losses))],
        "loss": losses,
        "loss_without_prompt": [None] * len(losses) if without is None else without,
        "num_tokens": [3] * len(losses),
        "prompt_tokens": [2] * len(losses),
    }
    pq.write_table(pa.table(columns, schema=LOSS_COLUMNS), path, row_group_size=row_group_size)
    return path


@pytest.mark.parametrize("name", [*LOSS_FILTERS, RANDOM])
def test_files_in_pieces_give_what_memory_gives(tmp_path, name):
    rng = np.random.default_rng(0)
    losses, without = rng.gamma(4, 0.5, 250), rng.gamma(4, 0.5, 250)
    write(tmp_path / "part-0.parquet", losses[:130], without=without[:130], row_group_size=7)
    write(tmp_path / "part-1.parquet", losses[130:], without=without[130:], start=130, row_group_size=50)
    (tmp_path / SUMMARY).write_text("{}")
    found = filter_losses(read_losses(tmp_path), name, seed=5)
    expected = filter_losses(losses_of(losses, without), name, seed=5)
    assert found.reasons.tolist() == expected.reasons.tolist()
    assert (found.name, found.parameters) == (expected.name, expected.parameters)
    assert dict(found.dropped) == dict(expected.dropped)
    assert dict(found.examples) == dict(expected.examples)


@pytest.mark.parametrize("like", LOSS_FILTERS)
def test_random_drops_as_many_as_the_filter_it_controls_and_others_by_seed(like):
    rng = np.random.default_rng(1)
    losses, without = rng.gamma(4, 0.5, 300), rng.gamma(4, 0.5, 300)
    source = losses_of(losses, without)
    other = filter_losses(source, like, k=0.7)
    drawn = [filter_losses(source, RANDOM, k=0.7, like=like, seed=seed) for seed in (0, 0, 1)]
    assert {one.num_dropped for one in drawn} == {other.num_dropped}
    assert drawn[0].keep.tolist() == drawn[1].keep.tolist()
    if other.num_dropped:
        assert drawn[0].keep.tolist() != drawn[2].keep.tolist()


@pytest.mark.parametrize("seed", range(4))
def test_random_knows_nothing_of_faults_that_were_planted_with_the_same_seed(seed):
    planted = plant_faults(clean(2000), share=0.3, seed=seed)
    losses = np.random.default_rng(9).gamma(4, 0.5, 2000)
    removed = filter_losses(losses_of(losses), RANDOM, seed=seed)
    faulty = np.array([fault is not None for fault in planted.faults])
    assert faulty[~removed.keep].mean() == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize("name", FITTED)
def test_a_larger_k_keeps_whatever_a_smaller_one_keeps(name):
    losses = np.random.default_rng(2).gamma(2, 1.0, 400)
    keeps = [filter_losses(losses_of(losses), name, k=k).keep for k in (0, 0.5, 1, 2, 5)]
    for smaller, larger in pairwise(keeps):
        assert not (smaller & ~larger).any()


def test_a_loss_that_is_none_is_named_with_its_sample(tmp_path):
    for value, shown in ((math.nan, "nan"), (math.inf, "inf"), (-1.0, "-1.0")):
        for name in LOSS_FILTERS:
            with pytest.raises(LabError, match=f"the loss of sample 's1' is {shown}; expected a finite number"):
                filter_losses(losses_of([1.0, value, 2.0], [1.0, 1.0, 1.0]), name)
    with pytest.raises(LabError, match="the loss of sample 's5' is nan"):
        filter_losses(read_losses(write(tmp_path / "a.parquet", [1.0, 2, 3, 4, 5, math.nan], row_group_size=4)), "none")


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize("losses", [[4.1] * 3, [0.1] * 7])
def test_equal_losses_cannot_be_told_apart(name, losses):
    with pytest.raises(LabError, match=f"all {len(losses)} losses are equal, so a filter cannot tell them apart"):
        filter_losses(losses_of(losses), name)


@pytest.mark.parametrize("name", [*LOSS_FILTERS, RANDOM])
def test_a_corpus_of_one_sample_and_k_below_0_are_refused(name):
    with pytest.raises(LabError, match=r"needs losses of at least two samples, not 1|all 1 losses are"):
        filter_losses(losses_of([1.0], [2.0]), name)
    for k in (-0.5, math.nan, math.inf):
        with pytest.raises(LabError, match=f"k is {k}; expected at least 0"):
            filter_losses(losses_of([1.0, 2.0], [1.0, 2.0]), name, k=k)


def test_other_bad_input_is_named(tmp_path):
    source = losses_of([0.0, 2.0])
    with pytest.raises(LabError, match=r"unknown loss filter 'gausian' .*did you mean 'gaussian'.*random"):
        filter_losses(source, "gausian")
    with pytest.raises(LabError, match=r"the loss of sample 's0' is 0\.0 and has no logarithm"):
        loss_bounds(source, "log_gaussian")
    with pytest.raises(LabError, match=r"'s0' is 0\.0, and there is none without the prompt, by which 'ifd' divides"):
        loss_bounds(source, "ifd")
    with pytest.raises(LabError, match=r"sample 's1' is 2\.0, and there is none without"):
        filter_losses(read_losses(write(tmp_path / "i.parquet", [1.0, 2.0], without=[1.0, None])), "ifd")
    with pytest.raises(LabError, match="there are 1 losses for 2 samples"):
        Losses(["a", "b"], np.ones(1))


def test_files_that_are_cut_mixed_or_unfinished_are_named(tmp_path):
    good = write(tmp_path / "part-0.parquet", [1.0, 2.0])
    with pytest.raises(LabError, match=r"is not finished \(no summary.json\); run the same `lab score` again"):
        read_losses(tmp_path)
    (tmp_path / SUMMARY).write_text("{}")
    (tmp_path / "part-1.parquet").write_bytes(good.read_bytes()[:-9])
    with pytest.raises(LabError, match=r"part-1\.parquet cannot be read as Parquet"):
        read_losses(tmp_path)
    pq.write_table(pa.table({"id": ["a"], "loss": ["high"]}), tmp_path / "part-1.parquet")
    with pytest.raises(LabError, match=r"column 'loss' of .*part-1\.parquet is string, expected double"):
        read_losses(tmp_path)
    with pytest.raises(LabError, match="holds no losses; expected a Parquet file, or a folder"):
        read_losses(tmp_path / "nothing.parquet")


def test_six_hundred_thousand_losses_are_fitted_and_filtered_in_two_seconds_of_processor_time(tmp_path):
    losses = np.random.default_rng(0).gamma(4, 0.5, 600_000)
    columns = {"id": pa.array(np.arange(600_000).astype(str)), "loss": losses, "loss_without_prompt": losses[::-1]}
    columns |= {name: pa.array(np.full(600_000, 20), pa.int32()) for name in ("num_tokens", "prompt_tokens")}
    pq.write_table(pa.table(columns, schema=LOSS_COLUMNS), tmp_path / "all.parquet", row_group_size=2048)
    begun = time.process_time()
    result = filter_losses(read_losses(tmp_path / "all.parquet"), "gaussian")
    assert time.process_time() - begun < 2
    kept = np.abs(losses - losses.mean()) <= losses.std()
    assert result.keep.tolist() == kept.tolist()


RNG = np.random.default_rng(0)
# An easy and a hard task, in turn: a fit to all would drop the ends of both alone.
GROUPS = ["easy", "hard"] * 60
LOSSES = np.where(np.array(GROUPS) == "easy", RNG.gamma(4, 0.1, 120), 5 + RNG.gamma(4, 0.5, 120))
WITHOUT = LOSSES * RNG.uniform(0.8, 1.3, 120)
IDS = [f"s{n}" for n in range(120)]


@pytest.mark.parametrize("name", LOSS_FILTERS)
def test_every_group_is_filtered_as_if_it_were_alone(name):
    found = filter_losses_by_group(Losses(IDS, LOSSES, WITHOUT), GROUPS, name, k=0.8)
    for group in ("easy", "hard"):
        members = [n for n in range(120) if GROUPS[n] == group]
        alone = filter_losses(Losses([IDS[n] for n in members], LOSSES[members], WITHOUT[members]), name, k=0.8)
        assert found.keep[members].tolist() == alone.keep.tolist()
        assert found.dropped.get(f"out of the bounds of {group}", 0) == alone.num_dropped
    assert found.num_samples == 120


def test_a_group_that_cannot_be_fitted_and_groups_that_do_not_fit_are_named():
    with pytest.raises(LabError, match=r"group 'rare': all 1 losses are equal|group 'rare': .* not 1"):
        filter_losses_by_group(Losses(IDS, LOSSES), [*GROUPS[:-1], "rare"], "gaussian")
    with pytest.raises(LabError, match="there are 3 groups for 120 losses"):
        filter_losses_by_group(Losses(IDS, LOSSES), GROUPS[:3], "gaussian")
    with pytest.raises(LabError, match=r"group 'easy': the loss of sample .* and there is none without the prompt"):
        filter_losses_by_group(Losses(IDS, LOSSES), GROUPS, "ifd")
