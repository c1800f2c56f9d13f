"""The steps of a recipe by name: what `use` may say, from every module that has some.

A further filter is a class (`RowStep` or `CorpusStep` of `lab.data.recipe_step`) and a line here.
"""

from collections.abc import Mapping

from lab.data.recipe_corpus_steps import ExactDuplicates, Sample
from lab.data.recipe_losses import LossFilterStep
from lab.data.recipe_meaning import SemanticDuplicates
from lab.data.recipe_near_duplicates import NearDuplicates
from lab.data.recipe_packing import Pack
from lab.data.recipe_quality import Quality
from lab.data.recipe_row_steps import LengthBetween, NotEmpty
from lab.data.recipe_step import Step

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
