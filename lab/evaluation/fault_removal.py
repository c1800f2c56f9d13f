"""How well a filter removed the planted faults, and the losses by which it did: of text and of pictures alike.

Section 3 of the paper, which tells what its filter is for and not how well it does it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool
from numpy import ndarray

from lab.data.filters.filtering import Filtered
from lab.errors import LabError
from lab.training.tuning import Tuning


def removal_scores(kept: Filtered, planted: Sequence[str | None]) -> dict[str, float]:
    """How well the planted faults were removed, as results of a cell; all but `num_kept` are shares, 0 to 1.

    `removal_precision`: of what was removed, what is faulty (0 where nothing was). `removal_recall`: of what is faulty,
    what was removed (0 where nothing is), and the same by kind of fault.

    Raises:
        LabError: not one judgement a sample.
    """
    if kept.num_samples != len(planted):
        raise LabError(f"a filter judged {kept.num_samples} samples of {len(planted)}")
    removed, faults = ~kept.keep, np.array([fault or "" for fault in planted])
    faulty = faults != ""

    def share(of: Bool[ndarray, " samples"], among: Bool[ndarray, " samples"]) -> float:
        return float(of[among].mean()) if among.any() else 0.0

    return {
        "removal_precision": share(faulty, removed),
        "removal_recall": share(removed, faulty),
        "share_removed": float(removed.mean()),
        "share_faulty_left": share(faulty, kept.keep),
        "num_kept": float(kept.num_kept),
        **{f"removal_recall_{kind}": share(removed, faults == kind) for kind in np.unique(faults[faulty]).tolist()},
    }


def training_losses(kept: Filtered, data: Tuning, *, name: str) -> pd.DataFrame:
    """The scorer's loss of every training instruction, its planted fault, and whether it was kept: what a figure shows.

    One line an instruction, with `source`, `id`, `asked`, `answer`, `fault` (its kind, or `clean`), `loss` and
    `loss_without_prompt` (nats a token; NaN where it was not measured) and `kept`.
    """
    return pd.DataFrame(
        {
            "id": [one.id for one in data.train.samples],
            "asked": [one.asked for one in data.train.samples],
            "answer": [one.answer for one in data.train.samples],
            "fault": [fault or "clean" for fault in data.faults],
            "loss": data.losses.losses,
            "loss_without_prompt": np.nan if data.losses.without_prompt is None else data.losses.without_prompt,
            "kept": kept.keep,
        }
    ).assign(source=name)
