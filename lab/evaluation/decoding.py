"""Greedy and beam decoding of a batch with a key-value cache: the prefix is read once, then one token a step.

Axes: `batch` (utterances), `beams`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.errors import LabError
from lab.evaluation.key_value_cache import BeamCache
from lab.parts.audio_language_model import AudioLanguageModel

IMPOSSIBLE = float("-inf")


@torch.inference_mode()
def decode(
    model: AudioLanguageModel,
    features: Float[Tensor, "batch frames features"],
    lengths: Int[Tensor, " batch"],
    *,
    max_new_tokens: int,
    num_beams: int = 1,
    length_penalty: float = 1.0,
) -> list[list[int]]:
    """Answers as token ids, without start and end; an answer that does not end is cut at `max_new_tokens`.

    With one beam this is greedy decoding. With more, the finished hypothesis of the largest
    log-probability / length ** `length_penalty` wins, as in transformers.

    Raises:
        LabError: fewer than one beam or one new token.
    """
    if num_beams < 1 or max_new_tokens < 1:
        raise LabError(f"decoding needs at least one beam and one new token, not {num_beams} and {max_new_tokens}")
    joined = model.join(features, lengths, [[] for _ in range(len(features))])
    cache = BeamCache()
    output = model.language_model(
        inputs_embeds=joined.embeddings,
        attention_mask=joined.attention_mask,
        position_ids=joined.position_ids,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    scores = output.logits[:, -1].float().log_softmax(-1)
    state = _State(model, cache, joined.attention_mask, joined.position_ids[:, -1])
    if num_beams == 1:
        return _greedy(state, scores, max_new_tokens)
    return _beam(state, scores, max_new_tokens, num_beams, length_penalty)


class _State:
    """The cache and, for each of its rows, the mask and the position of the last token."""

    def __init__(
        self,
        model: AudioLanguageModel,
        cache: BeamCache,
        mask: Int[Tensor, "rows tokens"],
        position_ids: Int[Tensor, " rows"],
    ) -> None:
        self.model, self.cache, self.mask, self.position_ids = model, cache, mask, position_ids
        self._prefix = mask.shape[1]

    def select(self, rows: Int[Tensor, " chosen"], *, same_utterances: bool = False) -> None:
        """Keep these rows, in this order, repeats allowed; `same_utterances`: each in place of one of its own."""
        self.cache.select_rows(rows, same_utterances=same_utterances, prefix=self._prefix)
        self.mask, self.position_ids = self.mask[rows], self.position_ids[rows]

    def step(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows vocabulary"]:
        """Append one token to every row and return the log-probabilities of the next."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        self.position_ids = self.model.next_positions(self.position_ids)
        logits = self.model.language_model(
            input_ids=tokens[:, None],
            attention_mask=self.mask,
            position_ids=self.position_ids[:, None],
            past_key_values=self.cache,
            use_cache=True,
        ).logits
        return logits[:, -1].float().log_softmax(-1)


def _greedy(state: _State, scores: Float[Tensor, "batch vocabulary"], max_new_tokens: int) -> list[list[int]]:
    """Take the likeliest token each time; rows that have ended leave the batch."""
    end = state.model.codec.end_id
    answers: list[list[int]] = [[] for _ in range(len(scores))]
    active = list(range(len(scores)))
    for step in range(max_new_tokens):
        tokens = scores.argmax(-1)
        going = [row for row, token in enumerate(tokens.tolist()) if token != end]
        for row in going:
            answers[active[row]].append(int(tokens[row]))
        if not going or step == max_new_tokens - 1:
            break
        if len(going) < len(active):
            rows = torch.tensor(going, device=scores.device)
            state.select(rows)
            tokens, active = tokens[rows], [active[row] for row in going]
        scores = state.step(tokens)
    return answers


def _beam(
    state: _State,
    scores: Float[Tensor, "batch vocabulary"],
    max_new_tokens: int,
    num_beams: int,
    length_penalty: float,
) -> list[list[int]]:
    """Keep the `num_beams` likeliest unfinished hypotheses of an utterance until they cannot beat its finished ones.

    An utterance that is decided leaves the batch, so that its neighbours' lengths do not change its answer.
    """
    end, batch = state.model.codec.end_id, len(scores)
    device = scores.device
    answers: list[list[int]] = [[] for _ in range(batch)]
    active = list(range(batch))
    finished: list[list[tuple[float, list[int]]]] = [[] for _ in range(batch)]
    hypotheses: list[list[list[int]]] = [[[]] for _ in range(batch)]
    totals = torch.zeros(batch, 1, device=device)
    for step in range(max_new_tokens):
        vocabulary = scores.shape[-1]
        beams = totals.shape[1]
        candidates = totals[..., None] + scores.view(len(active), beams, vocabulary)
        # Twice as many as needed: at most one continuation of each beam ends it.
        values, flat = candidates.flatten(1).topk(min(2 * num_beams, beams * vocabulary))
        rows, tokens, going, kept_totals, kept_hypotheses = [], [], [], [], []
        for b, utterance in enumerate(active):
            chosen: list[tuple[float, int, int]] = []
            for value, index in zip(values[b].tolist(), flat[b].tolist(), strict=True):
                beam, token = divmod(index, vocabulary)
                if token == end:
                    if value > IMPOSSIBLE and len(chosen) < num_beams:
                        length = len(hypotheses[b][beam]) + 1
                        finished[utterance].append((value / length**length_penalty, hypotheses[b][beam]))
                elif len(chosen) < num_beams:
                    chosen.append((value, beam, token))
            # Fewer than num_beams continuations only where the vocabulary is tiny: the rest is impossible.
            chosen += [(IMPOSSIBLE, 0, end)] * (num_beams - len(chosen))
            running = [value for value, _, _ in chosen]
            continued = [[*hypotheses[b][beam], token] for _, beam, token in chosen]
            best_running = max(running) / (step + 1) ** length_penalty
            if step == max_new_tokens - 1 or _decided(finished[utterance], best_running, num_beams):
                answers[utterance] = _best(finished[utterance], continued, running)
                continue
            going.append(utterance)
            rows += [b * beams + beam for _, beam, _ in chosen]
            tokens += [token for _, _, token in chosen]
            kept_totals.append(running)
            kept_hypotheses.append(continued)
        if not going:
            break
        same = going == active and beams == num_beams
        active, hypotheses, totals = going, kept_hypotheses, torch.tensor(kept_totals, device=device)
        state.select(torch.tensor(rows, device=device), same_utterances=same)
        scores = state.step(torch.tensor(tokens, device=device))
    return answers


def _decided(finished: Sequence[tuple[float, list[int]]], best_running: float, num_beams: int) -> bool:
    """Whether `num_beams` hypotheses have ended that the best running one, at its length of today, does not beat."""
    scores = sorted((score for score, _ in finished), reverse=True)
    return len(scores) >= num_beams and scores[num_beams - 1] >= best_running


def _best(finished: Sequence[tuple[float, list[int]]], running: list[list[int]], totals: list[float]) -> list[int]:
    """The best finished hypothesis; the likeliest running one (all are equally long) where none has ended."""
    if finished:
        return max(finished, key=lambda scored: scored[0])[1]
    return running[max(range(len(running)), key=lambda i: totals[i])]
