import numpy as np
import pytest

from lab.data.filters.grouped_loss_filter import filter_losses_by_group
from lab.data.filters.loss_columns import losses_in_memory
from lab.data.filters.loss_filters import LOSS_FILTERS, filter_losses
from lab.errors import LabError

RNG = np.random.default_rng(0)
# An easy and a hard task, in turn: a fit to all would drop the ends of both alone.
GROUPS = ["easy", "hard"] * 60
LOSSES = np.where(np.array(GROUPS) == "easy", RNG.gamma(4, 0.1, 120), 5 + RNG.gamma(4, 0.5, 120))
WITHOUT = LOSSES * RNG.uniform(0.8, 1.3, 120)
IDS = [f"s{n}" for n in range(120)]


@pytest.mark.parametrize("name", LOSS_FILTERS)
def test_every_group_is_filtered_as_if_it_were_alone(name):
    found = filter_losses_by_group(losses_in_memory(IDS, LOSSES, WITHOUT), GROUPS, name, k=0.8)
    for group in ("easy", "hard"):
        members = [n for n in range(120) if GROUPS[n] == group]
        alone = filter_losses(
            losses_in_memory([IDS[n] for n in members], LOSSES[members], WITHOUT[members]), name, k=0.8
        )
        assert found.keep[members].tolist() == alone.keep.tolist()
        assert found.report.dropped.get(f"out of the bounds of {group}", 0) == alone.report.num_dropped
    assert found.report.num_samples == 120


def test_a_group_that_cannot_be_fitted_and_groups_that_do_not_fit_are_named():
    with pytest.raises(LabError, match=r"group 'rare': all 1 losses are equal|group 'rare': .* not 1"):
        filter_losses_by_group(losses_in_memory(IDS, LOSSES), [*GROUPS[:-1], "rare"], "gaussian")
    with pytest.raises(LabError, match="there are 3 groups for 120 losses"):
        filter_losses_by_group(losses_in_memory(IDS, LOSSES), GROUPS[:3], "gaussian")
    with pytest.raises(LabError, match="group 'easy': loss filter 'ifd' divides by the loss without the prompt"):
        filter_losses_by_group(losses_in_memory(IDS, LOSSES), GROUPS, "ifd")
