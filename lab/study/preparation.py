"""What the cells of a speech study share, made once before any of them runs: corpora, features, language model.

The character model is pretrained in a process of its own while features are computed in this one.
"""

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.errors import LabError, choose
from lab.study.remembered import Ingredients, computed_with, distinct, remembered, say

# The parameters of a cell that decide what is prepared; a notebook that needs a speech corpus declares them all.
PREPARED_PARAMETERS = (
    "corpus",
    "num_utterances",
    "out_of_domain_corpus",
    "audio_encoder",
    "encoder_window",
    "train_encoder",
    "speeds",
    "max_training_utterances",
    "max_test_utterances",
    "max_out_of_domain_utterances",
    "language_model",
    "pretraining_steps",
    "normalizer",
    "device",
    "precision",
)
# Those that decide what is compared: they are checked, by building every projector without its weights.
PROJECTOR_PARAMETERS = ("projector", "downsample_rate", "parameter_budget")


def prepare_speech(parameters_of_cells: Sequence[Mapping[str, Any]]) -> Ingredients:
    """Make ready what these cells need and return what it was made from, by parameter and value.

    Raises:
        LabError: a source that cannot be fetched or does not match its hash, a full disk, an unknown name, a projector
            that cannot be built.
    """
    wanted = distinct(parameters_of_cells, PREPARED_PARAMETERS)
    projectors = distinct(parameters_of_cells, PROJECTOR_PARAMETERS)

    def make() -> tuple[Ingredients, list[str]]:
        _check_projectors(projectors)
        return _prepare(wanted)

    return remembered([wanted, projectors], make)


def _check_projectors(projectors: Sequence[Mapping[str, Any]]) -> None:
    import torch

    from lab.parts.audio_projectors import build_audio_projector

    # The smallest encoder and language model of any rung: a budget that holds there is the one to check.
    widths = {"hidden_size": 384, "output_size": 192}
    with torch.device("meta"):
        for cell in projectors:
            budget = {"parameter_budget": cell["parameter_budget"]} if cell["parameter_budget"] else {}
            build_audio_projector(cell["projector"], downsample_rate=cell["downsample_rate"], **widths, **budget)


def _prepare(wanted: Sequence[Mapping[str, Any]]) -> tuple[Ingredients, list[str]]:
    # Imported here: they bring torch and transformers, which a remembered preparation does without.
    from lab.evaluation.normalizers import NORMALIZERS

    for cell in wanted:
        choose(NORMALIZERS, cell["normalizer"], "normaliser")
        check_language_model(cell["language_model"])
        computed_with(cell)
    ingredients, folders = with_language_models(wanted, lambda: _features(wanted))
    for cell in wanted:
        for name, chosen in computed_with(cell).items():
            ingredients.setdefault(name, {}).update(chosen)
    ingredients["normalizer"] = {name: NORMALIZERS[name].version for name in {cell["normalizer"] for cell in wanted}}
    return ingredients, sorted(set(folders))


def with_language_models(
    wanted: Sequence[Mapping[str, Any]], make: Callable[[], tuple[Ingredients, list[str]]]
) -> tuple[Ingredients, list[str]]:
    """What `make` makes, and the cells' language models, pretrained beside it where one is the project's own.

    Raises:
        LabError: as `make`, or a language model cannot be pretrained.
    """
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
    from lab.training.speech import open_language_model

    return open_language_model(name).sha256


def _features(wanted: Sequence[Mapping[str, Any]]) -> tuple[Ingredients, list[str]]:
    import torch

    from lab.evaluation.normalizers import NORMALIZERS
    from lab.training.speech import cell_data, open_corpus, open_encoder

    if any(cell["language_model"] == "character" for cell in wanted):
        torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
    ingredients: Ingredients = {"corpus": {}, "out_of_domain_corpus": {}, "audio_encoder": {}}
    folders: list[str] = []
    for cell in wanted:
        encoder = open_encoder(cell["audio_encoder"], window=cell["encoder_window"])
        ingredients["audio_encoder"][cell["audio_encoder"]] = encoder.key
        data = cell_data(cell, encoder, keep=NORMALIZERS[cell["normalizer"]], progress=say("features, utterances"))
        for parameter in ("corpus", "out_of_domain_corpus"):
            if cell[parameter]:
                corpus = open_corpus(cell[parameter], num_utterances=cell["num_utterances"])
                ingredients[parameter][cell[parameter]] = f"{corpus.name} {corpus.sha256}"
                folders.append(str(corpus.folder))
            else:
                ingredients[parameter][cell[parameter]] = "none"
        for split in data.values():
            folders += [str(store.folder) for store in split.stores]
    torch.set_num_threads(os.cpu_count() or 1)
    return ingredients, folders
