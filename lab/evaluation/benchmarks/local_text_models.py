"""A causal language model of transformers as what replies: greedy, in its own chat template where it has one."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch

from lab.errors import LabError
from lab.evaluation.benchmarks.checkpoints import Checkpoint
from lab.evaluation.benchmarks.conversations import Conversation, Refused
from lab.parts.language_models import LANGUAGE_MODELS, LanguageModel, load_language_model

BATCH_SIZE = 8


class LocalTextModel:
    """A `TextModel` on this machine; loaded when it is first asked, on a GPU where there is one.

    Conversations of similar length are asked together, padded on the left, which no reply depends on. One that leaves
    no room for a reply in the model's context is refused.

    Args:
        checkpoint: whose weights.
        max_new_tokens: at which a reply is cut.
    """

    def __init__(self, checkpoint: Checkpoint, *, max_new_tokens: int, batch_size: int = BATCH_SIZE) -> None:
        self.key = f"{checkpoint.key}, greedy, float32, chat template, {max_new_tokens} new tokens"
        self._checkpoint, self._max_new_tokens, self._batch_size = checkpoint, max_new_tokens, batch_size

    @cached_property
    def _loaded(self) -> LanguageModel:
        name, (folder, *_) = self._checkpoint.name, self._checkpoint.open()
        known = name in LANGUAGE_MODELS
        loaded = load_language_model(name if known else str(folder), folder=folder if known else None)
        if getattr(loaded.codec, "tokenizer", None) is None:
            raise LabError(f"model {name!r} writes characters and has no tokenizer; expected a model of transformers'")
        model: Any = loaded.model
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        return loaded

    def reply(self, conversations: Sequence[Conversation]) -> Iterator[tuple[int, str | Refused]]:
        """Reply to each, those of similar length together.

        Raises:
            LabError: the weights cannot be loaded, or a conversation holds pictures or sound.
        """
        if any(turn.media for said in conversations for turn in said):
            raise LabError(
                f"{self._checkpoint.name!r} is a language model and is asked about pictures, videos or sound; expected "
                "a model that sees or hears, behind an endpoint: openai:MODEL@URL"
            )
        prompts = [self._prompt(said) for said in conversations]
        room = _context(self._loaded.model) - self._max_new_tokens
        for index, ids in enumerate(prompts):
            if len(ids) > room:
                yield index, Refused(f"{len(ids)} tokens of prompt, with room for {room}")
        fitting = sorted((i for i, ids in enumerate(prompts) if len(ids) <= room), key=lambda i: len(prompts[i]))
        for start in range(0, len(fitting), self._batch_size):
            batch = fitting[start : start + self._batch_size]
            yield from zip(batch, self._generated([prompts[index] for index in batch]), strict=True)

    def _prompt(self, conversation: Conversation) -> list[int]:
        tokenizer: Any = getattr(self._loaded.codec, "tokenizer", None)
        if tokenizer.chat_template:
            turns = [{"role": turn.role, "content": turn.text} for turn in conversation]
            # The template writes its own special tokens.
            written = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
            return list(tokenizer.encode(written, add_special_tokens=False))
        return list(tokenizer.encode("\n\n".join(turn.text for turn in conversation) + "\n"))

    @torch.inference_mode()
    def _generated(self, prompts: list[list[int]]) -> list[str]:
        model: Any = self._loaded.model
        codec = self._loaded.codec
        width = max(map(len, prompts))
        ids = torch.tensor([[codec.end_id] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
        mask = torch.tensor(
            [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device
        )
        made = model.generate(
            input_ids=ids,
            attention_mask=mask,
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


def _context(model: Any) -> int:
    """Positions that the model has; without a limit of its own, more than any prompt here."""
    return int(getattr(model.config, "max_position_embeddings", None) or 1_000_000)
