"""What the cells of a fine-tuning study share, made once: instructions with planted faults, and a model's losses."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from lab.errors import LabError
from lab.study.preparation import check_language_model, prepare_cells
from lab.study.remembered import Ingredients, say

# The parameters of a cell that decide what is prepared; a notebook of a fine-tuning study declares them all.
PREPARED_PARAMETERS = (
    "instructions",
    "test_instructions",
    "num_training",
    "num_test",
    "max_tokens",
    "fault_share",
    "fault_seed",
    "scorer",
    "language_model",
    "pretraining_steps",
    "device",
    "precision",
)
# Those that decide what is compared: they are checked before anything is made.
CHECKED_PARAMETERS = (
    "scorer",
    "loss_filter",
    "k",
    "fitted_by",
    "num_choices",
    "max_tokens",
    "budget_tokens",
    "steps",
    "learning_rate",
)


def prepare_instructions(parameters_of_cells: Sequence[Mapping[str, Any]]) -> Ingredients:
    """Make ready what these cells need and return what it was made from, by parameter and value.

    Raises:
        LabError: a source that cannot be fetched or read, an unknown name, a number out of range, or a loss that is not
            finite.
    """
    return prepare_cells(
        parameters_of_cells,
        kind="instructions",
        prepared=PREPARED_PARAMETERS,
        checked=CHECKED_PARAMETERS,
        check=_check,
        make=_scored,
        local_folders=_local_folders,
    )


def _check(cells: Sequence[Mapping[str, Any]]) -> None:
    from lab.training.curricula import instruction_stage
    from lab.training.instruction_filter import check_filter

    for cell in cells:
        check_language_model(cell["scorer"])
        check_filter(cell)
        instruction_stage(steps=cell["steps"], learning_rate=cell["learning_rate"])
        if not cell["k"] >= 0 or cell["num_choices"] < 2:
            raise LabError(f"k and num_choices are {cell['k']} and {cell['num_choices']}; expected at least 0 and 2")
        if cell["max_tokens"] > cell["budget_tokens"]:
            raise LabError(
                f"max_tokens is {cell['max_tokens']} and budget_tokens {cell['budget_tokens']}; a sample has to fit a "
                "pack"
            )


def _local_folders(cell: Mapping[str, Any]) -> list[str]:
    """What of a cell may be a folder of the user's own: one that is changed is prepared again."""
    sources = [part for name in ("instructions", "test_instructions") for part in cell[name].split("+")]
    return [cell["language_model"], cell["scorer"], *(part.partition("hub:")[2] for part in sources)]


def _scored(wanted: Sequence[Mapping[str, Any]]) -> tuple[Ingredients, list[str]]:
    from lab.training.instruction_data import open_instruction_data, open_reader, open_scorer

    ingredients: Ingredients = {"instructions": {}, "test_instructions": {}, "scorer": {}}
    folders: list[str] = []
    for cell in wanted:
        told = say("losses, instructions")
        data = open_instruction_data(cell, open_reader(cell), partial(open_scorer, cell), progress=told)
        ingredients["instructions"][cell["instructions"]] = data.facts["train_sha256"]
        ingredients["test_instructions"][cell["test_instructions"]] = data.facts["test_sha256"]
        ingredients["scorer"][cell["scorer"]] = data.scorer_sha256
        folders += [str(data.folder), str(data.scores)]
    return ingredients, folders
