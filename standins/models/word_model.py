"""A small language model of whole words that knows where and when a token is, for the vision studies' `cpu` rung.

Its pretraining is `standins.models.world_pretraining`; a folder holds transformers' files, its words, and the linear
layer by which it was told the place and second of each token that it saw.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lab.errors import LabError
from lab.parts.language_models import LanguageModel, WordCodec
from lab.parts.weights import weights_sha256

WORDS_FILE = "words.json"
MARKS_FILE = "marks.safetensors"


def load_word_model(folder: Path) -> LanguageModel:
    """Load what `world_pretraining` wrote.

    Raises:
        LabError: the folder holds no such model.
    """
    try:
        words = json.loads((folder / WORDS_FILE).read_text(encoding="utf-8"))["words"]
        marks = load_file(folder / MARKS_FILE)["marks"]
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        raise LabError(f"{folder} holds no model of words ({error}); delete it to make it again") from error
    return LanguageModel("words", model.eval(), WordCodec(words=words), weights_sha256(model), place_marks=marks)
