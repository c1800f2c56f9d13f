"""The files of a scoring: parts of losses, each whole or not at all, that say what they were made of.

In the metadata of each stand the model's name and hash, a key of all that decides its losses, and how many of its
samples have none, by reason. Who is killed and started again goes on behind the last part.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from lab.data.filters.losses import SUMMARY, read_schema
from lab.data.instructions.tables import in_batches
from lab.errors import LabError
from lab.paths import write_whole

_KEY, _SKIPPED, _MODEL = b"omni_lab_key", b"omni_lab_skipped", b"omni_lab_model"
Sample = TypeVar("Sample")


@dataclass(frozen=True)
class Scorer:
    """Whose losses they are."""

    name: str
    sha256: str


@dataclass
class ScoringSummary:
    """What a scoring came to; `skipped` counts the samples without a loss, by reason."""

    num_scored: int = 0
    num_tokens: int = 0
    parts_made: int = 0
    parts_found: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


def score_in_parts(
    samples: Iterable[Sample],
    folder: Path,
    *,
    scorer: Scorer,
    part_samples: int,
    key: Callable[[Sequence[Sample]], str],
    score: Callable[[Sequence[Sample]], tuple[pa.Table, Counter[str]]],
    progress: Callable[[int], None] | None = None,
) -> ScoringSummary:
    """Score a stream of samples into `folder`: parts of `LOSS_COLUMNS`, and `summary.json` when all are there.

    Parts that are there are not made again. Of a sample that cannot be scored there is no line; it is counted, by
    reason, in its part and in the summary.

    Args:
        samples: the same ones in the same order whenever it goes on.
        folder: of this scoring alone.
        scorer: whose losses they are.
        part_samples: samples of a part.
        key: names all that decides the losses of a part's samples.
        score: the losses of a part's samples, and how many of them have none.
        progress: told how many samples are done.

    Raises:
        LabError: a part with another key; nothing to score; what `score` refuses; or a folder that cannot be written.
    """
    summary, seen = ScoringSummary(), 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            for number, some in enumerate(in_batches(samples, part_samples)):
                part = folder / f"part-{number:06d}.parquet"
                own = key(some)
                if part.exists():
                    check_part(part, own)
                    summary.parts_found += 1
                else:
                    (folder / SUMMARY).unlink(missing_ok=True)
                    write_part(part, *score(some), own, scorer)
                    summary.parts_made += 1
                scored, tokens, skipped = read_counts(part)
                summary.num_scored += scored
                summary.num_tokens += tokens
                summary.skipped += skipped
                seen += len(some)
                if progress:
                    progress(seen)
            if not summary.num_scored:
                why = ", ".join(f"{count} {reason}" for reason, count in summary.skipped.items())
                raise LabError(f"no sample can be scored by {scorer.name!r}: {why or 'there are none'}")
            facts = {**vars(summary), "model": scorer.name, "model_sha256": scorer.sha256}
            write_whole(folder / SUMMARY, json.dumps(facts, indent=1) + "\n")
    except OSError as error:
        raise LabError(f"scores cannot be written to {folder} ({error.strerror or error}); free some disk") from error
    return summary


def check_part(part: Path, key: str) -> None:
    """Refuse a part that was made of something else.

    Raises:
        LabError: it has another key, or is no whole Parquet file.
    """
    found = (read_schema(part).metadata or {}).get(_KEY, b"").decode()
    if found != key:
        raise LabError(
            f"{part} was scored by another model, with other options or of other samples; name another folder, or "
            "delete this one"
        )


def write_part(part: Path, table: pa.Table, skipped: Counter[str], key: str, scorer: Scorer) -> None:
    """Write a part; what was there before stays until it is whole."""
    unfinished = part.with_name(f".{part.name}.{os.getpid()}")
    try:
        facts = {_KEY: key, _SKIPPED: json.dumps(skipped), _MODEL: json.dumps(asdict(scorer))}
        pq.write_table(table.replace_schema_metadata(facts), unfinished)
        unfinished.replace(part)
    finally:
        unfinished.unlink(missing_ok=True)


def read_counts(part: Path) -> tuple[int, int, Counter[str]]:
    """Samples with a loss, tokens of their answers, and samples without one, by reason."""
    with pq.ParquetFile(part) as opened:
        tokens = int(np.sum(opened.read(columns=["num_tokens"]).column(0).to_numpy()))
        return opened.metadata.num_rows, tokens, Counter(json.loads(opened.schema_arrow.metadata[_SKIPPED]))
