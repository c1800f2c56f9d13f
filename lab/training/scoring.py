"""The loss that a model has of every answer given what stands before it, and without it: what `lab score` writes.

Section 3 of the paper (the pretrained model's loss on every sample), of text alone or beside pictures: what a sample is
and how a model reads it, an `Answers` says. The losses are written in parts, each whole or not at all. In the metadata
of each stand the model's name and hash, a key of all that decides its losses, and how many of its samples have none, by
reason. Who is killed and started again goes on after the last part.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock
from jaxtyping import Float
from numpy import ndarray

from lab.data.filters.loss_filters import LOSS_COLUMNS, SUMMARY, Losses, read_losses
from lab.data.instructions.instructions import in_batches
from lab.data.parquet import read_schema
from lab.data.sample import Sample, samples_sha256
from lab.errors import LabError
from lab.parts.chat_codec import ChatCodec
from lab.parts.language_models import LanguageModel
from lab.parts.omni_model import Example, OmniModel
from lab.paths import whole, write_whole
from lab.training.language_models import text_model
from lab.training.loop import choose_precision
from lab.training.packed_losses import ScoringOptions, losses_in_packs
from lab.training.samples import SampleExamples

_KEY, _SKIPPED, _MODEL = b"omni_lab_key", b"omni_lab_skipped", b"omni_lab_model"


@dataclass(frozen=True)
class Scorer:
    """Whose losses they are."""

    name: str
    sha256: str


@dataclass(frozen=True)
class ScoredRow:
    """A sample as the model reads it, `whole` and with its answer `alone`; numbers are tokens, the end left out."""

    id: str
    whole: Callable[[], Example]
    alone: Callable[[], Example]
    num_tokens: int
    alone_tokens: int
    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class Answers:
    """Answers as a model reads them after what is asked; `reads` tells how, its own samples are left aside.

    Where an answer is scored without its prompt (for the filter `ifd`), nothing is asked and nothing is seen; of a chat
    model the template of an empty prompt stays, so that the prompt's content alone is missing.
    """

    reads: SampleExamples
    model: OmniModel
    scorer: Scorer

    def sha256(self, samples: Sequence[Sample]) -> str:
        """The hash of all that the samples say, and of what is kept of them."""
        kept = self.reads.store.sha256 if self.reads.store else ""
        return hashlib.sha256(f"{kept}{samples_sha256(samples)}".encode()).hexdigest()

    def row(self, sample: Sample, budget_tokens: int) -> ScoredRow | str:
        """A sample as the model reads it, or why it cannot be scored; media are read when they are scored."""
        codec, one = self.model.codec, replace(self.reads, samples=[sample])
        if reason := one.why_not_readable(0, self.model, max_tokens=budget_tokens):
            return reason
        answer = one.answer_ids(sample.answer, self.model)
        nothing = codec.ask("") if isinstance(codec, ChatCodec) else []
        num_tokens = one.num_tokens(0, self.model) - 1
        from_start = len(codec.start_ids) + len(answer)
        return ScoredRow(
            sample.id,
            whole=lambda: one.example(0, self.model),
            alone=lambda: Example(content=[nothing], answer=answer),
            num_tokens=num_tokens,
            alone_tokens=len(nothing) + from_start,
            prompt_tokens=num_tokens - from_start,
            answer_tokens=len(answer),
        )


def text_answers(language_model: LanguageModel, write: Callable[[str], str] = str.strip) -> Answers:
    """Instructions as a language model alone reads them, in the form that `write` gives them."""
    scorer = Scorer(language_model.name, language_model.sha256)
    return Answers(SampleExamples(samples=(), write=write), text_model(language_model), scorer)


@dataclass
class ScoringSummary:
    """What a scoring came to; `skipped` counts the samples without a loss, by reason."""

    num_scored: int = 0
    num_tokens: int = 0
    parts_made: int = 0
    parts_found: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


def score(
    answers: Answers,
    samples: Iterable[Sample],
    folder: Path,
    *,
    options: ScoringOptions | None = None,
    progress: Callable[[int], None] | None = None,
) -> ScoringSummary:
    """Score a stream of samples into `folder`: parts of `LOSS_COLUMNS`, and `summary.json` when all are there.

    Parts that are there are not made again. Of a sample that cannot be scored there is no line; it is counted, by
    reason, in its part and in the summary.

    Args:
        answers: how they are read, by a model on the device on which it is to run.
        samples: the same ones in the same order whenever it goes on.
        folder: of this scoring alone.
        options: of the scoring.
        progress: told how many samples are done.

    Raises:
        LabError: a part of another model, other options or other samples; nothing to score; a loss that is not finite,
            whose sample is named; or a folder that cannot be written.
    """
    chosen = options or ScoringOptions()
    precision = choose_precision(chosen.precision, answers.model.device)
    facts = [answers.scorer.sha256, chosen.budget_tokens, chosen.without_prompt, precision]
    summary, seen = ScoringSummary(), 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            for number, some in enumerate(in_batches(samples, chosen.part_samples)):
                part = folder / f"part-{number:06d}.parquet"
                key = json.dumps([*facts, answers.sha256(some)])
                if part.exists():
                    _check_part(part, key)
                    summary.parts_found += 1
                else:
                    (folder / SUMMARY).unlink(missing_ok=True)
                    _write_part(part, *_scored(answers, some, chosen), key, answers.scorer)
                    summary.parts_made += 1
                _count(part, summary)
                seen += len(some)
                if progress:
                    progress(seen)
            if not summary.num_scored:
                why = ", ".join(f"{count} {reason}" for reason, count in summary.skipped.items())
                raise LabError(f"no sample can be scored by {answers.scorer.name!r}: {why or 'there are none'}")
            told = {**vars(summary), "model": answers.scorer.name, "model_sha256": answers.scorer.sha256}
            write_whole(folder / SUMMARY, json.dumps(told, indent=1) + "\n")
    except OSError as error:
        raise LabError(f"scores cannot be written to {folder} ({error.strerror or error}); free some disk") from error
    return summary


def open_losses(
    folder: Path,
    open_answers: Callable[[], Answers],
    samples: Sequence[Sample],
    options: ScoringOptions,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Losses, Mapping[str, Any]]:
    """The losses of a study's samples, of each one, and their summary; the first call scores.

    Raises:
        LabError: as `score`, or a sample that has no loss.
    """
    if not (folder / SUMMARY).exists():
        told = (lambda done: progress(done, len(samples))) if progress else None
        score(open_answers(), samples, folder, options=options, progress=told)
    summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    if skipped := summary["skipped"]:
        raise LabError(
            f"scorer {summary['model']!r} has no loss of {sum(skipped.values())} of {len(samples)} training "
            f"instructions ({', '.join(skipped)}); choose another scorer, or lower max_tokens"
        )
    return read_losses(folder), summary


def _scored(answers: Answers, samples: Sequence[Sample], options: ScoringOptions) -> tuple[pa.Table, Counter[str]]:
    read = [answers.row(sample, options.budget_tokens) for sample in samples]
    rows = [row for row in read if isinstance(row, ScoredRow)]
    ids = [row.id for row in rows]
    answers.model.eval()

    def losses(examples: Sequence[Callable[[], Example]], lengths: Sequence[int]) -> Float[ndarray, " samples"]:
        def at(places: Sequence[int]) -> list[Example]:
            return [examples[place]() for place in places]

        return answer_losses(answers.model, at, lengths, options, ids, scorer=answers.scorer.name)

    without: Sequence[float | None] | ndarray = [None] * len(rows)
    if options.without_prompt:
        without = losses([row.alone for row in rows], [row.alone_tokens for row in rows])
    columns = {
        "id": ids,
        "loss": losses([row.whole for row in rows], [row.num_tokens for row in rows]),
        "loss_without_prompt": without,
        "num_tokens": [row.answer_tokens + 1 for row in rows],
        "prompt_tokens": [row.prompt_tokens for row in rows],
    }
    return pa.table(columns, schema=LOSS_COLUMNS), Counter(row for row in read if isinstance(row, str))


def answer_losses(
    model: OmniModel,
    examples: Callable[[Sequence[int]], Sequence[Example]],
    lengths: Sequence[int],
    options: ScoringOptions,
    ids: Sequence[str],
    *,
    scorer: str,
) -> Float[ndarray, " samples"]:
    """The mean loss of a token of each answer, nats, in packs of `budget_tokens`.

    Args:
        model: in evaluation mode.
        examples: gives those at some places; asked for a pack at a time, as pictures may be large.
        lengths: tokens of each, the end left out.
        options: of the scoring.
        ids: name the samples in messages.
        scorer: names the model there.

    Raises:
        LabError: a loss that is not finite.
    """
    return losses_in_packs(
        lambda places: model.packed(examples(places)).loss,
        lengths,
        options,
        ids=ids,
        scorer=scorer,
        device=model.device,
    )


def _check_part(part: Path, key: str) -> None:
    if (read_schema(part).metadata or {}).get(_KEY, b"").decode() != key:
        raise LabError(
            f"{part} was scored by another model, with other options or of other samples; name another folder, or "
            "delete this one"
        )


def _write_part(part: Path, table: pa.Table, skipped: Counter[str], key: str, scorer: Scorer) -> None:
    facts = {_KEY: key, _SKIPPED: json.dumps(skipped), _MODEL: json.dumps(asdict(scorer))}
    with whole(part) as unfinished:
        pq.write_table(table.replace_schema_metadata(facts), unfinished)


def _count(part: Path, summary: ScoringSummary) -> None:
    with pq.ParquetFile(part) as opened:
        summary.num_scored += opened.metadata.num_rows
        summary.num_tokens += int(np.sum(opened.read(columns=["num_tokens"]).column(0).to_numpy()))
        summary.skipped += Counter(json.loads(opened.schema_arrow.metadata[_SKIPPED]))
