"""The loss that a model has of every answer given what stands before it, and without it: what `lab score` writes.

Section 3 of the paper (the pretrained model's loss on every sample). The loss of a sample is the mean over its answer's
tokens, end included; whether the paper means that or the sum is not found. Losses are written in parts, each whole or
not at all. In the metadata of each stand the model's name and hash, a key of all that decides its losses, and how many
of its samples have none, by reason. Who is killed and started again goes on after the last part.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock
from jaxtyping import Float
from numpy import ndarray

from lab.data.filters.loss_filters import LOSS_COLUMNS, SUMMARY
from lab.data.instructions.instructions import in_batches
from lab.data.packing import pack_best_fit
from lab.data.parquet import read_schema
from lab.data.sample import Sample
from lab.errors import LabError
from lab.parts.language_models import ChatCodec, LanguageModel
from lab.parts.omni_model import Example, OmniModel
from lab.parts.packed_attention import check_longest
from lab.paths import whole, write_whole
from lab.training.loop import choose_precision
from lab.training.packing_certificate import certify_packs
from lab.training.samples import SampleExamples

_KEY, _SKIPPED, _MODEL = b"omni_lab_key", b"omni_lab_skipped", b"omni_lab_model"


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """How samples are scored: in packs of `budget_tokens`, which the longest has to fit.

    `without_prompt`: each answer without what is asked and seen too, as the filter `ifd` needs it. A kill loses
    `part_samples` at most. `precision` is as of `TrainingOptions`.

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


PLAIN = ScoringOptions()


@dataclass(frozen=True)
class Scorer:
    """Whose losses they are, on its device; `reads` tells how it reads a sample, its own samples are left aside."""

    model: OmniModel
    name: str
    sha256: str
    reads: SampleExamples = field(default_factory=lambda: SampleExamples(samples=()))


def text_model(language_model: LanguageModel) -> OmniModel:
    """The language model alone, reading text token after token."""
    return OmniModel(language_model=language_model, positions="sequential").eval()


def text_scorer(language_model: LanguageModel, device: torch.device) -> Scorer:
    """A language model alone, on that device."""
    return Scorer(text_model(language_model).to(device), language_model.name, language_model.sha256)


@dataclass
class ScoringSummary:
    """What a scoring came to; `skipped` counts the samples without a loss, by reason."""

    num_scored: int = 0
    num_tokens: int = 0
    parts_made: int = 0
    parts_found: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


def score(
    scorer: Scorer,
    samples: Iterable[Sample],
    folder: Path,
    *,
    options: ScoringOptions = PLAIN,
    progress: Callable[[int], None] | None = None,
) -> ScoringSummary:
    """Score a stream of samples into `folder`: parts of `LOSS_COLUMNS`, and `summary.json` when all are there.

    The samples must be the same ones in the same order whenever it goes on. One that cannot be scored has no line; it
    is counted, by reason, in its part and in the summary. `progress` is told how many samples are done.

    Raises:
        LabError: a part of another model, other options or other samples; nothing to score; a loss that is not finite,
            whose sample is named; or a folder that cannot be written.
    """
    precision = choose_precision(options.precision, scorer.model.device)
    summary, seen = ScoringSummary(), 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            for number, some in enumerate(in_batches(samples, options.part_samples)):
                part = folder / f"part-{number:06d}.parquet"
                said = replace(scorer.reads, samples=some).sha256
                key = json.dumps([scorer.sha256, options.budget_tokens, options.without_prompt, precision, said])
                if part.exists():
                    _check_part(part, key)
                    summary.parts_found += 1
                else:
                    (folder / SUMMARY).unlink(missing_ok=True)
                    _write_part(part, *_scored(scorer, some, options), key, scorer)
                    summary.parts_made += 1
                _count(part, summary)
                seen += len(some)
                if progress:
                    progress(seen)
            if not summary.num_scored:
                why = ", ".join(f"{count} {reason}" for reason, count in summary.skipped.items())
                raise LabError(f"no sample can be scored by {scorer.name!r}: {why or 'there are none'}")
            told = {**vars(summary), "model": scorer.name, "model_sha256": scorer.sha256}
            write_whole(folder / SUMMARY, json.dumps(told, indent=1) + "\n")
    except OSError as error:
        raise LabError(f"scores cannot be written to {folder} ({error.strerror or error}); free some disk") from error
    return summary


