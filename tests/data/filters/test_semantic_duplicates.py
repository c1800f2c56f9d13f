import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.data.filters import neighbourhoods, semantic_duplicates
from lab.data.filters.neighbourhoods import everywhere, in_groups, near_clusters
from lab.data.filters.semantic_duplicates import REPEATS, first_of_each, semantic_duplicates_in_groups
from lab.errors import LabError

deduplicate = semantic_duplicates.semantic_duplicates


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


def slow_first(rows: np.ndarray, threshold: float, groups: list[str] | None = None) -> list[int]:
    """One sample after the other against all that stay."""
    first: list[int] = []
    for j in range(len(rows)):
        same = (
            i
            for i in range(j)
            if first[i] == i and (groups is None or groups[i] == groups[j]) and rows[i] @ rows[j] >= threshold
        )
        first.append(next(same, j))
    return first


def test_of_a_chain_only_the_middle_goes():
    rows = on_a_circle(0, 20, 40, 170)
    assert first_of_each(rows, everywhere(4), threshold=0.9).tolist() == [0, 0, 2, 3]


def test_the_first_by_order_stays_whatever_stands_between():
    rows = on_a_circle(90, 0, 91, 1, 92, 2)
    result = deduplicate(list("abcdef"), rows, threshold=0.99)
    assert result.keep.tolist() == [True, True, False, False, False, False]
    assert result.report.dropped == {REPEATS: 4}
    assert result.report.examples[REPEATS] == ("c", "d", "e", "f")


def test_groups_are_deduplicated_apart():
    rows = on_a_circle(0, 1, 0, 1, 90)
    groups = ["film 1", "film 1", "film 2", "film 2", "film 1"]
    result = semantic_duplicates_in_groups(list("abcde"), rows, groups, threshold=0.95)
    assert result.keep.tolist() == [True, False, True, False, True]
    assert "semantic_duplicates_in_groups (threshold = 0.95): 3 of 5 kept" in str(result.report)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), block=st.integers(1, 40), threshold=st.floats(0.5, 0.97))
def test_blocks_and_groups_give_what_one_by_one_does(seed, block, threshold):
    rng = np.random.default_rng(seed)
    rows = unit(rng.standard_normal((60, 3)))
    groups = [str(g) for g in rng.integers(3, size=60)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(semantic_duplicates, "_BLOCK", block)
        patch.setattr(semantic_duplicates, "_PRODUCT", 5 * block)
        assert first_of_each(rows, everywhere(60), threshold=threshold).tolist() == slow_first(rows, threshold)
        grouped = first_of_each(rows, in_groups(groups), threshold=threshold)
    assert grouped.tolist() == slow_first(rows, threshold, groups)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), threshold=st.floats(0.6, 0.99))
def test_with_reach_one_clusters_miss_nothing(seed, threshold):
    rng = np.random.default_rng(seed)
    rows = unit(rng.standard_normal((150, 4)))
    places = near_clusters(rows, threshold=threshold, num_clusters=9, reach=1.0, seed=seed)
    assert first_of_each(rows, places, threshold=threshold).tolist() == slow_first(rows, threshold)


def test_clusters_find_nearly_all_pairs_and_compare_few():
    rows = planted(3000, 64, seed=1)
    places = near_clusters(rows, threshold=0.9, num_clusters=100)
    earlier, later = np.nonzero(np.triu(rows @ rows.T >= 0.9, 1))
    assert len(earlier) > 150
    assert places.compares(earlier, later).mean() >= 0.99
    sizes = np.bincount(places.home, minlength=100)
    assert sizes[places.places].sum() < 0.2 * 3000**2
    found = first_of_each(rows, places, threshold=0.9) != np.arange(3000)
    exact = first_of_each(rows, everywhere(3000), threshold=0.9) != np.arange(3000)
    assert (found & exact).sum() >= 0.99 * exact.sum()
    assert (found & ~exact).sum() <= 0.01 * exact.sum()


def test_half_precision_on_disk_will_do(tmp_path):
    rows = planted(500, 32, seed=2)
    np.save(tmp_path / "rows.npy", rows.astype(np.float16))
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    ids = [str(i) for i in range(500)]
    clear = abs(np.triu(rows @ rows.T, 1) - 0.9).min()
    assert clear > 0
    kept = deduplicate(ids, mapped, threshold=0.8999).keep
    assert (kept != deduplicate(ids, rows, threshold=0.8999).keep).sum() <= 1


def test_small_corpora_are_compared_whole(monkeypatch):
    rows = planted(200, 16, seed=3)
    assert near_clusters(rows, threshold=0.9).num_places == 1
    monkeypatch.setattr(neighbourhoods, "FEWEST_TO_CLUSTER", 100)
    assert near_clusters(rows, threshold=0.9).num_places == 28


def test_of_a_corpus_of_one_text_the_first_stays(monkeypatch):
    monkeypatch.setattr(semantic_duplicates, "_BLOCK", 70)
    rows = np.repeat(on_a_circle(30), 300, axis=0)
    result = deduplicate([str(i) for i in range(300)], rows, threshold=0.9, num_clusters=1)
    assert result.keep.nonzero()[0].tolist() == [0]


@pytest.mark.parametrize("count", [0, 1])
def test_none_and_one_sample_stay(count):
    rows = on_a_circle(*[10.0] * count)
    assert deduplicate(["a"][:count], rows, threshold=0.9).report.num_kept == count
    assert semantic_duplicates_in_groups(["a"][:count], rows, ["g"][:count], threshold=0.9).keep.all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.0}, "threshold is 1.0, expected a cosine between 0 and 1"),
        ({"threshold": 0.9, "reach": 1.5}, "reach is 1.5, expected 0"),
        ({"threshold": 0.9, "num_clusters": 4}, "num_clusters is 4, expected 1 to 3"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(LabError, match=message):
        deduplicate(list("abc"), on_a_circle(0, 40, 80), **options)


def test_an_embedding_that_is_none_is_named():
    rows = on_a_circle(0, 40, 80)
    for value, length in ((np.nan, "nan"), (0.0, "0"), (2.0, "2.83")):
        rows[1] = value
        with pytest.raises(LabError, match=f"embedding of sample 'b' has length {length}, expected 1"):
            deduplicate(list("abc"), rows, threshold=0.9)


def test_one_row_and_one_group_a_sample_are_expected():
    rows = on_a_circle(0, 40, 80)
    with pytest.raises(LabError, match=r"embeddings of shape \(3, 2\) for 2 samples"):
        deduplicate(["a", "b"], rows, threshold=0.9)
    with pytest.raises(LabError, match="1 groups for 3 samples"):
        semantic_duplicates_in_groups(list("abc"), rows, ["g"], threshold=0.9)
