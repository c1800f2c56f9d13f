"""Sequences of several modalities, padded side by side or packed one after the other, and the loss of their answers.

Section 3 of the paper. Axes: `batch`, `tokens` (positions of the joined sequence), `scored` (those that predict an
answer's token), `hidden_size` (the language model's width).

A padded batch of three looks like this (`p` prompt, `a` audio or pictures, `s` start of the answer, `t` text, `e` end,
`.` padding)::

    . . . p a a s t t t e        padding stands on the left, so that all answers end together: the language
    p a a a a a s t t t e        model's head then runs on the last columns alone, and decoding continues
    . . . . p a a a s t e        every row at the same column

And so do two packed samples of 5 and 4 tokens, and what their tokens predict (`-` nothing; no label is ever the next
sample's token)::

    tokens        p a a s t   a a a s
    position_ids  0 1 2 3 4   0 1 2 3
    labels        - - - t e   - - - e
    cu_seqlens    0         5         9
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from lab.parts.packed_attention import SampleBoundaries, call_packed, choose_packed_attention

IGNORE_INDEX = -100


class JoinedSequence(NamedTuple):
    """Embeddings of joined sequences, padded on the left, with what the language model must know about them."""

    embeddings: Float[Tensor, "batch tokens hidden_size"]
    attention_mask: Int[Tensor, "batch tokens"]
    position_ids: Int[Tensor, "batch tokens"]


class PackedSequence(NamedTuple):
    """Embeddings of samples one after the other, the positions of each, and where each begins and ends."""

    embeddings: Float[Tensor, "1 tokens hidden_size"]
    position_ids: Int[Tensor, "1 tokens"]
    boundaries: SampleBoundaries


class AnswerLoss(NamedTuple):
    """Summed negative log-likelihood (nats) of each answer, and the number of its tokens, end included."""

    loss: Float[Tensor, " batch"]
    num_tokens: Int[Tensor, " batch"]


class PackedAnswers(NamedTuple):
    """What a model makes of packed samples; `loss` counts each sample's own scored tokens."""

    packed: PackedSequence
    logits: Float[Tensor, "scored vocab_size"]
    labels: Int[Tensor, " scored"]
    loss: AnswerLoss


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


def pack_rows(
    rows: Sequence[Float[Tensor, "length hidden_size"]], positions: Sequence[Int[Tensor, " length"]]
) -> PackedSequence:
    """Rows one after the other, on their device; `positions` are each row's own, so they start anew with every row."""
    lengths = tuple(len(row) for row in rows)
    ends = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    device = rows[0].device
    together = torch.cat([own.to(device) for own in positions])
    return PackedSequence(torch.cat(list(rows))[None], together[None], SampleBoundaries(lengths, ends.to(device)))


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


def packed_answers(
    language_model: Any,
    packed: PackedSequence,
    answers: Sequence[Sequence[int]],
    *,
    end_id: int,
    attention: str = "auto",
) -> PackedAnswers:
    """Logits, labels and losses of the answers at the ends of packed samples, one each: what `answer_loss` gives.

    The head runs on the scored tokens alone. `attention` is of `PACKED_ATTENTION`, or `auto`.

    Raises:
        LabError: a backend that this machine cannot run, or a model that `call_packed` refuses.
    """
    device = packed.embeddings.device
    counts = [len(answer) + 1 for answer in answers]
    ends = torch.tensor(packed.boundaries.lengths).cumsum(0).tolist()
    scored = torch.cat([torch.arange(end - n, end) for end, n in zip(ends, counts, strict=True)]).to(device)
    labels = torch.tensor([i for answer in answers for i in (*answer, end_id)], device=device)
    cast = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if cast else packed.embeddings.dtype
    logits = call_packed(
        language_model,
        packed.embeddings,
        attention=choose_packed_attention(attention, device=device, dtype=dtype),
        boundaries=packed.boundaries,
        position_ids=packed.position_ids,
        logits_to_keep=scored,
        use_cache=False,
    ).logits[0]
    losses = F.cross_entropy(logits.float(), labels, reduction="none")
    num_tokens = torch.tensor(counts, device=device)
    # A sum over each sample's own tokens, in which no other's is ever added and taken away again.
    summed = torch.segment_reduce(losses, "sum", lengths=num_tokens, unsafe=True)
    return PackedAnswers(packed, logits, labels, AnswerLoss(summed, num_tokens))
