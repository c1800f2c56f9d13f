"""How much faster instructions are scored in packs than one sample at a time, with the same losses.

    python benchmarks/score.py [--source chatterbot] [--samples 400] [--model character] [--repeats 3]

Both sides score the same instructions by the same model, in turn in one process: ours as `lab score` does (best-fit
packs, the head on scored tokens alone), the other with one forward pass a sample, the head on the answer's columns
alone. Prints the seconds of both (wall and processor, medians), the ratio of each, and the greatest difference of a
loss. With `--model random` the model is the character model's network from a seed, so that nothing is fetched but the
source.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from lab.data.instructions.instructions import read_instructions
from lab.errors import LabError
from lab.parts.language_models import CharacterCodec, LanguageModel, as_chat_model
from lab.parts.omni_model import Example
from lab.training.loop import choose_device
from lab.training.named_parts import open_language_model
from lab.training.samples import SampleExamples
from lab.training.scoring import ScoringOptions, answer_losses, text_model
from standins.models.character_model import ALPHABET, DEFAULT_STEPS, PretrainingOptions, build_character_model

LARGEST_DIFFERENCE = 1e-3
RANDOM = "random"


@dataclass(frozen=True)
class Sides:
    """Seconds of both sides (wall, processor), medians, and the greatest difference of a loss, nats a token."""

    packed: tuple[float, float]
    single: tuple[float, float]
    difference: float


def open_model(name: str, device: str) -> LanguageModel:
    """A language model by name, on its device."""
    if name == RANDOM:
        codec = CharacterCodec(alphabet=ALPHABET)
        found = LanguageModel(RANDOM, build_character_model(PretrainingOptions(), codec).eval(), codec, RANDOM)
    else:
        found = as_chat_model(open_language_model(name, pretraining_steps=DEFAULT_STEPS))
    found.model.to(choose_device(device))
    return found


def readable(source: str, count: int, model: LanguageModel, budget_tokens: int) -> list[Example]:
    """The first instructions of a source that the model reads."""
    stream = read_instructions(source).samples
    omni = text_model(model)
    each = (SampleExamples(samples=[one]) for one in stream)
    fit = (one for one in each if one.why_not_readable(0, omni, max_tokens=budget_tokens) is None)
    found = [one.example(0, omni) for one in islice(fit, count)]
    if len(found) < 2:
        raise LabError(f"{model.name!r} reads {len(found)} instructions of {source!r}; choose another source or model")
    return found


@torch.inference_mode()
def one_at_a_time(model: LanguageModel, pairs: Sequence[Example]) -> np.ndarray:
    """The losses of single samples, each in a forward pass of its own."""
    omni = text_model(model)
    found = []
    for pair in pairs:
        scored = omni([pair])
        found.append(float(scored.loss / scored.num_tokens))
    return np.array(found)


def compare(model: LanguageModel, pairs: Sequence[Example], *, budget_tokens: int, repeats: int) -> Sides:
    """Time both sides in turn.

    Raises:
        LabError: their losses differ.
    """
    options = ScoringOptions(budget_tokens=budget_tokens, precision="float32")
    ids = [str(number) for number in range(len(pairs))]
    omni = text_model(model)
    lengths = [omni.num_tokens(pair) - 1 for pair in pairs]
    sides: tuple[Callable[[], np.ndarray], ...] = (
        lambda: answer_losses(
            omni, lambda places: [pairs[place] for place in places], lengths, options, ids, scorer=model.name
        ),
        lambda: one_at_a_time(model, pairs),
    )
    seconds: list[list[tuple[float, float]]] = [[], []]
    losses = [side() for side in sides]  # also warms both up
    for _ in range(repeats):
        for number, side in enumerate(sides):
            wall, processor = time.perf_counter(), time.process_time()
            side()
            seconds[number].append((time.perf_counter() - wall, time.process_time() - processor))
    difference = float(np.abs(losses[0] - losses[1]).max())
    if difference > LARGEST_DIFFERENCE:
        raise LabError(f"the two sides' losses are up to {difference:.2g} nats a token apart; the ratio means nothing")
    packed, single = (
        (statistics.median(wall for wall, _ in own), statistics.median(processor for _, processor in own))
        for own in seconds
    )
    return Sides(packed, single, difference)


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--source", default="chatterbot")
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--model", default="character")
    parser.add_argument("--budget-tokens", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    try:
        model = open_model(asked.model, asked.device)
        pairs = readable(asked.source, asked.samples, model, asked.budget_tokens)
        sides = compare(model, pairs, budget_tokens=asked.budget_tokens, repeats=asked.repeats)
    except LabError as error:
        sys.exit(f"error: {error}")
    tokens = sum(pair.num_tokens for pair in pairs)
    print(f"{len(pairs)} instructions of {asked.source}, {tokens:,} tokens, scored by {model.name}")
    for name, (wall, processor) in (("in packs", sides.packed), ("one at a time", sides.single)):
        print(f"{name:14} {wall:7.2f} s wall  {processor:7.2f} s processor  {tokens / wall:8,.0f} tokens a second")
    ratios = [single / packed for single, packed in zip(sides.single, sides.packed, strict=True)]
    print(f"ratio          {ratios[0]:7.2f}   wall  {ratios[1]:7.2f}   processor; losses {sides.difference:.1g} apart")


if __name__ == "__main__":
    main()
