"""Which kind of data every step of a training stage is of, as a pure function of shares, steps and seed.

So a run that resumes at any step goes on with the batches that it would have had. A share is one of steps; where all
steps hold about as many tokens it is a share of tokens.
"""

from collections.abc import Mapping

import numpy as np


def mixture(shares: Mapping[str, float], steps: int, *, seed: int) -> list[str]:
    """The kind of every step: of each as many as its share says, exact to rounding, in an order that the seed draws.

    >>> sorted(mixture({"image": 0.75, "video": 0.25}, 5, seed=0))
    ['image', 'image', 'image', 'image', 'video']

    Args:
        shares: of each kind, 1 together.
        steps: in all; what rounding down leaves goes to the largest remainders.
        seed: of the order.
    """
    whole = {kind: int(round(share * steps, 9)) for kind, share in shares.items()}
    by_remainder = sorted(shares, key=lambda kind: round(whole[kind] - shares[kind] * steps, 9))
    more = by_remainder[: steps - sum(whole.values())]
    order = [kind for kind in shares for _ in range(whole[kind] + (kind in more))]
    rng = np.random.default_rng([seed, len(order)])
    return [order[i] for i in rng.permutation(len(order))]
