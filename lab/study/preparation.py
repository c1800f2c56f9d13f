"""The frame of every study's preparation: check the cells, then make once what they share, and remember it.

The project's own language models are pretrained in processes of their own while a study makes its data in this one.
"""

import multiprocessing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.errors import LabError, choose
from lab.study.remembered import Ingredients, computed_with, distinct, folder_states, remembered, say

Cells = Sequence[Mapping[str, Any]]
Made = tuple[Ingredients, list[str]]


def prepare_cells(
    cells: Cells,
    *,
    kind: str,
    prepared: Sequence[str],
    checked: Sequence[str],
    check: Callable[[Cells], None],
    make: Callable[[Cells], Made],
    local_folders: Callable[[Mapping[str, Any]], Iterable[str]] = lambda cell: (),
) -> Ingredients:
    """Make ready what these cells need and return what it was made from, by parameter and value.

    Args:
        cells: all parameters of each.
        kind: of study, so that no two share what is remembered.
        prepared: the parameters that decide what is made, a language model's among them.
        checked: those that decide what is compared.
        check: refuses, before anything is made, cells that cannot be; it is given each combination of `checked` once.
        make: makes the rest beside the language models, of each combination of `prepared` once; gives the ingredients
            and the folders that must still be there for them to count.
        local_folders: of a combination of `prepared`, what may be a folder of the user's own: one that is changed is
            prepared again.

    Raises:
        LabError: as `check` and `make`; an unknown language model, device or precision; a language model that cannot be
            pretrained; or a cell that lacks a parameter.
    """
    wanted, compared = distinct(cells, prepared), distinct(cells, checked)

    def make_all() -> Made:
        for cell in wanted:
            check_language_model(cell["language_model"])
            computed_with(cell)
        check(compared)
        ingredients, folders = _with_language_models(wanted, lambda: make(wanted))
        for cell in wanted:
            for name, chosen in computed_with(cell).items():
                ingredients.setdefault(name, {}).update(chosen)
        return ingredients, sorted(set(folders))

    folders = folder_states(name for cell in wanted for name in local_folders(cell))
    return remembered([kind, wanted, compared, folders], make_all)


def _with_language_models(wanted: Cells, make: Callable[[], Made]) -> Made:
    """What `make` makes, and the cells' language models, pretrained beside it where one is the project's own."""
    own = sorted({(c["language_model"], c["pretraining_steps"]) for c in wanted if c["language_model"] in _PRETRAINED})
    context = multiprocessing.get_context("spawn")
    pretraining = [context.Process(target=_PRETRAINED[name], args=(steps,)) for name, steps in own]
    _fetch_text([steps for name, steps in own if name == "character"])
    for process in pretraining:
        process.start()
    try:
        ingredients, folders = make()
        for process in pretraining:
            process.join()
    finally:
        for process in pretraining:
            if process.is_alive():
                process.terminate()
    if any(process.exitcode for process in pretraining):
        raise LabError("a language model could not be pretrained; its own words stand above")
    ingredients["language_model"] = {}
    for cell in wanted:
        if cell["language_model"] == "character":
            from lab.training.character_model import character_model_folder, description_sha256

            folder = character_model_folder(cell["pretraining_steps"])
            folders.append(str(folder))
            ingredients["language_model"]["character"] = description_sha256(folder)
        elif cell["language_model"] == "words":
            from lab.training.character_model import description_sha256
            from lab.training.world_pretraining import word_model_folder

            folder = word_model_folder(cell["pretraining_steps"])
            folders.append(str(folder))
            ingredients["language_model"]["words"] = description_sha256(folder)
        else:
            ingredients["language_model"][cell["language_model"]] = _language_model_sha256(cell["language_model"])
    return ingredients, folders


def check_language_model(name: str) -> None:
    """Refuse a name that no language model has, before anything is fetched or made; a hub's or folder's is let pass.

    Raises:
        LabError: the name; the message lists the choices.
    """
    from lab.parts.language_models import LANGUAGE_MODELS

    if "/" not in name and not Path(name).is_dir():
        forms = dict.fromkeys(("OWNER/NAME of a causal model on the hub", "a folder"))
        choose({**LANGUAGE_MODELS, **_PRETRAINED, **forms}, name, "language model")


def _fetch_text(character_steps: Sequence[int]) -> None:
    if character_steps:
        from lab.data.text import training_text

        training_text(punctuation=False)


def _pretrain(steps: int) -> None:
    """Run in a process of its own, on one thread: batches are too small to share between two."""
    import torch

    from lab.training.character_model import pretrained_character_model

    torch.set_num_threads(1)
    pretrained_character_model(steps=steps, progress=say("language model, steps"))


def _pretrain_words(steps: int) -> None:
    import torch

    from lab.training.world_pretraining import pretrained_word_model

    torch.set_num_threads(1)
    pretrained_word_model(steps=steps, progress=say("language model of words, steps"))


_PRETRAINED = {"character": _pretrain, "words": _pretrain_words}


def _language_model_sha256(name: str) -> str:
    from lab.training.language_models import open_language_model

    return open_language_model(name).sha256
