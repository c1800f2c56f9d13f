"""What the cells of a vision study share, made once before any of them runs: pictures, views, language model."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from lab.errors import choose
from lab.study.preparation import prepare_cells
from lab.study.remembered import Ingredients, say, say_left_out

# The parameters of a cell that decide what is prepared; a notebook of a vision study declares them all.
PREPARED_PARAMETERS = (
    "curriculum",
    "images",
    "num_images",
    "videos",
    "num_videos",
    "test_source",
    "num_test",
    "measure_dev",
    "vision_encoder",
    "image_size",
    "stride",
    "train_encoder",
    "frame_size",
    "frames_per_second",
    "max_frames",
    "max_tiles",
    "fit",
    "unpad",
    "newline",
    "image_branch_steps",
    "language_model",
    "pretraining_steps",
    "device",
    "precision",
)
# Those that decide what is compared: they are checked before anything is made.
CHECKED_PARAMETERS = (
    "projector",
    "pool_size",
    "padding",
    "steps",
    "first_share",
    "image_share",
    "curriculum",
    "video_projector_start",
    "image_branch_steps",
    "images",
    "videos",
    "test_source",
    "fit",
    "vision_encoder",
    "learning_rate",
    "train_language_model",
    "language_model_learning_rate",
    "train_encoder",
    "encoder_learning_rate",
    "batch_size",
    "batch_tokens",
    "packed",
)


def prepare_vision(parameters_of_cells: Sequence[Mapping[str, Any]]) -> Ingredients:
    """Make ready what these cells need and return what it was made from, by parameter and value.

    Raises:
        LabError: a package that cannot be fetched or does not match its hash, a full disk, an unknown name, a
            projector or curriculum that cannot be built.
    """
    return prepare_cells(
        parameters_of_cells,
        kind="vision",
        prepared=PREPARED_PARAMETERS,
        checked=CHECKED_PARAMETERS,
        check=_check,
        make=_views,
        local_folders=_local_folders,
    )


def _check(cells: Sequence[Mapping[str, Any]]) -> None:
    import torch

    from lab.data.sources import check_source
    from lab.parts.any_resolution import Fit
    from lab.training.batches import BatchOptions
    from lab.training.vision import check_vision_encoder
    from lab.training.vision_cell import cell_projector, cell_stages

    for cell in cells:
        cell_stages(cell)
        BatchOptions(tokens=cell["batch_tokens"], size=cell["batch_size"], packed=cell["packed"])
        choose({fit: fit for fit in get_args(Fit)}, cell["fit"], "fit of an image")
        check_vision_encoder(cell["vision_encoder"])
        with torch.device("meta"):
            # As wide as the cpu rung's encoder and language model.
            cell_projector(cell, hidden_size=112, output_size=192)
        for source in filter(None, (cell["images"], cell["videos"], cell["test_source"])):
            check_source(source)


def _local_folders(cell: Mapping[str, Any]) -> list[str]:
    """What of a cell may be a folder of the user's own: one that is changed is prepared again."""
    sources = (cell["images"], cell["videos"], cell["test_source"])
    return [cell["vision_encoder"], cell["language_model"], *(source.partition("@hub:")[2] for source in sources)]


def _views(wanted: Sequence[Mapping[str, Any]]) -> tuple[Ingredients, list[str]]:
    from lab.data.sources import sources_sha256
    from lab.training.vision import open_vision_encoder
    from lab.training.vision_cell import vision_cell_data

    ingredients: Ingredients = {"images": {}, "videos": {}, "test_source": {}, "vision_encoder": {}}
    folders: list[str] = []
    for cell in wanted:
        encoder = open_vision_encoder(
            cell["vision_encoder"],
            image_size=cell["image_size"],
            stride=cell["stride"],
            progress=say(f"{cell['vision_encoder']}, steps"),
        )
        ingredients["vision_encoder"][cell["vision_encoder"]] = encoder.weights_sha256
        for name in ("images", "videos", "test_source"):
            ingredients[name][cell[name]] = sources_sha256(cell[name]) if cell[name] else "none"
        data = vision_cell_data(cell, encoder, progress=say("pictures and frames, samples"))
        for split in data.values():
            folders += [str(split.store.folder)] if split.store else []
            say_left_out(split.name, split.left_out)
    return ingredients, folders
