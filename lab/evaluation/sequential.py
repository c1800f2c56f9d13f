"""Looking at a claim again and again as seeds are added: when to look, and at which level.

Who looks at a 95% interval after every few seeds and stops as soon as it decides is wrong far more often than 5 times
in 100 (Armitage, McPherson & Rowe, Repeated significance tests on accumulating data, JRSS A 132, 1969). So the 5% are
divided among the looks, as Lan & DeMets spend a level over interim analyses (Discrete sequential boundaries for
clinical trials, Biometrika 70, 1983), and each look's interval has its own share: a repeated confidence interval
(Jennison & Turnbull, JRSS B 51, 1989), all of which hold at once with 95% confidence, whenever and why ever it ends.

That the shares add up to 5% is enough by Bonferroni's inequality (P(any miss) <= sum of P(miss)), however the looks
depend on each other. They do so in no textbook's way: later looks hold the earlier seeds, and all of them the same test
sentences, so a boundary from the joint distribution of independent increments would not be safe here. It costs little:
simulated, 3 to 4% of sweeps with four looks ever leave the truth out, and 15% would with 95% at each look.

Looks are at `first`, twice, four times... as many seeds. The numbers follow from the first alone, because a share holds
for a number of seeds that was fixed beforehand: had the forecast of the last look chosen it, misses could collect at
the numbers that it likes to choose (Proschan, Follmann & Waclawiw, Biometrics 48, 1992). Doubling keeps the looks, and
so the price of each, few. To look less often, or to stop for want of time or hope, is always safe.

How the shares were chosen: simulated with looks at 3, 6, 12 and 24 seeds (normal seeds, no sentences), equal shares
decide 88% of the cases whose effect is 0.8 standard deviations between seeds, and shares of 1 / (k (k + 1)), which need
no number of looks to be known, 73%; for effects of 2 deviations both need 7 seeds on average. Equal shares leave
nothing for looks that nobody planned, so a tenth is kept for those: a maximum that was raised, cells measured anew.
"""

import math

from lab.errors import LabError

ALPHA = 0.05
KEPT = 0.1
"""The part of `ALPHA` for looks beyond those planned."""
# 100,000 draws of 4 rows by 24 seeds are 77 MB.
_MOST_RESAMPLES = 100_000


def look_sizes(first: int, most: int) -> list[int]:
    """The numbers of seeds at which to look: `first`, doubled for as long as `most` allows.

    Raises:
        LabError: fewer than two seeds to begin with, or more than `most`.
    """
    if first < 2:
        raise LabError(f"{first} seed does not show how much seeds differ; looks begin with two or more")
    if first > most:
        seeds = "seed is" if most == 1 else "seeds are"
        raise LabError(f"at most {most} {seeds} wanted, but {first} were run or are asked for already; allow more")
    return [first * 2**doubled for doubled in range((most // first).bit_length())]


def look_level(look: int, planned: int) -> float:
    """The level of the `look`-th look (from 1) where `planned` were meant to be taken; all together at most `ALPHA`.

    Those planned share 1 - `KEPT` of it equally. The j-th beyond has `KEPT` / (j (j + 1)), which adds up to `KEPT`
    however many there are.
    """
    if look < 1 or planned < 1:
        raise LabError(f"looks are counted from 1; got look {look} of {planned}")
    if look <= planned:
        return ALPHA * (1 - KEPT) / planned
    beyond = look - planned
    return ALPHA * KEPT / (beyond * (beyond + 1))


def resamples_at(confidence: float) -> int:
    """How many resamples leave as many draws beyond an interval's ends as the usual number does at 95%.

    With four looks an end is the 0.56% quantile. 10,000 resamples (20,000 draws) would leave 112 beyond it, and the
    half width would vary from one bootstrap to the next by 0.7% of itself rather than 0.5%; with these 44,000 it is
    0.4%. The most is reached at 99.5%.
    """
    from lab.evaluation.statistics import NUM_RESAMPLES  # with pandas, which levels do without

    return min(_MOST_RESAMPLES, max(NUM_RESAMPLES, math.ceil(round(NUM_RESAMPLES * ALPHA / (1 - confidence), 6))))
