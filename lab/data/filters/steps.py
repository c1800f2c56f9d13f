"""The filters of a recipe by name: what `use` of a step may say. A further one is a class and a line here."""

from collections.abc import Mapping

from lab.data.filters.loss_step import LossFilterStep
from lab.data.filters.near_duplicates import NearDuplicates
from lab.data.filters.quality import Quality
from lab.data.filters.rows import ExactDuplicates, LengthBetween, NotEmpty, Pack, RandomSample
from lab.data.filters.semantic_duplicates import SemanticDuplicates
from lab.data.filters.step import Step

STEPS: Mapping[str, type[Step]] = {
    "not_empty": NotEmpty,
    "length_between": LengthBetween,
    "exact_duplicates": ExactDuplicates,
    "near_duplicates": NearDuplicates,
    "semantic_duplicates": SemanticDuplicates,
    "quality": Quality,
    "loss_filter": LossFilterStep,
    "sample": RandomSample,
    "pack": Pack,
}
