"""A loss filter fitted to every group of samples by itself: of a corpus of many tasks, a fit to all drops whole tasks.

Answers of an easy task all lie below the mean of a mixed corpus, those of a hard one above it. Differs from the paper,
which tells of one Gaussian and not of what it was fitted to.
"""

from collections.abc import Sequence

import numpy as np

from lab.data.filters.filtering import Filtered, filtered
from lab.data.filters.loss_columns import Batches, losses_in_memory
from lab.data.filters.loss_filters import filter_losses
from lab.errors import LabError


def filter_losses_by_group(batches: Batches, groups: Sequence[str], name: str, *, k: float = 1.0) -> Filtered:
    """Filter each group as `filter_losses` filters a corpus; all losses are in memory, 8 bytes each.

    Args:
        batches: of `losses_in_files` or `losses_in_memory`.
        groups: the group of each sample, in the order of the losses.
        name: in `LOSS_FILTERS`.
        k: as of `filter_losses`.

    Raises:
        LabError: not one group a sample, or what `filter_losses` refuses of a group, which is named.
    """
    ids: list[str] = []
    losses, without = [], []
    for batch in batches():
        ids += [str(one) for one in batch.read_ids()]
        losses.append(batch.losses)
        alone = batch.losses_without_prompt
        without.append(np.full(len(batch.losses), np.nan) if alone is None else alone)
    if len(groups) != len(ids):
        raise LabError(f"there are {len(groups)} groups for {len(ids)} losses; expected one each")
    every, every_alone = np.concatenate(losses), np.concatenate(without)
    reasons: list[str | None] = [None] * len(ids)
    of_group = np.array(groups)
    for group in dict.fromkeys(groups):
        members = np.flatnonzero(of_group == group)
        own = losses_in_memory([ids[i] for i in members], every[members], every_alone[members])
        try:
            kept = filter_losses(own, name, k=k)
        except LabError as error:
            raise LabError(f"group {group!r}: {error}") from error
        for index in members[~kept.keep]:
            reasons[int(index)] = f"out of the bounds of {group}"
    return filtered(ids, reasons, name=name, parameters={"k": k, "fitted_by": "group"})
