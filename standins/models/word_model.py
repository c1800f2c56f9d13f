"""A small language model of whole words that knows where and when a token is, for the vision studies' `cpu` rung.

Its pretraining is `standins.models.world_pretraining`; a folder holds transformers' files, its words, and the linear
layer by which it was told the place and second of each token that it saw.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lab.errors import LabError
from lab.parts.language_models import LanguageModel
from lab.parts.weights import weights_sha256

WORDS_FILE = "words.json"
MARKS_FILE = "marks.safetensors"


class WordCodec:
    """One token a word of `words`; then the start, the end and nothing else. Text is split at blanks.

    >>> codec = WordCodec(words=("cat", "moves", "what"))
    >>> codec.encode("what moves"), codec.start_ids, codec.end_id
    ([2, 1], [3], 4)

    Raises:
        LabError: a word twice, or one with a blank in it.
    """

    def __init__(self, *, words: Sequence[str]) -> None:
        if len(set(words)) < len(words) or any(word.split() != [word] for word in words):
            raise LabError("a vocabulary of words needs each word once, and none with a blank in it")
        self.words = tuple(words)
        self._ids = {word: i for i, word in enumerate(words)}
        self.start_ids = [len(words)]
        self.end_id = len(words) + 1
        self.vocab_size = len(words) + 2

    def encode(self, text: str) -> list[int]:
        """Token ids of a text.

        Raises:
            LabError: a word that is not in the vocabulary.
        """
        try:
            return [self._ids[word] for word in text.split()]
        except KeyError as error:
            raise LabError(
                f"word {error.args[0]!r} in {text[:60]!r} is not among the language model's {len(self.words)} words; "
                "ask in these, or choose a language model that spells, such as 'character'"
            ) from None

    def decode(self, ids: list[int]) -> str:
        """The words of token ids."""
        return " ".join(self.words[i] for i in ids if i < len(self.words))


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
