import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lab.data.filters import near_duplicates as module
from lab.data.filters.filtering import Filtered
from lab.data.filters.near_duplicates import NearDuplicates, bands_and_rows, shingles
from lab.data.filters.quality import words
from lab.errors import LabError

WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in ("an", "el", "or", "ip") for c in ("", "st", "ma", "rik", "o")]


def corpus(count: int, seed: int) -> list[str]:
    """Sentences, a third of them edits of earlier ones by one to three words."""
    rng = random.Random(seed)
    texts: list[str] = []
    for _ in range(count):
        if texts and rng.random() < 0.33:
            edited = rng.choice(texts).split()
            for _ in range(rng.randint(1, 3)):
                edited[rng.randrange(len(edited))] = rng.choice(WORDS)
            texts.append(" ".join(edited))
        else:
            texts.append(" ".join(rng.choices(WORDS, k=rng.randint(8, 20))))
    return texts


def near_duplicates(texts: list[str], **options: Any) -> Filtered:
    rows = pa.table(
        {"id": pa.array([f"s{n}" for n in range(len(texts))], pa.string()), "text": pa.array(texts, pa.string())}
    )
    return NearDuplicates(columns=("text",), **options).apply(rows)


def pieces(text: str, size: int) -> set[str]:
    return {text[i : i + size] for i in range(max(1, len(text) - size + 1))}


def overlap(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


def slow_first(texts: list[str], threshold: float, size: int) -> list[int]:
    sets = [pieces(text, size) for text in texts]
    first: list[int] = []
    for j in range(len(texts)):
        same = (i for i in range(j) if first[i] == i and overlap(sets[i], sets[j]) >= threshold)
        first.append(next(same, j))
    return first


def test_what_goes_overlaps_one_that_stays_and_little_is_missed():
    texts = corpus(300, seed=0)
    keep = near_duplicates(texts, threshold=0.7).keep
    for sample in np.flatnonzero(~keep):
        earlier = np.flatnonzero(keep[:sample])
        assert any(overlap(pieces(texts[other], 5), pieces(texts[sample], 5)) >= 0.7 for other in earlier)
    expected = np.array(slow_first(texts, 0.7, 5)) != np.arange(300)
    assert expected.sum() > 30
    assert (~keep & expected).sum() >= 0.95 * expected.sum()


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95, 1.0])
def test_bands_find_what_is_promised_and_one_row_more_would_not(threshold):
    def found(rows: int) -> float:
        """A pair is missed if every band differs in a row."""
        missed = 1.0
        for _ in range(128 // rows):
            missed *= 1 - threshold**rows
        return 1 - missed

    bands, rows = bands_and_rows(threshold, 128)
    assert bands == 128 // rows
    assert found(rows) >= 0.95
    assert all(found(more) < 0.95 for more in range(rows + 1, 129))


def test_of_pairs_at_the_threshold_as_many_are_found_as_promised():
    """Each pair shares 20 of the 25 characters of its texts, an overlap of 0.8, and nothing with other pairs."""
    texts = []
    for pair in range(200):
        own = [chr(0x4E00 + 25 * pair + number) for number in range(25)]
        texts += ["".join(own[:22]), "".join(own[2:])]
    keep = near_duplicates(texts, threshold=0.8, shingle_size=1).keep
    assert keep[::2].all()
    assert (~keep[1::2]).mean() >= 0.9


def test_equal_texts_go_in_every_writing():
    texts = ["What is AI?", "what  is ai?", "Something else entirely.", "\uff37hat is AI\uff1f"]
    result = near_duplicates(texts, threshold=1.0)
    assert result.keep.tolist() == [True, False, True, False]
    assert result.dropped == {"reads as an earlier row": 2}
    assert result.examples == {"kept": ("s0", "s2"), "reads as an earlier row": ("s1", "s3")}


def test_chinese_without_blanks_is_compared_too():
    texts = [
        "请用一句话描述这张图片里的动物在做什么",
        "请用一句话描述这张图片里的动物正在做什么",
        "今天天气怎么样我们出去走走好吗朋友们",
    ]
    assert near_duplicates(texts, threshold=0.7, shingle_size=3).keep.tolist() == [True, False, True]


def test_shingles_are_neighbours_and_short_texts_are_one():
    assert shingles("AB c", 2) == {"ab", "b ", " c"}
    assert shingles("ab", 5) == {"ab"}
    assert shingles("  Ａb\n\tC ", 9) == {"ab c"}


def test_words_of_any_script():
    assert words("Don't stop—it's 3.5 km, 你好吗 (ok)") == [
        "Don't",
        "stop",
        "it's",
        "3",
        "5",
        "km",
        "你",
        "好",
        "吗",
        "ok",
    ]


def test_a_corpus_of_one_template_is_quick_and_leaves_one():
    texts = [f"Describe in detail and step by step what happens in the video number {n}" for n in range(400)]
    assert near_duplicates(texts, threshold=0.8).num_kept == 1


@pytest.mark.parametrize("count", [0, 1])
def test_none_and_one_sample_stay(count):
    assert near_duplicates(["text"][:count], threshold=0.8).num_kept == count


def test_one_seed_repeats_exactly_and_batches_do_not_matter(monkeypatch):
    texts = corpus(200, seed=4)
    once = near_duplicates(texts, threshold=0.6, seed=3).keep
    monkeypatch.setattr(module, "_BATCH", 7)
    assert (near_duplicates(texts, threshold=0.6, seed=3).keep == once).all()


def test_an_empty_text_is_named():
    with pytest.raises(LabError, match="the text of sample 's1' is empty; a step not_empty before it drops such"):
        near_duplicates(["one", " \n"], threshold=0.8)
