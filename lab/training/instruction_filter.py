"""Which samples a cell of a fine-tuning study trains on: a loss filter by name, or one of its two controls.

Section 3 of the paper. The filter sees the losses alone; `oracle` sees the planted faults, and so is no filter.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lab.data.filters.filtering import Filtered
from lab.data.filters.loss_filters import LOSS_FILTERS, RANDOM, Losses, filter_losses, filter_losses_by_group
from lab.data.sample import Sample
from lab.errors import LabError, choose
from lab.parts.omni_model import OmniModel
from lab.training.parameters import TuningParameters
from lab.training.samples import SampleExamples

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


def kept_examples(
    data: ScoredInstructions, kept: Filtered, model: OmniModel, *, write: Callable[[str], str], max_tokens: int
) -> SampleExamples:
    """What a filter leaves of texts, to be trained on.

    Raises:
        LabError: nothing, or a text that the model cannot read within so many tokens.
    """
    samples = [one for one, stays in zip(data.train, kept.keep.tolist(), strict=True) if stays]
    if not samples:
        raise LabError(f"loss filter {kept.name!r} keeps none of {len(data.train)} instructions")
    examples = SampleExamples(samples=samples, write=write)
    for index, sample in enumerate(samples):
        if reason := examples.why_not_readable(index, model, max_tokens=max_tokens):
            raise LabError(f"training instruction {sample.id!r} cannot be trained on: {reason}")
    return examples


def filter_cell(parameters: TuningParameters, data: ScoredInstructions) -> Filtered:
    """What a cell trains on; `random` is as large as `gaussian` at the cell's k, and drawn anew by each seed.

    Raises:
        LabError: as `check_filter`, `filter_losses` and `filter_losses_by_group`.
    """
    name = parameters.loss_filter
    check_filter(parameters)
    if name == ORACLE:
        reasons = [fault and f"planted: {fault.replace('_', ' ')}" for fault in data.faults]
        return Filtered([one.id for one in data.train], reasons, name=ORACLE)
    if parameters.fitted_by == "source":
        return filter_losses_by_group(data.losses, ["/".join(one.kind) for one in data.train], name, k=parameters.k)
    return filter_losses(data.losses, name, k=parameters.k, seed=parameters.seed)
