"""Which short texts are near each other: groups joined by shared words, so that a split never parts near questions."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from lab.data.splits import normalize_sentence

# At 0.7, "what is your favorite number" and "what is your number" are near, "what is ai" and "what is nlp" are not.
NEAR = 0.7


def parts_of(text: str) -> frozenset[str]:
    """Words of a text; of a script without blanks, its pairs of neighbouring characters.

    >>> sorted(parts_of("What's AI?")), sorted(parts_of("什么是"))
    (['ai', "what's"], ['么是', '什么'])
    """
    found: set[str] = set()
    for word in normalize_sentence(text).split():
        if len(word) > 1 and not word.isascii():
            found |= {word[i : i + 2] for i in range(len(word) - 1)}
        else:
            found.add(word)
    return frozenset(found)


def near_groups(texts: Sequence[str], together: Iterable[Sequence[int]] = (), *, near: float = NEAR) -> list[int]:
    """Number the group of each text, from 0 in the order in which groups begin.

    Two texts are of one group where their parts' intersection over union is at least `near`, where `together` names
    both, or where a third is of both's group. Exact, by an index of parts; for some ten thousand short texts.

    >>> near_groups(["Who are you?", "Who are you", "What is AI?", "And you?"], [(2, 3)])
    [0, 0, 1, 1]
    """
    from scipy.cluster.hierarchy import DisjointSet  # half a second of import that only this needs

    groups = DisjointSet(range(len(texts)))
    first_of: dict[frozenset[str], int] = {}
    having: dict[str, list[frozenset[str]]] = defaultdict(list)
    for index, text in enumerate(texts):
        parts = parts_of(text)
        if parts in first_of:
            groups.merge(index, first_of[parts])
            continue
        shared = Counter(other for part in parts for other in having[part])
        for other, count in shared.items():
            if count >= near * (len(parts) + len(other) - count):
                groups.merge(index, first_of[other])
        first_of[parts] = index
        for part in parts:
            having[part].append(parts)
    for indices in together:
        for index in indices[1:]:
            groups.merge(index, indices[0])
    numbers: dict[int, int] = {}
    return [numbers.setdefault(groups[index], len(numbers)) for index in range(len(texts))]
