import math

import pandas as pd
import pytest

from lab.data.normalizers import NORMALIZERS, text_errors
from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import error_rate_score, mean_score


def test_an_accuracy_has_nearly_the_interval_of_a_binomial():
    score = mean_score([1.0] * 60 + [0.0] * 140)
    assert score.value == pytest.approx(0.3)
    half = 1.96 * math.sqrt(0.3 * 0.7 / 200)
    assert score.low == pytest.approx(0.3 - half, abs=0.01)
    assert score.high == pytest.approx(0.3 + half, abs=0.01)
    assert (score.metric, score.better, score.num_items) == ("accuracy", "higher", 200)


def test_items_of_one_cluster_are_one_witness():
    right = [1.0] * 60 + [0.0] * 140
    alone, paired = mean_score(right), mean_score(right, [str(at // 10) for at in range(200)])
    assert paired.high - paired.low > 2 * (alone.high - alone.low)


def test_all_right_is_one_and_a_single_item_has_no_interval():
    assert mean_score([1.0] * 5).value == 1.0
    single = mean_score([0.0])
    assert (single.value, single.low, single.high) == (0.0, None, None)
    with pytest.raises(LabError, match="nothing to score: no questions were answered"):
        mean_score([])


def test_a_pooled_error_rate_weighs_utterances_by_their_words():
    table = text_errors(["a b c d", "e"], ["a b c d", "x"], NORMALIZERS["lowercase_alphanumeric"], ["1", "2"])
    table = table.assign(group=table["answer_normalized"])
    score = error_rate_score(table, "word_error_rate")
    assert score.value == pytest.approx(1 / 5)
    assert 0.0 <= score.low <= score.value <= score.high <= 1.0
    assert (score.better, score.num_items) == ("lower", 2)
    with pytest.raises(LabError, match="nothing to score: no utterances were answered"):
        error_rate_score(pd.DataFrame(table.iloc[:0]), "word_error_rate")


def test_points_have_their_mean_and_an_interval_of_items():
    score = mean_score([2.5, 6.5], metric="chat_score", unit="points")
    assert (score.value, score.unit, score.better) == (4.5, "points", "higher")
    assert (score.low, score.high) == (2.5, 6.5)  # of two answers a draw may hold one twice
