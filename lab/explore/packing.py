"""Packing as a picture: which samples share a pack, who may attend to whom in it, and whether that is so.

Section 3 of the paper (packed fine-tuning). Axes: `samples`, `tokens` (of one pack).
"""

from collections.abc import Sequence
from typing import Any

import ipywidgets
import numpy as np
import torch
from jaxtyping import Bool
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy import ndarray
from torch.nn import functional
from transformers import Qwen3Config, Qwen3ForCausalLM

from lab.data.packing import Packs, pack_best_fit
from lab.errors import LabError
from lab.explore.panel import Panel, Shown, slider
from lab.explore.shown import html_of
from lab.paper.style import GREY, STYLES
from lab.parts.joined_sequences import AnswerLoss, PackedAnswers
from lab.parts.language_models import CharacterCodec, LanguageModel
from lab.parts.omni_model import Example, OmniModel
from lab.parts.packed_attention import PACKED_ATTENTION
from lab.training.packing_certificate import certify

NUM_PACKS_SHOWN = 40


def attention_mask(lengths: Sequence[int]) -> Bool[ndarray, "tokens tokens"]:
    """Who may attend (rows) to whom (columns) in a pack of samples of these lengths: causal, inside one's own sample.

    Lengths 2 and 1: the first token sees itself, the second both, the third itself alone.
    """
    sample = np.repeat(np.arange(len(lengths)), lengths)
    tokens = np.arange(len(sample))
    mask: Bool[ndarray, "tokens tokens"] = (sample[:, None] == sample[None]) & (tokens[:, None] >= tokens[None])
    return mask


def packing_panel(lengths: Sequence[int], *, budget: int = 512, pack: int = 0) -> Panel:
    """Slide the budget (tokens) and the number of samples of these lengths, and look at one pack."""
    if not len(lengths):
        raise LabError("there is nothing to pack; expected the lengths of one sample or more")
    longest = int(max(lengths))

    def show(budget: int, num_samples: int, pack: int) -> list[Shown]:
        packs = pack_best_fit(lengths[:num_samples], budget)
        if pack >= len(packs):
            raise LabError(f"there are {len(packs)} packs, counted from 0, and no pack {pack}; choose a lower one")
        return [f"<p>{packs.statistics()}</p>", _draw(packs, pack)]

    controls = {
        "budget": slider("budget (tokens)", max(budget, longest), longest, max(2048, 2 * longest, budget)),
        "num_samples": slider("samples", len(lengths), 1, len(lengths)),
        "pack": ipywidgets.BoundedIntText(value=pack, min=0, max=len(lengths) - 1, description="pack"),
    }
    return Panel(controls, show)


def _draw(packs: Packs, pack: int) -> Figure:
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    filled, seen = figure.subplots(1, 2, width_ratios=(1.6, 1))
    first = min(max(0, pack - NUM_PACKS_SHOWN // 2), max(0, len(packs) - NUM_PACKS_SHOWN))
    for number in range(first, min(len(packs), first + NUM_PACKS_SHOWN)):
        begin = 0
        for place, length in enumerate(packs.lengths[packs[number]]):
            look = {"color": STYLES[place % len(STYLES)].colour, "alpha": 1.0 if number == pack else 0.45}
            filled.barh(number, length, left=begin, edgecolor="white", **look)
            begin += int(length)
    filled.axvline(packs.budget, color=GREY, linestyle=(0, (4, 3)), linewidth=1.0)
    filled.invert_yaxis()
    filled.set(xlabel="tokens", ylabel="pack", title=f"Packs {first} to {number} of {len(packs)}; one colour a sample")
    lengths = packs.lengths[packs[pack]].tolist()
    colours = np.array([to_rgb(STYLES[place % len(STYLES)].colour) for place in range(len(lengths))])
    mask = attention_mask(lengths)
    seen.imshow(np.where(mask[..., None], np.repeat(colours, lengths, axis=0)[:, None], 1.0), interpolation="nearest")
    seen.grid(False)
    seen.set(xlabel="token that is seen", ylabel="token that looks", title=f"Pack {pack}: {len(lengths)} samples")
    return figure


def certificate_panel(model: OmniModel, examples: Sequence[Example]) -> Panel:
    """Run the packing certificate on examples, with a backend of one's choice or with the leak of `as_one_text`."""
    backends = ["auto", *PACKED_ATTENTION]

    def show(attention: str, leak: bool) -> list[Shown]:
        packed = (lambda chosen, attention: as_one_text(model, chosen)) if leak else None
        found = certify(model, examples, attention=attention, packs=[examples], packed=packed)
        verdict = "passed" if found.passed else f"FAILED: {len(found.failed)} of {len(found.checks)} checks find leaks"
        return [f"<p><b>packing certificate {verdict}</b></p>{html_of(found)}"]

    controls = {
        "attention": ipywidgets.Dropdown(options=backends, value="auto", description="attention"),
        "leak": ipywidgets.Checkbox(value=False, description="leak: take the pack for one text"),
    }
    return Panel(controls, show)


def as_one_text(model: OmniModel, examples: Sequence[Example]) -> PackedAnswers:
    """What comes of examples that are joined and nothing more: each sees those before it, and positions run on."""
    packed = model.pack(examples)
    packed = packed._replace(position_ids=torch.arange(packed.embeddings.shape[1])[None])
    logits = model.language_model(inputs_embeds=packed.embeddings, use_cache=False).logits[0]
    counts = [len(example.answer) + 1 for example in examples]
    ends = np.cumsum(packed.boundaries.lengths)
    scored = torch.cat([torch.arange(end - count, end) for end, count in zip(ends, counts, strict=True)])
    labels = torch.tensor([i for example in examples for i in (*example.answer, model.codec.end_id)])
    losses = functional.cross_entropy(logits[scored], labels, reduction="none").split(counts)
    loss = AnswerLoss(torch.stack([own.sum() for own in losses]), torch.tensor(counts))
    return PackedAnswers(packed, logits[scored], labels, loss)


def model_of_characters(texts: Sequence[str]) -> OmniModel:
    """A small character model of random weights that can read these texts: who sees whom is no matter of weights."""
    torch.manual_seed(0)
    codec = CharacterCodec(alphabet="".join(sorted(set("".join(texts)))))
    attention = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16}
    sizes: Any = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, **attention}
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=codec.vocab_size, initializer_range=0.06, **sizes))
    return OmniModel(language_model=LanguageModel("characters, untrained", model, codec, "0", None))
