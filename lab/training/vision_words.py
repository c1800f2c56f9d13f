"""A vision cell's language model by name, and how it writes: `words` is the project's own, else as for speech."""

from collections.abc import Callable
from functools import partial

from lab.data.text import to_alphabet
from lab.parts.language_models import LanguageModel
from lab.parts.word_model import load_word_model
from lab.training.language_models import open_language_model, writes_characters
from lab.training.world_pretraining import plain_words, pretrained_word_model

WORDS = "words"


def open_vision_language_model(name: str, *, pretraining_steps: int) -> LanguageModel:
    """Load a language model by name; `words` and `character` are pretrained for so many steps if need be.

    Raises:
        LabError: as `open_language_model` and `pretrained_word_model`.
    """
    if name == WORDS:
        return load_word_model(pretrained_word_model(steps=pretraining_steps))
    return open_language_model(name, pretraining_steps=pretraining_steps)


def text_writer(language_model: str) -> Callable[[str], str]:
    """How a text is written for that language model."""
    if language_model == WORDS:
        return plain_words
    return partial(to_alphabet, punctuation=False) if writes_characters(language_model) else str.strip
