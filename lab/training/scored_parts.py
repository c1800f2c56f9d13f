"""The files of a scoring: parts of losses, each whole or not at all, that say what they were made of.

In the metadata of each stand the model's name and hash, a key of all that decides its losses, and how many of its
samples have none, by reason.
"""

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lab.data.filters.loss_columns import read_schema
from lab.errors import LabError
from lab.parts.language_models import LanguageModel

_KEY, _SKIPPED, _MODEL = b"omni_lab_key", b"omni_lab_skipped", b"omni_lab_model"


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


def write_part(part: Path, table: pa.Table, skipped: Counter[str], key: str, language_model: LanguageModel) -> None:
    """Write a part; what was there before stays until it is whole."""
    model = json.dumps({"name": language_model.name, "sha256": language_model.sha256})
    unfinished = part.with_name(f".{part.name}.{os.getpid()}")
    try:
        facts = {_KEY: key, _SKIPPED: json.dumps(skipped), _MODEL: model}
        pq.write_table(table.replace_schema_metadata(facts), unfinished)
        unfinished.replace(part)
    finally:
        unfinished.unlink(missing_ok=True)


def read_counts(part: Path) -> tuple[int, int, Counter[str]]:
    """Samples with a loss, tokens of their answers, and samples without one, by reason."""
    with pq.ParquetFile(part) as opened:
        tokens = int(np.sum(opened.read(columns=["num_tokens"]).column(0).to_numpy()))
        return opened.metadata.num_rows, tokens, Counter(json.loads(opened.schema_arrow.metadata[_SKIPPED]))
