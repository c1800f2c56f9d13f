"""What the cells of a fine-tuning study share: clean held-out instructions, and scored ones with planted faults.

Section 3 of the paper. Made once, before any cell runs, and kept in the cache: faults are planted in what is trained
on, never in what is tested, and all cells filter the same losses of the same samples.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from lab.data.fetch import packages
from lab.data.instructions.instructions import (
    INSTRUCTION_SOURCES,
    read_instruction_table,
    read_instructions,
    split_instructions,
    write_instructions,
)
from lab.data.instructions.planted_faults import plant_faults
from lab.data.sample import Sample, samples_sha256
from lab.data.splits import SPLITS
from lab.errors import LabError
from lab.parts.chat_codec import as_chat_model
from lab.parts.language_models import LanguageModel
from lab.paths import cache_dir, make_folder, write_whole
from lab.training.instruction_filter import ScoredInstructions
from lab.training.language_models import OWN_LANGUAGE_MODELS, open_language_model, text_model, text_writer
from lab.training.loop import choose_device
from lab.training.packed_losses import ScoringOptions
from lab.training.parameters import TextTuningParameters
from lab.training.samples import SampleExamples
from lab.training.scoring import open_losses, text_answers

# Raise it when the same parameters would give other data.
DATA_VERSION = 2
# Of a pack in which samples are scored; more where a sample may be longer.
SCORED_TOKENS = 1024
_TABLES = ("train", "dev", "test")


@dataclass(frozen=True, kw_only=True)
class InstructionData(ScoredInstructions):
    """A study's instructions and the losses of its training ones.

    `facts` say where it all comes from, and what was left out.
    """

    dev: tuple[Sample, ...]
    test: tuple[Sample, ...]
    facts: Mapping[str, Any]
    folder: Path
    scores: Path
    scorer_sha256: str


def open_instruction_data(
    parameters: TextTuningParameters,
    language_model: LanguageModel,
    open_scorer: Callable[[], LanguageModel],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> InstructionData:
    """Open a cell's data; the first call makes it.

    Only what the fine-tuned `language_model` can read within `max_tokens` is chosen from, whatever the cell trains.

    Raises:
        LabError: a source that cannot be read, too few instructions, or as `plant_faults` and `open_losses`.
    """
    folder = make_folder(_folder(parameters, language_model), lambda made: _make(parameters, language_model, made))
    scores = folder.with_name(f"{folder.name}-{_scorer_key(parameters)}")
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    tables = {name: tuple(read_instruction_table(folder / f"{name}.parquet")) for name in _TABLES}
    options = ScoringOptions(budget_tokens=scored_tokens(parameters), without_prompt=True, part_samples=256)
    write = text_writer(parameters.scorer)
    losses, scored = open_losses(
        scores, lambda: text_answers(open_scorer(), write), tables["train"], options, progress=progress
    )
    return InstructionData(
        **tables,
        faults=tuple(facts["faults"]),
        losses=losses,
        facts=facts,
        folder=folder,
        scores=scores,
        scorer_sha256=scored["model_sha256"],
    )


def scored_tokens(parameters: TextTuningParameters) -> int:
    """Of a pack in which a cell's training instructions are scored: none of them is too long for it."""
    return max(SCORED_TOKENS, int(parameters.max_tokens))


def open_reader(parameters: TextTuningParameters) -> LanguageModel:
    """The language model that a cell fine-tunes, on the cell's device.

    Raises:
        LabError: as `open_language_model` and `choose_device`.
    """
    return _opened(parameters.language_model, parameters)


def open_scorer(parameters: TextTuningParameters) -> LanguageModel:
    """The language model that scores the training instructions, on the cell's device.

    Raises:
        LabError: as `open_reader`.
    """
    return _opened(parameters.scorer, parameters)


def _opened(name: str, parameters: TextTuningParameters) -> LanguageModel:
    opened = as_chat_model(open_language_model(name, pretraining_steps=parameters.pretraining_steps))
    network: nn.Module = opened.model
    network.to(choose_device(parameters.device))
    return opened


def _scorer_key(parameters: TextTuningParameters) -> str:
    own = parameters.scorer in OWN_LANGUAGE_MODELS
    name = parameters.scorer.replace("/", "_")
    return f"{name}-{parameters.pretraining_steps}" if own else name


def _folder(parameters: TextTuningParameters, language_model: LanguageModel) -> Path:
    names = ("instructions", "test_instructions", "num_training", "num_test", "max_tokens", "fault_share", "fault_seed")
    pinned = [packages()[package].sha256 for package, _ in INSTRUCTION_SOURCES.values()]
    reads = [language_model.codec.start_ids, language_model.codec.vocab_size]
    identity = json.dumps([DATA_VERSION, [getattr(parameters, name) for name in names], pinned, reads])
    return cache_dir() / "instructions" / hashlib.sha256(identity.encode()).hexdigest()[:16]


def _make(parameters: TextTuningParameters, language_model: LanguageModel, folder: Path) -> None:
    write = text_writer(language_model.name)
    facts: dict[str, Any] = {"sources": {}, "licences": {}, "left_out": {}}
    found: dict[str, list[Sample]] = {}
    names = {"instructions": SPLITS[:1], "test_instructions": SPLITS[1:]}
    for parameter, splits in names.items():
        source = getattr(parameters, parameter)
        reading = read_instructions(source)
        parted = split_instructions(reading.samples)
        left_out = reading.left_out.counts()
        for split in splits:
            found[split] = list(_readable(parted[split], language_model, write, parameters.max_tokens, left_out))
        facts["sources"] |= dict(reading.sources)
        facts["licences"][source] = reading.licence
        facts["left_out"][source] = dict(left_out)
    clean = _chosen(found["train"], parameters.num_training, "training")
    planted = plant_faults(clean, share=parameters.fault_share, seed=parameters.fault_seed)
    tables = {"train": planted.samples} | {
        split: _chosen(found[split], parameters.num_test, split) for split in ("dev", "test")
    }
    for name, chosen in tables.items():
        write_instructions(folder / f"{name}.parquet", chosen)
        facts[f"{name}_sha256"] = samples_sha256(chosen)
    write_whole(folder / "facts.json", json.dumps({**facts, "faults": planted.faults}, indent=1))


def _readable(
    instructions: Sequence[Sample],
    language_model: LanguageModel,
    write: Callable[[str], str],
    max_tokens: int,
    left_out: Counter[str],
) -> Iterator[Sample]:
    examples, model = SampleExamples(samples=instructions, write=write), text_model(language_model)
    for index, instruction in enumerate(instructions):
        if reason := examples.why_not_readable(index, model, max_tokens=max_tokens):
            left_out[reason] += 1
        else:
            yield instruction


def _chosen(instructions: Sequence[Sample], count: int, what: str) -> tuple[Sample, ...]:
    """As many of every source as there are of the smallest, until those run out: no source drowns the others."""
    if len(instructions) < count:
        raise LabError(f"there are {len(instructions)} {what} instructions that can be read, fewer than {count}")
    rng = np.random.default_rng([count, len(instructions)])
    of_source: dict[str, list[Sample]] = {}
    for index in rng.permutation(len(instructions)):
        of_source.setdefault(instructions[int(index)].source, []).append(instructions[int(index)])
    chosen: list[Sample] = []
    for turn in range(count):
        for source in sorted(of_source):
            chosen += of_source[source][turn : turn + 1]
        if len(chosen) >= count:
            break
    return tuple(chosen[:count])
