"""The loss that a language model has of every answer given its prompt, and without it: what `lab score` writes.

Section 3 of the paper (the pretrained model's loss on every sample). The loss of a sample is the mean over its answer's
tokens, end included; whether the paper means that or the sum is not found. Scores are written in parts, each whole or
not at all, so that who is killed and started again goes on behind the last part.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from filelock import FileLock
from jaxtyping import Float
from numpy import ndarray

from lab.data.filters.loss_columns import LOSS_COLUMNS, SUMMARY
from lab.data.instructions.instruction import Instruction
from lab.data.instructions.instructions import instructions_sha256
from lab.data.instructions.tables import in_batches
from lab.data.packing import pack_best_fit
from lab.errors import LabError
from lab.parts.language_models import LanguageModel
from lab.parts.packed_models import packed_text_answers
from lab.paths import write_whole
from lab.training.instruction_rows import TokenPair, token_pair, without_prompt
from lab.training.loop import choose_precision
from lab.training.scored_parts import check_part, read_counts, write_part


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """How samples are scored.

    Args:
        budget_tokens: of a pack, and so of the longest sample.
        without_prompt: whether each answer is scored without its prompt too, as the filter `ifd` needs it.
        part_samples: samples of a part, which is what is lost by a kill.
        precision: as of `TrainingOptions`.

    Raises:
        LabError: a number below 1, or a budget below 4 tokens.
    """

    budget_tokens: int = 1024
    without_prompt: bool = False
    part_samples: int = 2048
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.budget_tokens < 4 or self.part_samples < 1:
            raise LabError(
                f"budget_tokens and part_samples are {self.budget_tokens} and {self.part_samples}; expected at least "
                "4 and 1"
            )


@dataclass
class ScoringSummary:
    """What a scoring came to; `skipped` counts the samples without a loss, by reason."""

    num_scored: int = 0
    num_tokens: int = 0
    parts_made: int = 0
    parts_found: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


def score_instructions(
    instructions: Iterable[Instruction],
    language_model: LanguageModel,
    folder: Path,
    *,
    write: Callable[[str], str] = str.strip,
    options: ScoringOptions | None = None,
    progress: Callable[[int], None] | None = None,
) -> ScoringSummary:
    """Score a stream of instructions into `folder`: parts of `LOSS_COLUMNS`, and `summary.json` when all are there.

    Parts that are there are not made again. Of a sample that cannot be scored there is no line; it is counted, by
    reason, in its part and in the summary.

    Args:
        instructions: the same ones in the same order whenever it goes on.
        language_model: on the device on which it is to run.
        folder: of this scoring alone.
        write: brings a text into the form that the language model reads.
        options: of the scoring.
        progress: told how many samples are done.

    Raises:
        LabError: a part of another model, other options or other instructions; nothing to score; a loss that is not
            finite, whose sample is named; or a folder that cannot be written.
    """
    chosen = options or ScoringOptions()
    summary, seen = ScoringSummary(), 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            for number, samples in enumerate(in_batches(instructions, chosen.part_samples)):
                part = folder / f"part-{number:06d}.parquet"
                key = _key(samples, language_model, chosen)
                if part.exists():
                    check_part(part, key)
                    summary.parts_found += 1
                else:
                    (folder / SUMMARY).unlink(missing_ok=True)
                    write_part(part, *_scored(samples, language_model, write, chosen), key, language_model)
                    summary.parts_made += 1
                scored, tokens, skipped = read_counts(part)
                summary.num_scored += scored
                summary.num_tokens += tokens
                summary.skipped += skipped
                seen += len(samples)
                if progress:
                    progress(seen)
            if not summary.num_scored:
                why = ", ".join(f"{count} {reason}" for reason, count in summary.skipped.items())
                raise LabError(f"no sample can be scored by {language_model.name!r}: {why or 'there are none'}")
            facts = {**vars(summary), "model": language_model.name, "model_sha256": language_model.sha256}
            write_whole(folder / SUMMARY, json.dumps(facts, indent=1) + "\n")
    except OSError as error:
        raise LabError(f"scores cannot be written to {folder} ({error.strerror or error}); free some disk") from error
    return summary


def _key(samples: Sequence[Instruction], language_model: LanguageModel, options: ScoringOptions) -> str:
    device = next(language_model.model.parameters()).device
    facts = [language_model.sha256, options.budget_tokens, options.without_prompt]
    return json.dumps([*facts, choose_precision(options.precision, device), instructions_sha256(samples)])


def _scored(
    samples: Sequence[Instruction],
    language_model: LanguageModel,
    write: Callable[[str], str],
    options: ScoringOptions,
) -> tuple[pa.Table, Counter[str]]:
    pairs: list[TokenPair] = []
    ids: list[str] = []
    skipped: Counter[str] = Counter()
    for sample in samples:
        pair = token_pair(sample, language_model, write, budget_tokens=options.budget_tokens)
        if isinstance(pair, str):
            skipped[pair] += 1
        else:
            pairs.append(pair)
            ids.append(sample.id)
    losses = answer_losses(language_model, pairs, options, ids)
    alone = [without_prompt(pair, language_model) for pair in pairs]
    columns = {
        "id": ids,
        "loss": losses,
        "loss_without_prompt": answer_losses(language_model, alone, options, ids)
        if options.without_prompt
        else [None] * len(pairs),
        "num_tokens": [len(pair.answer) + 1 for pair in pairs],
        "prompt_tokens": [len(pair.prompt) for pair in pairs],
    }
    return pa.table(columns, schema=LOSS_COLUMNS), skipped


@torch.inference_mode()
def answer_losses(
    language_model: LanguageModel, pairs: Sequence[TokenPair], options: ScoringOptions, ids: Sequence[str]
) -> Float[ndarray, " samples"]:
    """The mean loss of a token of each answer, nats, in packs of `budget_tokens`; `ids` name the samples in messages.

    Raises:
        LabError: a loss that is not finite.
    """
    found = np.zeros(len(pairs))
    if not pairs:
        return found
    device = next(language_model.model.parameters()).device
    bfloat16 = choose_precision(options.precision, device) == "bfloat16"
    language_model.model.eval()
    packs = pack_best_fit([pair.num_tokens for pair in pairs], options.budget_tokens, ids=ids)
    for number in range(len(packs)):
        pack = packs[number]
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            chosen = [pairs[i] for i in pack]
            prompts, answers = [pair.prompt for pair in chosen], [pair.answer for pair in chosen]
            scored = packed_text_answers(language_model, prompts, answers).loss
        found[pack] = (scored.loss.double() / scored.num_tokens).cpu().numpy()
    if len(wrong := np.flatnonzero(~np.isfinite(found))):
        raise LabError(
            f"the loss of sample {ids[int(wrong[0])]!r} by {language_model.name!r} is {found[wrong[0]]}; try "
            "precision float32, or leave the sample out"
        )
    return found
