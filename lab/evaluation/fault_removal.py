"""How well a filter removed the planted faults, and the losses by which it did: of text and of pictures alike.

Section 3 of the paper, which tells what its filter is for and not how well it does it.
"""

import numpy as np
import pandas as pd

from lab.data.filters.filtering import Filtered
from lab.data.instructions.planted_faults import removal_quality
from lab.training.instruction_filter import ScoredInstructions


def removal_scores(kept: Filtered, data: ScoredInstructions) -> dict[str, float]:
    """How well the planted faults were removed, as results of a cell."""
    return {**removal_quality(kept.keep, data.faults), "num_kept": float(kept.num_kept)}


def training_losses(kept: Filtered, data: ScoredInstructions, *, name: str) -> pd.DataFrame:
    """The scorer's loss of every training instruction, its planted fault, and whether it was kept: what a figure shows.

    One line an instruction, with `source`, `id`, `asked`, `answer`, `fault` (its kind, or `clean`), `loss` and
    `loss_without_prompt` (nats a token; NaN where it was not measured) and `kept`.
    """
    return pd.DataFrame(
        {
            "id": [one.id for one in data.train],
            "asked": [one.asked for one in data.train],
            "answer": [one.answer for one in data.train],
            "fault": [fault or "clean" for fault in data.faults],
            "loss": data.losses.losses,
            "loss_without_prompt": np.nan if data.losses.without_prompt is None else data.losses.without_prompt,
            "kept": kept.keep,
        }
    ).assign(source=name)
