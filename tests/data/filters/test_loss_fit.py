import numpy as np
import pytest
from scipy import stats

from lab.data.filters.loss_filters import normality
from lab.errors import LabError


def test_sizes_and_test_are_scipys() -> None:
    values = np.random.default_rng(0).gamma(3, 1.0, 500)
    distance = stats.kstest(values, "norm", args=(values.mean(), values.std())).statistic
    assert normality(values) == (
        f"skewness {stats.skew(values):+.2f}, excess kurtosis {stats.kurtosis(values):+.2f}, {distance:.2f} from the "
        f"Gaussian, normality test p = {stats.normaltest(values).pvalue:.1g}"
    )


def test_a_gaussian_is_near_one_and_an_exponential_is_not() -> None:
    rng = np.random.default_rng(1)
    assert "0.00 from the Gaussian" in normality(rng.normal(3, 2, 20_000))
    assert "skewness +1.9" in normality(rng.exponential(1, 20_000))


def test_few_values_are_fitted_and_not_tested() -> None:
    assert "test" not in normality(np.array([1.0, 2.0, 4.0]))


def test_what_cannot_be_fitted_is_refused() -> None:
    for values in ([1.0], [2.0, 2.0]):
        with pytest.raises(LabError, match="a Gaussian is fitted to losses that differ"):
            normality(np.array(values))
