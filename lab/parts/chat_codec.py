"""Text as a chat model was taught to read it: prompts in the tokenizer's own chat template, answers behind it.

Section 3 of the paper (fine-tuning pairs). A model that was tuned to chat gives answers a far better likelihood in its
own form, and its losses mean little in another one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lab.parts.language_models import LanguageModel, SubwordCodec


class ChatCodec(SubwordCodec):
    """A subword codec whose prompts are asked by the user of a chat; the template's own start stands in the prompt."""

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


def as_chat_model(language_model: LanguageModel) -> LanguageModel:
    """The same model, reading prompts in its chat template where its tokenizer has one."""
    tokenizer = getattr(language_model.codec, "tokenizer", None)
    if tokenizer is None or not getattr(tokenizer, "chat_template", None):
        return language_model
    return replace(language_model, codec=ChatCodec(tokenizer=tokenizer))
