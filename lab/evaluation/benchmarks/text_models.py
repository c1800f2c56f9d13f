"""What MODEL may be where text is asked for: a causal language model on this machine, or a model behind an endpoint."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lab.data.sample import Sample, Text
from lab.errors import LabError
from lab.evaluation.benchmarks.endpoints import DECODING, PREFIX, Endpoint, parse_endpoint
from lab.evaluation.benchmarks.replies import Refused, TextModel
from lab.evaluation.benchmarks.revisions import ModelRevision, find_checkpoint

if TYPE_CHECKING:
    import torch

    from lab.parts.language_models import LanguageModel

TEXT_MODELS = (
    "smollm2_135m, a causal language model's hub name or folder, or openai:MODEL@URL for any OpenAI-compatible endpoint"
)
BATCH_SIZE = 8
_LOCAL_DECODING = "greedy, float32, chat template"


def model_key(model: str) -> str:
    """Name the weights: a checkpoint's key, or an endpoint's model and address (which weights answer, it hides).

    Raises:
        LabError: it is none of `TEXT_MODELS`, or the package that asks endpoints is missing.
    """
    if model.startswith(PREFIX):
        return "{}{}@{}".format(PREFIX, *parse_endpoint(model))
    return _text_checkpoint(model).key


def decoding_of(model: str) -> str:
    """How its text is chosen, in words, for the settings of a score."""
    return DECODING if model.startswith(PREFIX) else _LOCAL_DECODING


def open_text_model(model: str, *, max_new_tokens: int) -> TextModel:
    """Open what answers; a local model's weights are loaded when it is first asked.

    Raises:
        LabError: as `model_key`, or fewer than one new token.
    """
    if max_new_tokens < 1:
        raise LabError(f"max_new_tokens is {max_new_tokens}, expected at least 1")
    if model.startswith(PREFIX):
        return Endpoint(model, max_new_tokens=max_new_tokens)
    return LocalTextModel(_text_checkpoint(model), max_new_tokens=max_new_tokens)


def language_checkpoint(model: str) -> ModelRevision:
    """The weights of a causal language model, one of our own names among them.

    Raises:
        LabError: as `find_checkpoint`, or a model that reads only the letters of its alphabet.
    """
    from lab.parts.language_models import LANGUAGE_MODELS

    if model == "character":
        raise LabError("model 'character' reads only the letters of its alphabet; expected a model that reads any text")
    return find_checkpoint(model, {name: (known.source,) for name, known in LANGUAGE_MODELS.items() if known.source})


def load_checkpoint(checkpoint: ModelRevision, dtype: "torch.dtype | None" = None) -> "LanguageModel":
    """Load a language model's weights, fetched where they are missing.

    Raises:
        LabError: they cannot be had, or are none; or the model has no tokenizer.
    """
    from lab.parts.language_models import LANGUAGE_MODELS, load_language_model

    (folder, *_), known = checkpoint.open(), checkpoint.name in LANGUAGE_MODELS
    chosen = {} if dtype is None else {"dtype": dtype}
    loaded = load_language_model(checkpoint.name if known else str(folder), folder=folder, **chosen)
    if getattr(loaded.codec, "tokenizer", None) is None:
        raise LabError(
            f"model {checkpoint.name!r} writes characters and has no tokenizer; expected a model of transformers'"
        )
    return loaded


def _text_checkpoint(model: str) -> ModelRevision:
    try:
        return language_checkpoint(model)
    except LabError as error:
        raise LabError(f"{error}; where text is asked for, a model may be {TEXT_MODELS}") from error


class LocalTextModel:
    """A `TextModel` on this machine: greedy, in its own chat template where it has one, on a GPU where there is one.

    Samples of similar length are asked together, padded on the left, which no reply depends on. One that leaves
    no room for a reply in the model's context is refused.

    Args:
        checkpoint: whose weights.
        max_new_tokens: at which a reply is cut.
        batch_size: samples at once.
    """

    def __init__(self, checkpoint: ModelRevision, *, max_new_tokens: int, batch_size: int = BATCH_SIZE) -> None:
        self.key = f"{checkpoint.key}, {_LOCAL_DECODING}, {max_new_tokens} new tokens"
        self._checkpoint, self._max_new_tokens, self._batch_size = checkpoint, max_new_tokens, batch_size

    @cached_property
    def _loaded(self) -> "LanguageModel":
        import torch

        loaded = load_checkpoint(self._checkpoint)
        network: Any = loaded.model
        network.to("cuda" if torch.cuda.is_available() else "cpu")
        return loaded

    def reply(self, samples: Sequence[Sample]) -> Iterator[tuple[int, str | Refused]]:
        """Reply to each, those of similar length together.

        Raises:
            LabError: the weights cannot be loaded, or a sample holds pictures or sound.
        """
        if any(not isinstance(part, Text) for sample in samples for part in sample.content):
            raise LabError(
                f"{self._checkpoint.name!r} is a language model and is asked about pictures, videos or sound; expected "
                "a model that sees or hears, behind an endpoint: openai:MODEL@URL"
            )
        prompts = [self._prompt(sample) for sample in samples]
        positions = getattr(self._loaded.model.config, "max_position_embeddings", None) or 1_000_000
        room = positions - self._max_new_tokens
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        fitting = [place for place in order if len(prompts[place]) <= room]
        for place in order[len(fitting) :]:
            yield place, Refused(f"{len(prompts[place])} tokens of prompt, with room for {room}")
        for start in range(0, len(fitting), self._batch_size):
            batch = fitting[start : start + self._batch_size]
            yield from zip(batch, self._generated([prompts[place] for place in batch]), strict=True)

    def _prompt(self, sample: Sample) -> list[int]:
        tokenizer: Any = getattr(self._loaded.codec, "tokenizer", None)
        texts = [part for part in sample.content if isinstance(part, Text)]
        if tokenizer.chat_template:
            turns = [{"role": part.role, "content": part.text} for part in texts]
            # The template writes its own special tokens.
            written = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
            return list(tokenizer.encode(written, add_special_tokens=False))
        return list(tokenizer.encode("\n\n".join(part.text for part in texts) + "\n"))

    def _generated(self, prompts: list[list[int]]) -> list[str]:
        import torch

        model: Any = self._loaded.model
        codec = self._loaded.codec
        width = max(map(len, prompts))
        ids = [[codec.end_id] * (width - len(prompt)) + prompt for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        made = model.generate(
            input_ids=torch.tensor(ids, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            max_new_tokens=self._max_new_tokens,
            pad_token_id=codec.end_id,
            # A checkpoint's own settings may sample or punish repetition.
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=1.0,
        )
        return [codec.decode(answer).strip() for answer in made[:, width:].tolist()]
