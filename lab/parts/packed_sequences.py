"""Samples of any modality one behind the other in one sequence, and the loss of the answers at their ends.

Section 3 of the paper; the packed counterpart of `lab.parts.joined_sequences`. Axes: `tokens` (of all samples),
`scored` (those that predict an answer's token), `hidden_size` (the language model's width).

Two samples of 5 and 4 tokens (`p` prompt, `a` audio or pictures, `s` start of the answer, `t` text) and what their
tokens predict (`e` end, `-` nothing; no label is ever the next sample's token)::

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

from lab.errors import LabError
from lab.parts.joined_sequences import AnswerLoss
from lab.parts.packed_attention import choose_packed_attention
from lab.parts.packed_attention_in_models import isolated_samples
from lab.parts.packed_attention_kernels import SampleBoundaries


class PackedSequence(NamedTuple):
    """Embeddings of samples one behind the other, the positions of each, and where each begins and ends."""

    embeddings: Float[Tensor, "1 tokens hidden_size"]
    position_ids: Int[Tensor, "1 tokens"]
    cu_seqlens: Int[Tensor, " samples_and_one"]
    max_seqlen: int
    lengths: tuple[int, ...]


class PackedAnswers(NamedTuple):
    """What a model makes of packed samples; `loss` counts each sample's own scored tokens."""

    packed: PackedSequence
    logits: Float[Tensor, "scored vocab_size"]
    labels: Int[Tensor, " scored"]
    loss: AnswerLoss


def pack_rows(
    rows: Sequence[Float[Tensor, "length hidden_size"]], positions: Sequence[Int[Tensor, " length"]]
) -> PackedSequence:
    """Join rows, on their device; `positions` are each row's own, so they start anew with every row.

    Raises:
        LabError: no rows, an empty row, or not one position a token.
    """
    if not rows or len(rows) != len(positions):
        raise LabError(f"a pack needs rows, and positions for each, not {len(rows)} and {len(positions)}")
    for index, (row, own) in enumerate(zip(rows, positions, strict=True)):
        if not len(row) or own.shape != (len(row),):
            raise LabError(
                f"row {index} of a pack has {len(row)} tokens and positions of shape {tuple(own.shape)}; expected at "
                "least 1 token and one position each"
            )
    lengths = tuple(len(row) for row in rows)
    ends = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    device = rows[0].device
    together = torch.cat([own.to(device) for own in positions])
    return PackedSequence(torch.cat(list(rows))[None], together[None], ends.to(device), max(lengths), lengths)


def packed_answers(
    language_model: Any,
    packed: PackedSequence,
    answers: Sequence[Sequence[int]],
    *,
    end_id: int,
    attention: str = "auto",
) -> PackedAnswers:
    """Logits, labels and losses of the answers (token ids without start and end) at the ends of the samples.

    With start `s`, answer `t u` and end `e`, the last tokens of a sample, `s t u`, predict `t u e`; nothing else is
    scored, and the head runs on nothing else.

    Args:
        language_model: a causal model of transformers whose attention goes through the library's interface.
        packed: the samples.
        answers: one a sample; the sample's row ends with its start and its tokens.
        end_id: the token that ends every answer.
        attention: of `PACKED_ATTENTION`, or `auto`.

    Raises:
        LabError: not one answer a sample, an answer longer than its sample, a backend that this machine cannot run, or
            what `isolated_samples` refuses.
    """
    if len(answers) != len(packed.lengths):
        raise LabError(f"a pack of {len(packed.lengths)} samples needs an answer for each, not {len(answers)}")
    counts = [len(answer) + 1 for answer in answers]
    for index, (count, length) in enumerate(zip(counts, packed.lengths, strict=True)):
        if count > length:
            raise LabError(f"sample {index} of a pack has {length} tokens, too few for its answer of {count - 1}")
    device = packed.embeddings.device
    ends = torch.tensor(packed.lengths).cumsum(0).tolist()
    scored = torch.cat([torch.arange(end - n, end) for end, n in zip(ends, counts, strict=True)]).to(device)
    labels = torch.tensor([i for answer in answers for i in (*answer, end_id)], device=device)
    cast = torch.is_autocast_enabled(device.type)
    backend = choose_packed_attention(
        attention,
        device=device,
        dtype=torch.get_autocast_dtype(device.type) if cast else packed.embeddings.dtype,
        gradients=torch.is_grad_enabled(),
    )
    boundaries = SampleBoundaries(packed.lengths, packed.cu_seqlens)
    with isolated_samples(language_model, boundaries, attention=backend) as kept_apart:
        # No mask is handed over: it could only say what the boundaries say, in memory of tokens squared.
        logits = language_model(
            inputs_embeds=packed.embeddings,
            position_ids=packed.position_ids,
            logits_to_keep=scored,
            use_cache=False,
            **kept_apart,
        ).logits[0]
    losses = F.cross_entropy(logits.float(), labels, reduction="none")
    num_tokens = torch.tensor(counts, device=device)
    # A sum over each sample's own tokens, in which no other's is ever added and taken away again.
    summed = torch.segment_reduce(losses, "sum", lengths=num_tokens, unsafe=True)
    return PackedAnswers(packed, logits, labels, AnswerLoss(summed, num_tokens))
