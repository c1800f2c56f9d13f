"""How much faster training is in packs than in right-padded batches of the same samples, and where it is not.

    python benchmarks/packing.py [--samples 96] [--batch-size 32] [--repeats 3] [--device auto]

Samples have the lengths of the project's own corpora (`packing_lengths.json`), and of one corpus in which all are
equally long; their tokens are random, and the second half of each is its answer. The model is the character model's
network from a seed. One side pads a shuffled batch of 32 on the right to its longest (`random`), or batches of like
length, as `lab.data.packing` makes them (`sorted`); the other packs the same samples by best fit, to a budget of as
many tokens as a batch holds on average (or the longest sample's). Both train an epoch with `lab.training.loop.train`,
in turn in one process, each from the same weights; a step is a batch or a pack.

A row says: the share of padded places that are padding, real tokens a second of both (medians), their ratio, the same
ratio by processor time (which tells more where other work runs beside it, and nothing about a GPU), what a step saves
for its backward pass at most (on a GPU: the peak of its memory), and the greatest relative difference of a sample's
loss between the sides, before training. Rows are printed as they are measured.
"""

import argparse
import copy
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.packing_lengths import read_lengths
from lab.data.packing import bucketed_epoch, pack_best_fit, padding_share
from lab.errors import LabError
from lab.parts.joined_sequences import IGNORE_INDEX, AnswerLoss
from lab.parts.language_models import CharacterCodec, LanguageModel
from lab.parts.omni_model import Example, OmniModel
from lab.training.loop import TrainingOptions, choose_precision, train
from lab.training.stages import cosine
from standins.models.character_model import ALPHABET, PretrainingOptions, build_character_model

EQUAL_LENGTH = 128
LARGEST_DIFFERENCE = {"float32": 1e-4, "bfloat16": 5e-2}
Batches = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Samples:
    """Prompts and answers as token ids, and the tokens of each sample."""

    prompts: list[list[int]]
    answers: list[list[int]]
    lengths: list[int]


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one corpus and way of batching gave; rates are real tokens a second, memory in bytes."""

    corpus: str
    batches: str
    waste: float
    packed_waste: float
    padded_rate: float
    packed_rate: float
    processor_ratio: float
    padded_memory: int
    packed_memory: int
    difference: float

    @property
    def ratio(self) -> float:
        """How many times as fast packs are."""
        return self.packed_rate / self.padded_rate


def draw(lengths: np.ndarray, count: int, codec: CharacterCodec, rng: np.random.Generator) -> Samples:
    """So many samples of those lengths, of random characters."""
    drawn = rng.choice(lengths, min(count, len(lengths)), replace=False)
    found = Samples([], [], drawn.tolist())
    for length in found.lengths:
        ids = rng.integers(0, len(codec.alphabet), length - 1).tolist()
        found.prompts.append(ids[: len(ids) // 2])
        found.answers.append(ids[len(ids) // 2 :])
    return found


def padded_loss(model: LanguageModel, samples: Samples, batch: Sequence[int]) -> AnswerLoss:
    """The usual way: padded on the right, masked, the head on every place."""
    codec, device = model.codec, next(model.model.parameters()).device
    rows = [[*samples.prompts[i], *codec.start_ids, *samples.answers[i]] for i in batch]
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), codec.end_id)
    labels = torch.full((len(rows), longest), IGNORE_INDEX)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for at, (row, index) in enumerate(zip(rows, batch, strict=True)):
        answer = samples.answers[index]
        ids[at, : len(row)] = torch.tensor(row)
        labels[at, len(row) - len(answer) - 1 : len(row)] = torch.tensor([*answer, codec.end_id])
        mask[at, : len(row)] = 1
    labels = labels.to(device)
    network: Any = model.model
    logits = network(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
    losses = F.cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=IGNORE_INDEX, reduction="none")
    return AnswerLoss(losses.sum(1), (labels != IGNORE_INDEX).sum(1))


def packed_loss(model: LanguageModel, samples: Samples, batch: Sequence[int]) -> AnswerLoss:
    """Ours: one behind the other, kept apart by the machine's own best attention."""
    examples = [Example(content=[samples.prompts[i]], answer=samples.answers[i]) for i in batch]
    return OmniModel(language_model=model, positions="sequential").packed(examples).loss


