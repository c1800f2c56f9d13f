"""Sequences of several modalities side by side, and the loss of the answers at their ends.

Section 3 of the paper. Axes: `batch`, `tokens` (positions of the joined sequence, padding included), `hidden_size` (the
language model's width).

A batch of three looks like this (`p` prompt, `a` audio or pictures, `s` start of the answer, `t` text, `e` end, `.`
padding)::

    . . . p a a s t t t e        padding stands on the left, so that all answers end together: the language
    p a a a a a s t t t e        model's head then runs on the last columns alone, and decoding continues
    . . . . p a a a s t e        every row at the same column
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

IGNORE_INDEX = -100


class JoinedSequence(NamedTuple):
    """Embeddings of joined sequences, padded on the left, with what the language model must know about them."""

    embeddings: Float[Tensor, "batch tokens hidden_size"]
    attention_mask: Int[Tensor, "batch tokens"]
    position_ids: Int[Tensor, "batch tokens"]


class AnswerLoss(NamedTuple):
    """Summed negative log-likelihood (nats) of each answer, and the number of its tokens, end included."""

    loss: Float[Tensor, " batch"]
    num_tokens: Int[Tensor, " batch"]


def pad_left(
    rows: Sequence[Float[Tensor, "length hidden_size"]], positions: Sequence[Int[Tensor, " length"]]
) -> JoinedSequence:
    """A batch of rows of different lengths, on the rows' device."""
    device = rows[0].device
    longest = max(len(row) for row in rows)
    embeddings = torch.stack([F.pad(row, (0, 0, longest - len(row), 0)) for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    position_ids = torch.stack([F.pad(p, (longest - len(p), 0)) for p in positions]).to(device)
    return JoinedSequence(embeddings, mask, position_ids)


def answer_loss(
    language_model: Any, joined: JoinedSequence, answers: Sequence[Sequence[int]], *, end_id: int
) -> AnswerLoss:
    """Loss of the answers (token ids without start and end) at the ends of the rows.

    With start `s`, answer `t u` and end `e`, the columns `s t u` predict `t u e`; nothing else is scored.
    """
    longest = max(len(answer) for answer in answers) + 1
    # The mask is always handed over: without one, transformers takes position_ids that do not rise by one for the
    # boundaries of packed samples and cuts the attention there.
    logits = language_model(
        inputs_embeds=joined.embeddings,
        attention_mask=joined.attention_mask,
        position_ids=joined.position_ids,
        logits_to_keep=longest,
        use_cache=False,
    ).logits
    labels = torch.full((len(answers), longest), IGNORE_INDEX)
    for row, answer in enumerate(answers):
        labels[row, longest - len(answer) - 1 :] = torch.tensor([*answer, end_id])
    labels = labels.to(logits.device)
    losses = F.cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=IGNORE_INDEX, reduction="none")
    return AnswerLoss(losses.sum(1), (labels != IGNORE_INDEX).sum(1))
