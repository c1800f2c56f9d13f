"""The steps of a recipe by name: what `use` may say, from every module that has some.

A further filter is a class (`RowStep` or `CorpusStep` of `lab.data.recipes.step`) and a line here.
"""

from collections.abc import Mapping

from lab.data.recipes.corpus_steps import ExactDuplicates, Sample
from lab.data.recipes.losses import LossFilterStep
from lab.data.recipes.meaning import SemanticDuplicates
from lab.data.recipes.near_duplicates import NearDuplicates
from lab.data.recipes.packing import Pack
from lab.data.recipes.quality import Quality
from lab.data.recipes.row_steps import LengthBetween, NotEmpty
from lab.data.recipes.step import Step

STEPS: Mapping[str, type[Step]] = {
    "not_empty": NotEmpty,
    "length_between": LengthBetween,
    "exact_duplicates": ExactDuplicates,
    "near_duplicates": NearDuplicates,
    "semantic_duplicates": SemanticDuplicates,
    "quality": Quality,
    "loss_filter": LossFilterStep,
    "sample": Sample,
    "pack": Pack,
}