Loss = Callable[[LanguageModel, Samples, Sequence[int]], AnswerLoss]
SIDES: dict[str, Loss] = {"padded": padded_loss, "packed": packed_loss}


def sample_losses(model: LanguageModel, loss: Loss, samples: Samples, batches: Batches) -> Tensor:
    """Each sample's loss, nats, by its index."""
    found = torch.empty(len(samples.lengths))
    with torch.no_grad():
        for batch in batches:
            found[torch.tensor(list(batch))] = loss(model, samples, batch).loss.float().cpu()
    return found


def epoch_seconds(
    model: LanguageModel, loss: Loss, samples: Samples, batches: Batches, precision: str
) -> tuple[float, float]:
    """Train an epoch on a copy of the model; its seconds by the clock and by the processor."""
    own = LanguageModel(model.name, copy.deepcopy(model.model), model.codec, model.sha256)
    options = TrainingOptions(precision=precision)
    begun = time.process_time()
    seconds = train(
        own.model,
        lambda step: loss(own, samples, batches[step]),
        options,
        steps=len(batches),
        learning_rates=lambda step: [cosine(step, 1e-4, steps=len(batches), warmup_steps=0)],
    ).seconds
    return seconds, time.process_time() - begun


def step_memory(model: LanguageModel, loss: Loss, samples: Samples, batches: Batches, precision: str) -> int:
    """Bytes that the costliest step keeps for its backward pass; on a GPU its peak, weights included."""
    device = next(model.model.parameters()).device
    network: nn.Module = model.model
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    greatest = 0
    cast = choose_precision(precision, device) == "bfloat16"
    for batch in batches:
        saved: dict[int, int] = {}

        def note(tensor: Tensor, saved: dict[int, int] = saved) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
        with hooks, torch.autocast(device.type, torch.bfloat16, enabled=cast):
            total = loss(model, samples, batch).loss.sum()
        if device.type == "cuda":
            total.backward()
            network.zero_grad(set_to_none=True)
            greatest = max(greatest, torch.cuda.max_memory_allocated(device))
        else:
            greatest = max(greatest, sum(saved.values()))
    return greatest


def measure(
    corpus: str,
    lengths: np.ndarray,
    model: LanguageModel,
    *,
    count: int,
    batch_size: int,
    repeats: int,
    precision: str,
) -> list[Row]:
    """The rows of one corpus.

    Raises:
        LabError: the sides' losses are not the same.
    """
    assert isinstance(model.codec, CharacterCodec)
    samples = draw(lengths, count, model.codec, np.random.default_rng(0))
    drawn = samples.lengths
    order = np.random.default_rng(1).permutation(len(drawn)).tolist()
    budget = max(max(drawn), round(batch_size * float(np.mean(drawn))))
    packs = pack_best_fit(drawn, budget)
    # Whole batches only, so that `bucketed_epoch` has every sample too.
    ways: dict[str, Batches] = {
        "random": [order[i : i + batch_size] for i in range(0, len(order), batch_size)],
        "sorted": bucketed_epoch(drawn, batch_size=batch_size, seed=1, epoch=0),
    }
    packed = [pack.tolist() for pack in packs]
    epochs: dict[str, tuple[Loss, Batches]] = {name: (padded_loss, batches) for name, batches in ways.items()}
    epochs["packed"] = (packed_loss, packed)
    losses = {name: sample_losses(model, *_given(epoch, samples)) for name, epoch in epochs.items()}
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in epochs}
    for repeat in range(repeats + 1):
        for name, (loss, batches) in epochs.items():
            # The first round warms up, on a few steps.
            taken = batches if repeat else batches[:2]
            seconds = epoch_seconds(model, loss, samples, taken, precision)
            spent[name] += [seconds] if repeat else []
    wall, processor = (
        {name: statistics.median(epoch[at] for epoch in own) for name, own in spent.items()} for at in (0, 1)
    )
    memory = {name: step_memory(model, *_given(epoch, samples), precision) for name, epoch in epochs.items()}
    rows = []
    for name, batches in ways.items():
        difference = float(((losses[name] - losses["packed"]).abs() / losses["packed"]).max())
        if not difference <= LARGEST_DIFFERENCE["float32"]:
            raise LabError(f"a loss of {corpus}, {name}, differs by {difference:.2g} between the sides")
        rows.append(
            Row(
                corpus=corpus,
                batches=name,
                waste=padding_share(drawn, batches),
                packed_waste=packs.statistics().waste,
                padded_rate=sum(drawn) / wall[name],
                packed_rate=sum(drawn) / wall["packed"],
                processor_ratio=processor[name] / processor["packed"],
                padded_memory=memory[name],
                packed_memory=memory["packed"],
                difference=difference,
            )
        )
    return rows


