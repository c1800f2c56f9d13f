"""What the cells of a speech study share, made once before any of them runs: corpora, features, language model."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from lab.errors import choose
from lab.study.preparation import prepare_cells
from lab.study.remembered import Ingredients, say

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
# Those that are checked before anything is made: every projector is built, without its weights.
CHECKED_PARAMETERS = ("projector", "downsample_rate", "parameter_budget", "normalizer")


def prepare_speech(parameters_of_cells: Sequence[Mapping[str, Any]]) -> Ingredients:
    """Make ready what these cells need and return what it was made from, by parameter and value.

    Raises:
        LabError: a source that cannot be fetched or does not match its hash, a full disk, an unknown name, a projector
            that cannot be built.
    """
    return prepare_cells(
        parameters_of_cells,
        kind="speech",
        prepared=PREPARED_PARAMETERS,
        checked=CHECKED_PARAMETERS,
        check=_check,
        make=_features,
    )


def _check(cells: Sequence[Mapping[str, Any]]) -> None:
    import torch

    from lab.data.normalizers import NORMALIZERS
    from lab.parts.audio_projectors import build_audio_projector

    # The smallest encoder and language model of any rung: a budget that holds there is the one to check.
    widths = {"hidden_size": 384, "output_size": 192}
    with torch.device("meta"):
        for cell in cells:
            choose(NORMALIZERS, cell["normalizer"], "normaliser")
            budget = {"parameter_budget": cell["parameter_budget"]} if cell["parameter_budget"] else {}
            build_audio_projector(cell["projector"], downsample_rate=cell["downsample_rate"], **widths, **budget)


def _features(wanted: Sequence[Mapping[str, Any]]) -> tuple[Ingredients, list[str]]:
    import torch

    from lab.data.normalizers import NORMALIZERS
    from lab.training.speech import cell_data, open_corpus, open_encoder

    threads = torch.get_num_threads()
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
            folders += [str(store.folder) for store in split.heard]
    torch.set_num_threads(threads)
    ingredients["normalizer"] = {name: NORMALIZERS[name].version for name in {cell["normalizer"] for cell in wanted}}
    return ingredients, folders
