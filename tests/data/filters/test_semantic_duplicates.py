import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.data.filters import semantic_duplicates as module
from lab.data.filters.semantic_duplicates import SemanticDuplicates, first_of_like, share_of_clusters
from lab.data.filters.step import as_column


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def on_a_circle(*degrees: float) -> np.ndarray:
    """Embeddings in a plane: the cosine of two is that of the angle between them."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def planted(num_samples: int, width: int, seed: int) -> np.ndarray:
    """Clusters, and for a tenth of the samples a twin at a cosine of 0.86 to 0.99, all shuffled."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((12, width)))
    rows = unit(centres[rng.integers(12, size=num_samples)] + 1.5 * unit(rng.standard_normal((num_samples, width))))
    twins = rows[: num_samples // 10]
    across = rng.standard_normal(twins.shape)
    across = unit(across - (across * twins).sum(1, keepdims=True) * twins)
    cosines = rng.uniform(0.86, 0.99, (len(twins), 1))
    rows[-len(twins) :] = unit(cosines * twins + np.sqrt(1 - cosines**2) * across)
    return rows[rng.permutation(num_samples)]


def slow_stays(rows: np.ndarray, threshold: float, groups: list[str] | None = None) -> list[bool]:
    """One sample after the other against all that stay."""
    stays: list[bool] = []
    for j in range(len(rows)):
        earlier = (i for i in range(j) if stays[i] and (groups is None or groups[i] == groups[j]))
        stays.append(all(rows[i] @ rows[j] < threshold for i in earlier))
    return stays


def known(rows: np.ndarray, groups: list[str]) -> pa.Table:
    return pa.table({"embedding": as_column(rows.astype(np.float32)), "group": pa.array(groups, pa.string())})


def test_of_a_chain_only_the_middle_goes():
    assert first_of_like(on_a_circle(0, 20, 40, 170), threshold=0.9).tolist() == [True, False, True, True]


def test_the_first_by_order_stays_whatever_stands_between():
    rows = on_a_circle(90, 0, 91, 1, 92, 2)
    assert first_of_like(rows, threshold=0.99).tolist() == [True, True, False, False, False, False]


def test_groups_are_deduplicated_apart():
    rows = on_a_circle(0, 1, 0, 1, 90)
    step = SemanticDuplicates(threshold=0.95, within="group")
    groups = ["film 1", "film 1", "film 2", "film 2", "film 1"]
    reasons = step.judge(pa.concat_tables([known(rows[:3], groups[:3]), known(rows[3:], groups[3:])]))
    assert [reason is None for reason in reasons] == [True, False, True, False, True]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), block=st.integers(1, 40), threshold=st.floats(0.5, 0.97))
def test_blocks_and_groups_give_what_one_by_one_does(seed, block, threshold):
    rng = np.random.default_rng(seed)
    rows = unit(rng.standard_normal((60, 3)))
    groups = [str(g) for g in rng.integers(3, size=60)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        assert first_of_like(rows, threshold=threshold).tolist() == slow_stays(rows, threshold)
        step = SemanticDuplicates(threshold=threshold, within="group")
        assert [reason is None for reason in step.judge(known(rows, groups))] == slow_stays(rows, threshold, groups)


def test_clusters_find_nearly_all_that_all_pairs_find(monkeypatch):
    rows = planted(3000, 64, seed=1).astype(np.float16)
    exact = first_of_like(rows, threshold=0.9)
    assert (~exact).sum() > 150
    monkeypatch.setattr(module, "FEWEST_TO_CLUSTER", 100)
    found = first_of_like(rows, threshold=0.9)
    assert (~found & ~exact).sum() >= 0.99 * (~exact).sum()
    assert (~found & exact).sum() <= 0.01 * (~exact).sum()
    # What a row does not look into it cannot find: with a cluster in a hundred some twin is missed.
    assert (first_of_like(rows, threshold=0.9, share=0.001) & ~exact).any()
    assert (first_of_like(rows, threshold=0.9, share=1.0) == exact).all()


def test_the_farther_apart_two_may_be_the_more_clusters_are_looked_into():
    assert [round(share_of_clusters(threshold), 4) for threshold in (0.9, 0.8, 0.7, 0.1)] == [0.05, 0.2, 0.45, 1.0]


def test_of_a_corpus_of_one_text_the_first_stays(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 70)
    rows = np.repeat(on_a_circle(30), 300, axis=0)
    assert first_of_like(rows, threshold=0.9).nonzero()[0].tolist() == [0]


@pytest.mark.parametrize("count", [0, 1])
def test_none_and_one_sample_stay(count):
    rows = on_a_circle(*[10.0] * count)
    assert first_of_like(rows, threshold=0.9).tolist() == [True] * count
    assert SemanticDuplicates(within="group").judge(known(rows, ["g"] * count)).tolist() == [None] * count
