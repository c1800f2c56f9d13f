import numpy as np
import pytest
from scipy import stats

from lab.data.filters.loss_filters import normality
from lab.errors import LabError


def test_sizes_and_test_are_scipys():
    values = np.random.default_rng(0).gamma(3, 1.0, 500)
    found = normality(values)
    assert found.mean == pytest.approx(values.mean())
    assert found.std == pytest.approx(values.std())
    assert found.skewness == pytest.approx(stats.skew(values))
    assert found.excess_kurtosis == pytest.approx(stats.kurtosis(values))
    assert found.distance == pytest.approx(stats.kstest(values, "norm", args=(values.mean(), values.std())).statistic)
    assert found.p_value == pytest.approx(stats.normaltest(values).pvalue)
    assert found.outside == pytest.approx(np.mean(np.abs(values - values.mean()) > values.std()))


def test_a_gaussian_is_near_one_and_an_exponential_is_not():
    rng = np.random.default_rng(1)
    near, far = normality(rng.normal(3, 2, 20_000)), normality(rng.exponential(1, 20_000))
    assert near.distance < 0.01 < 0.1 < far.distance
    assert near.outside == pytest.approx(0.317, abs=0.01)
    assert far.skewness == pytest.approx(2, abs=0.3)
    assert near.p_value > 0.001
    assert far.p_value < 1e-9
    assert "a Gaussian has 31.7%" in str(far)


def test_few_values_are_fitted_and_not_tested():
    assert normality(np.array([1.0, 2.0, 4.0])).p_value is None


def test_what_cannot_be_fitted_is_refused():
    for values in ([1.0], [2.0, 2.0]):
        with pytest.raises(LabError, match="a Gaussian is fitted to losses that differ"):
            normality(np.array(values))