def _given(epoch: tuple[Loss, Batches], samples: Samples) -> tuple[Loss, Samples, Batches]:
    return epoch[0], samples, epoch[1]


HEADINGS = (
    "corpus        batches  padding  in packs  padded tokens/s  packed tokens/s  ratio  by processor  memory, MB  "
    "losses by"
)


def heading(device: torch.device, precision: str) -> None:
    """Print what the table below was measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    load = f"{os.getloadavg()[0]:.1f} processes want to run on {os.cpu_count()} cores"
    print(f"{device.type} ({name}), {choose_precision(precision, device)}; {load}\n{HEADINGS}", flush=True)


def report(row: Row) -> None:
    """Print one row."""
    print(
        f"{row.corpus:<13} {row.batches:<7} {row.waste:8.1%} {row.packed_waste:9.1%} {row.padded_rate:16,.0f} "
        f"{row.packed_rate:16,.0f} {row.ratio:6.2f} {row.processor_ratio:13.2f} "
        f"{row.padded_memory / 1e6:6.0f}, {row.packed_memory / 1e6:4.0f} {row.difference:10.1e}",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every corpus on every device, print the rows."""
    parser = argparse.ArgumentParser(description="Training in packs against right-padded batches.")
    parser.add_argument("--samples", type=int, default=96, help="of each corpus [96]")
    parser.add_argument("--batch-size", type=int, default=32, help="of the padded side [32]")
    parser.add_argument("--repeats", type=int, default=3, help="epochs of each side that are timed [3]")
    parser.add_argument("--hidden-size", type=int, default=192, help="of the model [192]")
    parser.add_argument("--device", default="auto", help="auto: the CPU, and a GPU where there is one [auto]")
    parser.add_argument("--precision", default="auto", help="float32, bfloat16 or auto [auto]")
    options = parser.parse_args(arguments)
    if options.samples < options.batch_size or options.batch_size < 1 or options.repeats < 1:
        raise LabError("the benchmark needs at least 1 repeat and as many samples as one batch holds")
    found = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    devices = [torch.device(name) for name in (found if options.device == "auto" else [options.device])]
    corpora = {**read_lengths(), "all_equal": np.full(options.samples, EQUAL_LENGTH)}
    codec = CharacterCodec(alphabet=ALPHABET)
    for device in devices:
        network = build_character_model(PretrainingOptions(hidden_size=options.hidden_size), codec).to(device)
        model = LanguageModel("character", network, codec, "")
        heading(device, options.precision)
        for corpus, lengths in corpora.items():
            rows = measure(
                corpus,
                lengths,
                model,
                count=options.samples // options.batch_size * options.batch_size,
                batch_size=options.batch_size,
                repeats=options.repeats,
                precision=options.precision,
            )
            for row in rows:
                report(row)


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        sys.exit(f"error: {error}")
