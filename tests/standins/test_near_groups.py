from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from standins.instructions.near_groups import NEAR, near_groups, parts_of

WORDS = st.lists(st.sampled_from(["what", "is", "ai", "your", "name", "a", "robot"]), max_size=6).map(" ".join)


def slow_groups(texts, together, near):
    """Every pair looked at, groups joined until nothing changes."""
    groups = list(range(len(texts)))

    def is_near(i, j):
        a, b = parts_of(texts[i]), parts_of(texts[j])
        return a == b or (len(a & b) > 0 and len(a & b) / len(a | b) >= near)

    pairs = [pair for pair in combinations(range(len(texts)), 2) if is_near(*pair)]
    pairs += [(members[0], other) for members in together for other in members[1:]]
    for _ in texts:
        for i, j in pairs:
            groups = [min(groups[i], groups[j]) if g in (groups[i], groups[j]) else g for g in groups]
    return groups


@given(st.lists(WORDS, min_size=1, max_size=8), st.sampled_from([0.4, NEAR, 1.0]), st.data())
def test_groups_are_those_of_every_pair_looked_at(texts, near, data):
    together = data.draw(st.lists(st.lists(st.integers(0, len(texts) - 1), min_size=1, max_size=3), max_size=2))
    found, slow = near_groups(texts, together, near=near), slow_groups(texts, together, near)
    for i, j in combinations(range(len(texts)), 2):
        assert (found[i] == found[j]) == (slow[i] == slow[j])
    assert sorted(set(found)) == list(range(len(set(found))))


def test_texts_without_blanks_are_near_by_their_pairs_of_characters():
    assert near_groups(["你是什么语言编写的", "你是什么语言编写的呢", "你不是不朽的"]) == [0, 0, 1]