def _scored(scorer: Scorer, samples: Sequence[Sample], options: ScoringOptions) -> tuple[pa.Table, Counter[str]]:
    model, read = scorer.model.eval(), replace(scorer.reads, samples=samples)
    reasons = [read.why_not_readable(i, model, max_tokens=options.budget_tokens) for i in range(len(samples))]
    fit = [i for i, reason in enumerate(reasons) if reason is None]
    ids = [samples[i].id for i in fit]
    answers = [read.answer_ids(samples[i].answer, model) for i in fit]
    lengths = [read.num_tokens(i, model) - 1 for i in fit]
    # Of a chat model the template of an empty prompt stays, so that the prompt's content alone is missing.
    nothing = model.codec.ask("") if isinstance(model.codec, ChatCodec) else []
    from_start = [len(model.codec.start_ids) + len(answer) for answer in answers]

    def losses(example: Callable[[int], Example], own: Sequence[int]) -> Float[ndarray, " samples"]:
        return answer_losses(model, lambda at: list(map(example, at)), own, options, ids, scorer=scorer.name)

    without: Sequence[float | None] | ndarray = [None] * len(fit)
    if options.without_prompt:
        alone = [Example(content=[nothing], answer=answer) for answer in answers]
        without = losses(lambda at: alone[at], [len(nothing) + own for own in from_start])
    columns = {
        "id": ids,
        "loss": losses(lambda at: read.example(fit[at], model), lengths),
        "loss_without_prompt": without,
        "num_tokens": [len(answer) + 1 for answer in answers],
        "prompt_tokens": [length - own for length, own in zip(lengths, from_start, strict=True)],
    }
    return pa.table(columns, schema=LOSS_COLUMNS), Counter(reason for reason in reasons if reason)


@torch.inference_mode()
def answer_losses(
    model: OmniModel,
    examples: Callable[[Sequence[int]], Sequence[Example]],
    lengths: Sequence[int],
    options: ScoringOptions,
    ids: Sequence[str],
    *,
    scorer: str,
) -> Float[ndarray, " samples"]:
    """The mean loss of a token of each answer, nats, in packs, by a model in evaluation mode.

    `examples` gives those at some places; it is asked for a pack at a time, as pictures may be large. `lengths` are
    their tokens, the end left out. `ids` name the samples in messages, and `scorer` the model.

    Raises:
        LabError: a sample longer than a pack or than the model can keep apart in one, a model that computes one
            otherwise in a pack than alone (`certify_packs`), or a loss that is not finite, whose sample is named.
    """
    found = np.zeros(len(lengths))
    if not len(lengths):
        return found
    longest = int(np.argmax(lengths))
    check_longest(model.language_model, lengths[longest], f"sample {ids[longest]!r}")
    bfloat16 = choose_precision(options.precision, model.device) == "bfloat16"
    packs = pack_best_fit(list(lengths), options.budget_tokens, ids=ids)
    # One after the other: the pictures of a pack may be large.
    probed = (examples([int(place) for place in pack]) for pack in packs.extremes)
    certify_packs(model, probed, precision=options.precision).require()
    for number in range(len(packs)):
        pack = packs[number]
        with torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16):
            scored = model.packed(examples([int(place) for place in pack])).loss
        found[pack] = (scored.loss.double() / scored.num_tokens).cpu().numpy()
    if len(wrong := np.flatnonzero(~np.isfinite(found))):
        raise LabError(
            f"the loss of sample {ids[int(wrong[0])]!r} by {scorer!r} is {found[wrong[0]]}; try precision float32, or "
            "leave the sample out"
        )
    return found


def _check_part(part: Path, key: str) -> None:
    if (read_schema(part).metadata or {}).get(_KEY, b"").decode() != key:
        raise LabError(
            f"{part} was scored by another model, with other options or of other samples; name another folder, or "
            "delete this one"
        )


def _write_part(part: Path, table: pa.Table, skipped: Counter[str], key: str, scorer: Scorer) -> None:
    model = {"name": scorer.name, "sha256": scorer.sha256}
    facts = {_KEY: key, _SKIPPED: json.dumps(skipped), _MODEL: json.dumps(model)}
    with whole(part) as unfinished:
        pq.write_table(table.replace_schema_metadata(facts), unfinished)


def _count(part: Path, summary: ScoringSummary) -> None:
    with pq.ParquetFile(part) as opened:
        summary.num_scored += opened.metadata.num_rows
        summary.num_tokens += int(np.sum(opened.read(columns=["num_tokens"]).column(0).to_numpy()))
        summary.skipped += Counter(json.loads(opened.schema_arrow.metadata[_SKIPPED]))
