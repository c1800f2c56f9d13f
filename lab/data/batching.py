"""Which utterances go together: seeded batches of similar length, so that little of what is computed is padding.

`lengths` are token counts of the joined sequences (prompt, audio tokens, answer).
"""

from collections.abc import Sequence

import numpy as np

from lab.errors import LabError

# Utterances are shuffled, cut into pools of about this many batches, and sorted by length inside a pool only.
# With 96, batches of 16 of 4,000 log-normal lengths (median 60, sigma 0.5) are 3% padding; with 64 4%, with 16 12%.
_POOL_BATCHES = 96


def bucketed_epoch(
    lengths: Sequence[int], *, batch_size: int, seed: int, epoch: int, pool_batches: int = _POOL_BATCHES
) -> list[list[int]]:
    """Batches of indices for one epoch: the same for the same seed and epoch, each utterance once.

    What does not fill a last batch is left out of the epoch (another draw in the next one), unless it is all there is.

    Raises:
        LabError: no utterances, or a batch size below 1.
    """
    if not lengths or batch_size < 1:
        raise LabError(f"batches need utterances and a size of at least 1, not {len(lengths)} and {batch_size}")
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    # Left out before sorting: behind it, the longest utterances of a small corpus would be left out of every epoch.
    order = order[: len(order) // batch_size * batch_size or len(order)]
    batches: list[list[int]] = []
    num_batches = -(-len(order) // batch_size)
    # Pools of nearly the same size: a last one of few batches would be mostly padding.
    for pool in np.array_split(np.arange(num_batches), max(1, round(num_batches / pool_batches))):
        first, last = int(pool[0]) * batch_size, (int(pool[-1]) + 1) * batch_size
        by_length = sorted(order[first:last].tolist(), key=lambda i: lengths[i])
        batches += [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def padding_share(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """Share of the positions computed that are padding, when each batch is padded to its longest."""
    computed = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    real = sum(lengths[i] for batch in batches for i in batch)
    return 1 - real / computed
