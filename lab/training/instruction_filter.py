"""Which samples a cell of a fine-tuning study trains on: a loss filter by name, or one of its two controls.

Section 3 of the paper. The filter sees the losses alone; `oracle` sees the planted faults, and so is no filter.
"""

from dataclasses import dataclass

from lab.data.filters.filtering import Filtered
from lab.data.filters.loss_filters import LOSS_FILTERS, RANDOM, filter_losses, filter_losses_by_group
from lab.data.filters.losses import Losses
from lab.data.instructions.planted_faults import remove_planted
from lab.data.sample import Sample
from lab.errors import LabError, choose
from lab.training.parameters import TuningParameters

ORACLE = "oracle"


@dataclass(frozen=True, kw_only=True)
class ScoredInstructions:
    """What a filter chooses from, of whatever corpus: text alone, or the text beside pictures.

    `faults` has the kind of planted fault of each of `train`, None for a clean one; `losses` are those of `train`, in
    its order.
    """

    train: tuple[Sample, ...]
    faults: tuple[str | None, ...]
    losses: Losses


def check_filter(parameters: TuningParameters) -> None:
    """Refuse a filter that no cell has.

    Raises:
        LabError: its name (the message lists the choices), or one that is fitted to nothing with what it is fitted to.
    """
    name, fitted_by = parameters.loss_filter, parameters.fitted_by
    choose({**dict.fromkeys(LOSS_FILTERS), RANDOM: None, ORACLE: None}, name, "loss filter")
    if fitted_by != "corpus" and name not in LOSS_FILTERS:
        raise LabError(f"loss filter {name!r} is fitted to nothing, so not by {fitted_by!r}; leave it at 'corpus'")


def filter_cell(parameters: TuningParameters, data: ScoredInstructions) -> Filtered:
    """What a cell trains on; `random` is as large as `gaussian` at the cell's k, and drawn anew by each seed.

    Raises:
        LabError: as `check_filter`, `filter_losses` and `filter_losses_by_group`.
    """
    name = parameters.loss_filter
    check_filter(parameters)
    if name == ORACLE:
        return remove_planted([one.id for one in data.train], data.faults)
    if parameters.fitted_by == "source":
        return filter_losses_by_group(data.losses, ["/".join(one.kind) for one in data.train], name, k=parameters.k)
    return filter_losses(data.losses, name, k=parameters.k, seed=parameters.seed)
