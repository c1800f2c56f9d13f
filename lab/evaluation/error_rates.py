"""Word and character errors of every utterance (jiwer), and the rates pooled from them.

A pooled rate is all errors over all units of the references, so a long utterance weighs more than a short one. It is a
fraction, and exceeds 1 where more is inserted than was said.
"""

from collections.abc import Sequence

import jiwer
import pandas as pd

from lab.errors import LabError
from lab.evaluation.normalizers import Normalizer


def _edits(alignment: Sequence[jiwer.AlignmentChunk]) -> int:
    """Substitutions, deletions and insertions of one utterance's alignment."""
    return sum(
        max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
        for chunk in alignment
        if chunk.type != "equal"
    )


def utterance_errors(
    references: Sequence[str], hypotheses: Sequence[str], normalizer: Normalizer, ids: Sequence[str]
) -> pd.DataFrame:
    """Return one line an utterance, in the order given.

    Columns: `utterance` (the id), `reference` and `hypothesis` (raw), `reference_normalized`, `hypothesis_normalized`,
    `num_characters` and `num_words` (of the normalised reference), `character_errors`, `word_errors`. The blank between
    two words counts as a character, as in jiwer. An empty hypothesis is all deletions. Where the normaliser does not
    report words, `num_words` and `word_errors` are 0.

    Raises:
        ValueError: the three sequences are not of one length.
        LabError: a reference is empty after normalisation; the message names the utterance.
    """
    if not len(references) == len(hypotheses) == len(ids):
        raise ValueError(
            f"{len(references)} references, {len(hypotheses)} hypotheses and {len(ids)} ids do not pair up"
        )
    said = [normalizer(text) for text in references]
    heard = [normalizer(text) for text in hypotheses]
    for utterance, raw, normalized in zip(ids, references, said, strict=True):
        if not normalized:
            raise LabError(
                f"the reference of utterance {utterance!r}, {raw!r}, is empty after the normaliser "
                f"{normalizer.name!r}; leave the utterance out or choose another normaliser"
            )
    characters = jiwer.process_characters(said, heard) if said else None
    words = jiwer.process_words(said, heard) if said and "wer" in normalizer.reports else None
    return pd.DataFrame(
        {
            "utterance": list(ids),
            "reference": list(references),
            "hypothesis": list(hypotheses),
            "reference_normalized": said,
            "hypothesis_normalized": heard,
            "num_characters": [len(r) for r in characters.references] if characters else [],
            "character_errors": [_edits(a) for a in characters.alignments] if characters else [],
            "num_words": [len(r) for r in words.references] if words else [0] * len(said),
            "word_errors": [_edits(a) for a in words.alignments] if words else [0] * len(said),
        }
    ).astype(dict.fromkeys(("num_characters", "character_errors", "num_words", "word_errors"), "int64"))


def character_error_rate(frame: pd.DataFrame) -> float:
    """Character errors over characters of the references, pooled over all lines of `frame`; a fraction.

    Raises:
        LabError: `frame` holds no utterance.
    """
    return _pooled(frame, "character")


def word_error_rate(frame: pd.DataFrame) -> float:
    """Word errors over words of the references, pooled over all lines of `frame`; a fraction.

    Raises:
        LabError: `frame` holds no words: no utterance, or a normaliser that reports characters only.
    """
    return _pooled(frame, "word")


def _pooled(frame: pd.DataFrame, unit: str) -> float:
    total = int(frame[f"num_{unit}s"].sum())
    if total == 0:
        raise LabError(
            f"no error rate over {unit}s: the {len(frame)} utterances hold no {unit}s to count "
            f"(give at least one utterance, and a normaliser that reports {unit}s)"
        )
    return int(frame[f"{unit}_errors"].sum()) / total
