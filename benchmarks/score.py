"""How much faster losses are scored in packs than one sample at a time, on the project's own conversations.

    python benchmarks/score.py [--model character] [--samples 400] [--repeats 3]

One side is what `lab score` does (`lab.training.scoring.answer_losses`: packs of 1,024 tokens); the other hands the same
samples to the same model one by one, the plain way: `input_ids` in, the mean loss of the answer's tokens out. In turn
in one process; the losses of both must be the same.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from lab.data.instructions import read_instructions
from lab.errors import LabError
from lab.parts.chat_codec import as_chat_model
from lab.parts.language_models import LanguageModel
from lab.training.character_model import DEFAULT_STEPS
from lab.training.instruction_rows import TokenPair, token_pair
from lab.training.scoring import ScoringOptions, answer_losses
from lab.training.vision_words import open_vision_language_model, text_writer

LARGEST_DIFFERENCE = 1e-4
OPTIONS = ScoringOptions(precision="float32")


def pairs_of(model: str, language_model: LanguageModel, count: int) -> list[TokenPair]:
    """The first conversations of chatterbot-corpus that fit a pack, as token ids."""
    read, write = read_instructions("chatterbot").instructions, text_writer(model)
    made = (token_pair(one, language_model, write, budget_tokens=OPTIONS.budget_tokens) for one in read)
    return list(islice((pair for pair in made if not isinstance(pair, str)), count))


@torch.inference_mode()
def one_at_a_time(language_model: LanguageModel, pairs: Sequence[TokenPair]) -> np.ndarray:
    """The other side: a forward pass a sample."""
    codec, network, found = language_model.codec, language_model.model, []
    for pair in pairs:
        ids = [*pair.prompt, *codec.start_ids, *pair.answer]
        output: Any = network(input_ids=torch.tensor([ids]), use_cache=False)
        labels = torch.tensor([*pair.answer, codec.end_id])
        found.append(float(F.cross_entropy(output.logits[0, -len(labels) :].float(), labels)))
    return np.array(found)


def main(model: str, count: int, repeats: int) -> None:
    """Score in turn and print rates, their ratio and the greatest difference.

    Raises:
        LabError: the sides' losses differ.
    """
    language_model = as_chat_model(open_vision_language_model(model, pretraining_steps=DEFAULT_STEPS))
    language_model.model.eval()
    pairs = pairs_of(model, language_model, count)
    ids = [str(number) for number in range(len(pairs))]
    sides: dict[str, Callable[[], np.ndarray]] = {
        "one at a time": lambda: one_at_a_time(language_model, pairs),
        "in packs": lambda: answer_losses(language_model, pairs, OPTIONS, ids),
    }
    losses = {name: side() for name, side in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            begun = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - begun)
    tokens = sum(pair.num_tokens for pair in pairs)
    print(
        f"{model}, {len(pairs)} conversations of {tokens / len(pairs):.0f} tokens, {torch.get_num_threads()} threads; "
        f"{os.getloadavg()[0]:.1f} processes want to run on {os.cpu_count()} cores"
    )
    for name, taken in seconds.items():
        print(f"{name}: {len(pairs) / statistics.median(taken):,.0f} samples a second (median of {repeats})")
    ratio = statistics.median(seconds["one at a time"]) / statistics.median(seconds["in packs"])
    difference = float(np.abs(losses["one at a time"] - losses["in packs"]).max())
    print(f"ratio {ratio:.2f}; losses differ by at most {difference:.1e} nats")
    if difference > LARGEST_DIFFERENCE:
        raise LabError(f"the losses of both sides differ by {difference:.1e}, more than {LARGEST_DIFFERENCE}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="character")
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    try:
        main(given.model, given.samples, given.repeats)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
