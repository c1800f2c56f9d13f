import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.data.filters.topics import FULL, balance_topics, balanced_quotas, cap_topics, find_topics, topic_reports
from lab.errors import LabError


def three_topics() -> tuple[np.ndarray, list[str]]:
    """Six texts about cats, three about rain, one about chess, each topic around an axis of its own."""
    rng = np.random.default_rng(0)
    axes = [0] * 6 + [1] * 3 + [2]
    rows = np.eye(8)[axes] + 0.1 * rng.standard_normal((10, 8))
    texts = (
        [f"the cat number {i} sleeps" for i in range(6)] + [f"the rain of {i} falls" for i in range(3)] + ["the chess"]
    )
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), texts


def test_planted_topics_are_found_and_numbered_by_size():
    rows, _ = three_topics()
    assert find_topics(rows, num_topics=3, seed=1).tolist() == [0] * 6 + [1] * 3 + [2]
    shuffled = np.random.default_rng(2).permutation(10)
    expected = np.array([0] * 6 + [1] * 3 + [2])[shuffled]
    assert find_topics(rows[shuffled], num_topics=3, seed=5).tolist() == expected.tolist()


def test_a_cap_leaves_so_many_of_each_topic():
    topics = np.array([0] * 6 + [1] * 3 + [2])
    ids = [str(i) for i in range(10)]
    result = cap_topics(ids, topics, most=2, seed=3)
    assert np.bincount(topics[result.keep]).tolist() == [2, 2, 1]
    assert result.report.dropped == {FULL: 5}
    assert (cap_topics(ids, topics, most=2, seed=3).keep == result.keep).all()
    draws = {tuple(cap_topics(ids, topics, most=2, seed=seed).keep.tolist()) for seed in range(10)}
    assert len(draws) > 1


def test_temperature_evens_topics_out():
    sizes = np.array([1000, 100, 10])
    assert balanced_quotas(sizes, 111, 1.0).tolist() == [100, 10, 1]
    # Square roots are 31.6, 10 and 3.16 of 44.8.
    assert balanced_quotas(sizes, 45, 2.0).tolist() == [32, 10, 3]
    assert balanced_quotas(sizes, 90, 1e9).tolist() == [40, 40, 10]
    result = balance_topics([str(i) for i in range(1110)], np.repeat([0, 1, 2], sizes), num_samples=90, temperature=1e9)
    assert result.report.num_kept == 90
    assert np.bincount(np.repeat([0, 1, 2], sizes)[result.keep]).tolist() == [40, 40, 10]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=8),
    share=st.floats(0, 1),
    temperature=st.floats(1, 100),
)
def test_quotas_are_as_many_as_asked_and_never_more_than_there_are(sizes, share, temperature):
    total = int(share * sum(sizes))
    quotas = balanced_quotas(np.array(sizes), total, temperature)
    assert quotas.sum() == total
    assert (quotas >= 0).all()
    assert (quotas <= sizes).all()
    # A larger topic never gets fewer.
    order = np.argsort(sizes, kind="stable")
    assert (np.diff(quotas[order]) >= 0).all() or len(set(sizes)) < len(sizes)


def test_a_report_counts_each_topic_and_tells_its_own_words():
    rows, texts = three_topics()
    topics = find_topics(rows, num_topics=3, seed=1)
    keep = np.ones(10, dtype=bool)
    keep[[0, 1, 9]] = False
    cats, rain, chess = topic_reports(texts, topics, keep)
    assert (cats.num_samples, cats.num_kept, cats.example) == (6, 4, "the cat number 2 sleeps")
    assert (rain.num_samples, rain.num_kept, rain.example) == (3, 3, "the rain of 0 falls")
    assert (chess.num_samples, chess.num_kept, chess.example) == (1, 0, "the chess")
    assert set(cats.words[:3]) == {"cat", "number", "sleeps"}
    assert chess.words[0] == "chess"
    assert "the" not in cats.words[:3]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: find_topics(np.eye(3, dtype=np.float32), num_topics=4), "num_topics is 4, expected 1 to 3"),
        (lambda: find_topics(np.full((3, 2), np.nan), num_topics=2), r"the embedding of sample 0 \(from 0\) is not"),
        (lambda: cap_topics(["a"], np.array([0]), most=0), "most is 0, expected at least 1"),
        (lambda: cap_topics(["a"], np.array([0, 1]), most=1), "2 topics for 1 samples"),
        (lambda: cap_topics(["a"], np.array([0]), most=1, seed=-1), "seed is -1"),
        (
            lambda: balance_topics(["a"], np.array([0]), num_samples=2, temperature=1),
            "num_samples is 2, expected 0 to 1",
        ),
        (lambda: balance_topics(["a"], np.array([0]), num_samples=1, temperature=0.5), "temperature is 0.5, expected"),
        (lambda: topic_reports(["a"], np.array([0, 1]), np.array([True])), "1 texts, 2 topics and 1 decisions"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(LabError, match=message):
        call()


def test_one_sample_is_a_topic():
    assert find_topics(np.eye(1, 4, dtype=np.float32), num_topics=1).tolist() == [0]
    assert balance_topics(["a"], np.array([0]), num_samples=1, temperature=2).keep.all()
