"""Made-up per-utterance results of many cells, for the tests of this folder."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

Cell = tuple[str, int]  # projector, downsample rate


def results(
    rates: Mapping[Cell, float],
    *,
    num_seeds: int = 3,
    num_utterances: int = 60,
    seed_spread: float = 0.01,
    utterance_spread: float = 0.1,
    rng_seed: int = 0,
) -> pd.DataFrame:
    """Binomial errors about the rate of each cell, with an effect of its seeds and one of its utterances."""
    rng = np.random.default_rng(rng_seed)
    lengths = rng.integers(10, 40, num_utterances)
    lines = []
    for (projector, rate), mean in rates.items():
        of_utterance = rng.normal(0, utterance_spread, num_utterances)
        for seed in range(num_seeds):
            probability = np.clip(mean + of_utterance + rng.normal(0, seed_spread), 0, 1)
            for u, (length, errors) in enumerate(zip(lengths, rng.binomial(lengths, probability), strict=True)):
                lines.append((f"{projector} {rate}", projector, rate, seed, f"u{u}", f"text {u}", length, errors))
    columns = ["row", "projector", "downsample_rate", "seed", "id", "group"]
    frame = pd.DataFrame(lines, columns=[*columns, "num_characters", "character_errors"])
    return frame.assign(num_words=5, word_errors=1)


def exact(errors: Mapping[Cell, list[list[int]]], length: int = 10) -> pd.DataFrame:
    """Results with exactly these character errors, `errors[cell][seed][utterance]`."""
    lines = [
        (f"{projector} {rate}", projector, rate, seed, f"u{u}", f"text {u}", length, count)
        for (projector, rate), seeds in errors.items()
        for seed, utterances in enumerate(seeds)
        for u, count in enumerate(utterances)
    ]
    columns = ["row", "projector", "downsample_rate", "seed", "id", "group"]
    return pd.DataFrame(lines, columns=[*columns, "num_characters", "character_errors"])
