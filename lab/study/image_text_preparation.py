"""What the cells of a fine-tuning study on pictures share, made once: views, the pretrained model, and its losses."""

from collections.abc import Mapping, Sequence
from typing import Any

from lab.errors import LabError
from lab.study.preparation import prepare_cells
from lab.study.remembered import Ingredients, say, say_left_out

# The parameters of a cell that decide what is prepared; a notebook of such a study declares them all.
PREPARED_PARAMETERS = (
    "images",
    "num_pretraining",
    "num_training",
    "test_source",
    "num_test",
    "measure_dev",
    "max_tokens",
    "fault_share",
    "fault_seed",
    "vision_encoder",
    "image_size",
    "stride",
    "frame_size",
    "projector",
    "pool_size",
    "padding",
    "marks_places",
    "language_model",
    "pretraining_steps",
    "train_language_model",
    "scorer_steps",
    "scorer_seed",
    "budget_tokens",
    "learning_rate",
    "language_model_learning_rate",
    "weight_decay",
    "checkpoint_every",
    "device",
    "precision",
)
# Those that decide what is compared: they are checked before anything is made.
CHECKED_PARAMETERS = (
    "images",
    "num_pretraining",
    "num_training",
    "test_source",
    "max_tokens",
    "fault_share",
    "vision_encoder",
    "projector",
    "pool_size",
    "padding",
    "train_language_model",
    "scorer_steps",
    "loss_filter",
    "k",
    "fitted_by",
    "steps",
    "budget_tokens",
    "learning_rate",
    "language_model_learning_rate",
)


def prepare_image_text(parameters_of_cells: Sequence[Mapping[str, Any]]) -> Ingredients:
    """Make ready what these cells need and return what it was made from, by parameter and value.

    Raises:
        LabError: a package that cannot be fetched, an unknown name, a number out of range, or a loss that is not
            finite.
    """
    return prepare_cells(
        parameters_of_cells,
        kind="image_text",
        prepared=PREPARED_PARAMETERS,
        checked=CHECKED_PARAMETERS,
        check=_check,
        make=_scored,
        local_folders=_local_folders,
    )


def _check(cells: Sequence[Mapping[str, Any]]) -> None:
    import torch

    from lab.data.sources import check_source
    from lab.training.curricula import image_text_stages
    from lab.training.image_text_data import check_image_text
    from lab.training.instruction_filter import check_filter
    from lab.training.vision import check_vision_encoder
    from lab.training.vision_cell import cell_projector

    for cell in cells:
        check_image_text(cell)
        check_filter(cell)
        if not cell["k"] >= 0:
            raise LabError(f"k is {cell['k']}; expected at least 0 standard deviations")
        image_text_stages(cell)
        check_vision_encoder(cell["vision_encoder"])
        with torch.device("meta"):
            # As wide as the cpu rung's encoder and language model.
            cell_projector(cell, hidden_size=112, output_size=192)
        for source in filter(None, (cell["images"], cell["test_source"])):
            check_source(source)


def _local_folders(cell: Mapping[str, Any]) -> list[str]:
    """What of a cell may be a folder of the user's own: one that is changed is prepared again."""
    sources = (cell["images"], cell["test_source"])
    return [cell["vision_encoder"], cell["language_model"], *(source.partition("@hub:")[2] for source in sources)]


def _scored(wanted: Sequence[Mapping[str, Any]]) -> tuple[Ingredients, list[str]]:
    from lab.data.sources import sources_sha256
    from lab.training.curricula import IMAGE
    from lab.training.image_text_data import open_image_text_data
    from lab.training.image_text_model import image_text_splits, open_pretrained
    from lab.training.language_models import open_language_model
    from lab.training.vision import open_vision_encoder

    ingredients: Ingredients = {"images": {}, "test_source": {}, "vision_encoder": {}}
    folders: list[str] = []
    for cell in wanted:
        name = cell["vision_encoder"]
        encoder = open_vision_encoder(
            name, image_size=cell["image_size"], stride=cell["stride"], progress=say(f"{name}, steps")
        )
        splits = image_text_splits(cell, encoder, progress=say("pictures, samples"))
        language_model = open_language_model(cell["language_model"], pretraining_steps=cell["pretraining_steps"])
        told = say("pretrained model of pictures, steps")
        pretrained = open_pretrained(cell, splits[IMAGE], encoder, language_model, progress=told)
        data = open_image_text_data(cell, pretrained, progress=say("losses, examples"))
        ingredients["vision_encoder"][name] = encoder.weights_sha256
        made_of = (sources_sha256(cell["images"]), data.sha256, pretrained.scorer.sha256)
        ingredients["images"][cell["images"]] = " ".join(made_of)
        asked = cell["test_source"]
        ingredients["test_source"][asked] = sources_sha256(asked) if asked else "none"
        for split in splits.values():
            folders += [str(split.store.folder)] if split.store else []
            say_left_out(split.name, split.left_out)
        folders += [str(pretrained.folder), str(data.scores)]
    return ingredients, folders
