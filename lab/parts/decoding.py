"""Greedy, beam and drawn answers of a batch with a key-value cache: the prefix is read once, then one token a step.

Axes: `batch` (examples), `beams`; in the cache `heads`, `tokens`, `head_dim`. A drawn answer depends on the seed, its
example's name and its number alone: its noise is drawn for it, whatever stands beside it in the batch.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformers.cache_utils import Cache, DynamicLayer

from lab.errors import LabError
from lab.parts.omni_model import Example, OmniModel

IMPOSSIBLE = float("-inf")
_LEAST_ROOM = 64


@torch.inference_mode()
def decode(
    model: OmniModel,
    examples: Sequence[Example],
    *,
    max_new_tokens: int | Sequence[int],
    num_beams: int = 1,
    length_penalty: float = 1.0,
) -> list[list[int]]:
    """Answers as token ids, without start and end; one that does not end is cut at `max_new_tokens`, its own or all's.

    The examples' own answers are not looked at. With one beam this is greedy decoding. With more, it is transformers'
    beam search (`early_stopping=False`): the hypothesis of the largest log-probability / length ** `length_penalty`
    wins, ended or cut at its limit. The end counts as one token of the length.

    Raises:
        LabError: fewer than one beam or one new token.
    """
    limits = [max_new_tokens] * len(examples) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    if num_beams < 1 or min(limits, default=1) < 1:
        raise LabError(f"decoding needs at least one beam and one new token, not {num_beams} and {min(limits)}")
    state = _Continuation(model, [replace(example, answer=()) for example in examples])
    if num_beams == 1:
        return _token_by_token(state, state.scores, limits, lambda scores, rows: scores.argmax(-1))
    return _beam(state, limits, num_beams, length_penalty)


@torch.inference_mode()
def draw(
    model: OmniModel,
    examples: Sequence[Example],
    names: Sequence[str],
    *,
    num_samples: int,
    temperature: float,
    max_new_tokens: int,
    seed: int,
) -> list[list[list[int]]]:
    """For each example: the greedy answer, then `num_samples` drawn at a temperature; token ids without start and end.

    An example's own answer is how they all begin, and is not among the ids. An answer that does not end is cut at
    `max_new_tokens`.

    Raises:
        LabError: a number out of range, an example that leaves no room in the model's context, or scores that are not
            finite (the example is named).
    """
    if num_samples < 0 or max_new_tokens < 1 or not temperature > 0:
        raise LabError(
            f"num_samples, max_new_tokens and temperature are {num_samples}, {max_new_tokens} and {temperature}, "
            "expected at least 0, at least 1 and above 0"
        )
    language = model.language
    room = getattr(language.model.config, "max_position_embeddings", None)
    for name, example in zip(names, examples, strict=True):
        if room is not None and (begun := model.num_tokens(example) - 1) + max_new_tokens > room:
            raise LabError(
                f"the prompt of {name!r} has {begun} tokens and its answer up to {max_new_tokens}; language model "
                f"{language.name!r} takes {room} together"
            )
    state = _Continuation(model, examples)
    for name, finite in zip(names, torch.isfinite(state.scores).all(-1).tolist(), strict=True):
        if not finite:
            raise LabError(f"the language model {language.name!r} gives {name!r} scores that are not finite")
    each = 1 + num_samples
    rows = torch.arange(len(examples), device=state.scores.device).repeat_interleave(each)
    state.keep(rows)
    noise = [None if k == 0 else _generator(seed, name, k) for name in names for k in range(each)]

    def likeliest_or_drawn(scores: Float[Tensor, "batch vocabulary"], rows: Sequence[int]) -> Int[Tensor, " batch"]:
        """The largest of scores with Gumbel noise is a draw."""
        drawn = torch.zeros(scores.shape)
        for at, row in enumerate(rows):
            if (generator := noise[row]) is not None:
                # Drawn on the CPU, so that every machine draws the same.
                drawn[at] = -torch.empty(scores.shape[1]).exponential_(generator=generator).log()
        return (scores / temperature + drawn.to(scores.device)).argmax(-1)

    answers = _token_by_token(state, state.scores[rows], [max_new_tokens] * len(rows), likeliest_or_drawn)
    return [answers[at : at + each] for at in range(0, len(answers), each)]


def _generator(seed: int, name: str, number: int) -> torch.Generator:
    digest = hashlib.sha256(f"{seed} {number} {name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


class AppendingLayer(DynamicLayer):
    """Keys and values of one layer, in buffers with room for more tokens; `keys` and `values` are views of them.

    Transformers' own copies everything that it holds at every step.
    """

    _buffers: tuple[Tensor, ...]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append the new tokens and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._buffers = (key_states[:, :, :0], value_states[:, :, :0])
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self._buffers[0].shape[-2]:
            # Half as much room again, so that growing costs little however long an answer gets.
            room = end - start + max(_LEAST_ROOM, end // 2)
            self._buffers = tuple(F.pad(held, (0, 0, 0, room)) for held in self._show(start))
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        return self._show(end)

    def batch_select_indices(self, indices: Int[Tensor, " chosen"]) -> None:
        """Keep these rows, in this order."""
        length = self.get_seq_length()
        self._buffers = tuple(buffer.index_select(0, indices) for buffer in self._buffers)
        self._show(length)

    def _show(self, length: int) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)
        return self.keys, self.values


class _Continuation:
    """What the language model has read of each example: the prefix, and after it the tokens of all of its beams.

    The prefix ends with the answer so far; `scores` are the log-probabilities of what comes after it.

    A step appends one token a beam. They stand side by side in the cache for good, and a mask lets each see the prefix
    and its own ancestors only, so that nothing is copied when beams die or branch, and the prefix is kept once::

        prefix | a b | c d      step 1: beams a, b; step 2: c and d both continue b
        1 1 1 1  0 1   1 0      what c sees
        1 1 1 1  0 1   0 1      what d sees
    """

    def __init__(self, model: OmniModel, examples: Sequence[Example]) -> None:
        self._model, self._cache = model, Cache(layer_class_to_replicate=AppendingLayer)
        self.end_id = model.codec.end_id
        joined = model.embed(examples)
        output = model.language_model(
            inputs_embeds=joined.embeddings,
            attention_mask=joined.attention_mask,
            position_ids=joined.position_ids,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.scores: Float[Tensor, "batch vocabulary"] = output.logits[:, -1].float().log_softmax(-1)
        self._prefix = joined.attention_mask.bool()
        self._positions = joined.position_ids[:, -1]
        self._ancestors = self._prefix.new_zeros(len(self._prefix), 1, 0)

    def keep(self, rows: Int[Tensor, " chosen"]) -> None:
        """Forget all examples but these."""
        self._cache.batch_select_indices(rows)
        self._prefix, self._positions = self._prefix[rows], self._positions[rows]
        self._ancestors = self._ancestors[rows]

    def step(
        self, tokens: Int[Tensor, "batch beams"], parents: Int[Tensor, "batch beams"]
    ) -> Float[Tensor, "batch beams vocabulary"]:
        """Append a token to each beam, which continues the beam `parents` of the last step; what comes next."""
        batch, beams = tokens.shape
        own = torch.eye(beams, dtype=torch.bool, device=tokens.device).expand(batch, -1, -1)
        inherited = self._ancestors.gather(1, parents[..., None].expand(-1, -1, self._ancestors.shape[2]))
        self._ancestors = torch.cat([inherited, own], dim=2)
        visible = torch.cat([self._prefix[:, None].expand(-1, beams, -1), self._ancestors], dim=2)[:, None]
        language_model = self._model.language_model
        # Added to the scores rather than boolean: both of transformers' attentions take it.
        mask = torch.zeros(visible.shape, dtype=language_model.dtype, device=tokens.device)
        mask.masked_fill_(~visible, torch.finfo(mask.dtype).min)
        self._positions = self._model.next_positions(self._positions)
        logits = language_model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=self._positions[:, None].expand(-1, beams),
            past_key_values=self._cache,
            use_cache=True,
        ).logits
        return logits.float().log_softmax(-1)


def _token_by_token(
    state: _Continuation,
    scores: Float[Tensor, "batch vocabulary"],
    limits: Sequence[int],
    choose: Callable[[Float[Tensor, "batch vocabulary"], Sequence[int]], Int[Tensor, " batch"]],
) -> list[list[int]]:
    """Take the token that `choose` gives each row by its scores and number; rows that have ended leave the batch."""
    end = state.end_id
    answers: list[list[int]] = [[] for _ in range(len(scores))]
    active = list(range(len(scores)))
    while True:
        tokens = choose(scores, active)
        going = [row for row, token in enumerate(tokens.tolist()) if token != end]
        for row in going:
            answers[active[row]].append(int(tokens[row]))
        going = [row for row in going if len(answers[active[row]]) < limits[active[row]]]
        if not going:
            return answers
        if len(going) < len(active):
            rows = torch.tensor(going, device=scores.device)
            state.keep(rows)
            tokens, active = tokens[rows], [active[row] for row in going]
        scores = state.step(tokens[:, None], torch.zeros_like(tokens)[:, None])[:, 0]


def _beam(state: _Continuation, limits: Sequence[int], num_beams: int, length_penalty: float) -> list[list[int]]:
    """Keep the `num_beams` likeliest unfinished hypotheses of an example until they cannot beat its finished ones.

    An example that is decided leaves the batch, so that its neighbours' lengths do not change its answer.
    """
    end, batch = state.end_id, len(state.scores)
    device = state.scores.device
    answers: list[list[int]] = [[] for _ in range(batch)]
    active = list(range(batch))
    finished: list[list[tuple[float, list[int]]]] = [[] for _ in range(batch)]
    hypotheses: list[list[list[int]]] = [[[]] for _ in range(batch)]
    totals = torch.zeros(batch, 1, device=device)
    scores = state.scores[:, None]
    for step in range(max(limits)):
        vocabulary = scores.shape[-1]
        candidates = (totals[..., None] + scores).flatten(1)
        # Twice as many as needed: at most one continuation of each beam ends it.
        values, flat = candidates.topk(min(2 * num_beams, candidates.shape[1]))
        rows, tokens, parents, kept_totals, kept_hypotheses = [], [], [], [], []
        for row, (own_values, own_flat) in enumerate(zip(values.tolist(), flat.tolist(), strict=True)):
            number = active[row]
            chosen: list[tuple[float, int, int]] = []
            for rank, (value, index) in enumerate(zip(own_values, own_flat, strict=True)):
                beam, token = divmod(index, vocabulary)
                if token != end and len(chosen) < num_beams:
                    chosen.append((value, beam, token))
                # One that ends, or is cut at the limit, counts among the likeliest alone.
                if rank < num_beams and value > IMPOSSIBLE and (token == end or step == limits[number] - 1):
                    answer = hypotheses[row][beam] if token == end else [*hypotheses[row][beam], token]
                    finished[number].append((value / (step + 1) ** length_penalty, answer))
            # Fewer than num_beams continuations only where the vocabulary is tiny: the rest is impossible.
            chosen += [(IMPOSSIBLE, 0, end)] * (num_beams - len(chosen))
            running = [value for value, _, _ in chosen]
            continued = [[*hypotheses[row][beam], token] for _, beam, token in chosen]
            best_running = max(running) / (step + 1) ** length_penalty
            scored = sorted((score for score, _ in finished[number]), reverse=True)
            decided = len(scored) >= num_beams and scored[num_beams - 1] >= best_running
            if decided or step == limits[number] - 1:
                answers[number] = max(finished[number], key=lambda one: one[0])[1]
                continue
            rows.append(row)
            tokens.append([token for _, _, token in chosen])
            parents.append([beam for _, beam, _ in chosen])
            kept_totals.append(running)
            kept_hypotheses.append(continued)
        if not rows:
            break
        if len(rows) < len(active):
            state.keep(torch.tensor(rows, device=device))
        active, hypotheses = [active[row] for row in rows], kept_hypotheses
        totals = torch.tensor(kept_totals, device=device)
        scores = state.step(torch.tensor(tokens, device=device), torch.tensor(parents, device=device))
    return answers
