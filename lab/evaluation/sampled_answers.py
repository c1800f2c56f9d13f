"""Several answers of a language model to one question: the likeliest, and some drawn at a temperature, by seed.

Axes: `rows` (answers in the making), `vocabulary`. A drawn answer depends on the seed, its prompt's name and its number
alone: its noise is drawn for it, whatever stands beside it in the batch.
"""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.errors import LabError
from lab.evaluation.key_value_cache import AppendingCache
from lab.parts.language_models import LanguageModel


@torch.inference_mode()
def sample_answers(
    language_model: LanguageModel,
    names: Sequence[str],
    prompts: Sequence[Sequence[int]],
    *,
    num_samples: int,
    temperature: float,
    max_new_tokens: int,
    seed: int,
) -> list[list[list[int]]]:
    """For each prompt (token ids, start included): the greedy answer, then `num_samples` drawn ones; ids without end.

    The prompts are one batch, padded on the left; each is read once and then continued 1 + `num_samples` times. An
    answer that does not end is cut at `max_new_tokens`.

    Raises:
        LabError: no tokens in a prompt, a prompt too long for the model, or scores that are not finite (the prompt is
            named), a temperature that is not above 0, no new tokens, or a negative number of samples.
    """
    _check(language_model, names, prompts, num_samples, temperature, max_new_tokens)
    model, end = language_model.model, language_model.codec.end_id
    device = model.device
    longest = max(map(len, prompts))
    ids = torch.tensor([[end] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    # Models pretrained with time-aligned positions go on by so many frames a token.
    step = language_model.frames_per_token or 1
    positions = (mask.cumsum(1) - 1).clamp(min=0) * step
    cache = AppendingCache()
    scores = model(
        input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
    ).logits[:, -1]
    for name, finite in zip(names, torch.isfinite(scores).all(-1).tolist(), strict=True):
        if not finite:
            raise LabError(f"the language model {language_model.name!r} gives {name!r} scores that are not finite")
    each = 1 + num_samples
    rows = torch.arange(len(prompts), device=device).repeat_interleave(each)
    cache.select_rows(rows)
    scores, mask, positions = scores[rows], mask[rows], positions[rows, -1]
    noise = [None if k == 0 else _generator(seed, name, k) for name in names for k in range(each)]
    answers: list[list[int]] = [[] for _ in noise]
    active = list(range(len(answers)))
    while active:
        tokens = _chosen(scores, [noise[row] for row in active], temperature)
        going = [at for at, token in enumerate(tokens.tolist()) if token != end]
        for at in going:
            answers[active[at]].append(int(tokens[at]))
        going = [at for at in going if len(answers[active[at]]) < max_new_tokens]
        if not going:
            break
        if len(going) < len(active):
            kept = torch.tensor(going, device=device)
            cache.select_rows(kept)
            tokens, mask, positions = tokens[kept], mask[kept], positions[kept]
            active = [active[at] for at in going]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        positions = positions + step
        scores = model(
            input_ids=tokens[:, None],
            attention_mask=mask,
            position_ids=positions[:, None],
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
    return [answers[at : at + each] for at in range(0, len(answers), each)]


def _chosen(
    scores: Float[Tensor, "rows vocabulary"], noise: Sequence[torch.Generator | None], temperature: float
) -> Int[Tensor, " rows"]:
    """The likeliest token where there is no generator, else a draw: the largest of scores with Gumbel noise is one."""
    scores = scores.float() / temperature
    drawn = torch.zeros(scores.shape)
    for row, generator in enumerate(noise):
        if generator is not None:
            # Drawn on the CPU, so that every machine draws the same.
            drawn[row] = -torch.empty(scores.shape[1]).exponential_(generator=generator).log()
    return (scores + drawn.to(scores.device)).argmax(-1)


def _generator(seed: int, name: str, number: int) -> torch.Generator:
    digest = hashlib.sha256(f"{seed} {number} {name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _check(
    language_model: LanguageModel,
    names: Sequence[str],
    prompts: Sequence[Sequence[int]],
    num_samples: int,
    temperature: float,
    max_new_tokens: int,
) -> None:
    if num_samples < 0 or max_new_tokens < 1 or not temperature > 0:
        raise LabError(
            f"num_samples, max_new_tokens and temperature are {num_samples}, {max_new_tokens} and {temperature}, "
            "expected at least 0, at least 1 and above 0"
        )
    if len(names) != len(prompts) or not prompts:
        raise LabError(f"{len(names)} names for {len(prompts)} prompts; expected one each, and at least one")
    room = getattr(language_model.model.config, "max_position_embeddings", None)
    for name, prompt in zip(names, prompts, strict=True):
        if not prompt:
            raise LabError(f"the prompt of {name!r} has no tokens; expected at least the model's start")
        if room is not None and len(prompt) + max_new_tokens > room:
            raise LabError(
                f"the prompt of {name!r} has {len(prompt)} tokens and its answer up to {max_new_tokens}; language "
                f"model {language_model.name!r} takes {room} together"
            )
