import numpy as np
import pytest

from lab.data.filters.filtering import NUM_EXAMPLES, Filtered, first_reason
from lab.errors import LabError


def test_every_dropped_sample_is_counted_under_its_reason():
    ids = [f"s{i}" for i in range(10)]
    reasons = ["empty" if i % 3 == 0 else "too long" if i == 1 else None for i in range(10)]
    result = Filtered(ids, reasons, name="lengths", parameters={"most": 5})
    assert result.dropped == {"empty": 4, "too long": 1}
    assert result.num_dropped == 5
    assert result.num_kept == result.keep.sum() == 5
    assert [ids[i] for i in result.keep.nonzero()[0]] == ["s2", "s4", "s5", "s7", "s8"]
    assert str(result) == "lengths (most = 5): 5 of 10 kept; dropped: 4 empty, 1 too long"


def test_the_first_samples_of_each_reason_can_be_read():
    result = Filtered(
        [str(i) for i in range(40)], ["odd" if i % 2 else None for i in range(40)], name="f", parameters={}
    )
    assert result.examples["odd"] == tuple(str(i) for i in range(1, 2 * NUM_EXAMPLES, 2))
    assert result.examples["kept"] == tuple(str(i) for i in range(0, 2 * NUM_EXAMPLES, 2))


def test_a_filter_that_judges_too_few_samples_is_refused():
    with pytest.raises(LabError, match="filter 'f' judged 1 samples of 2"):
        Filtered(["a", "b"], [None], name="f", parameters={})


def test_the_reason_of_a_sample_is_the_first_that_holds():
    rules = {"empty": np.array([True, True, False, False]), "short": np.array([True, False, True, False])}
    assert first_reason(rules).tolist() == ["empty", "empty", "short", None]
