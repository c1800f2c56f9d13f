"""Word and character errors of every text that was written (jiwer): columns of the item table."""

from collections.abc import Sequence

import jiwer
import pandas as pd

from lab.data.normalizers import Normalizer
from lab.errors import LabError


def _edits(alignment: Sequence[jiwer.AlignmentChunk]) -> int:
    """Substitutions, deletions and insertions of one text's alignment."""
    return sum(
        max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
        for chunk in alignment
        if chunk.type != "equal"
    )


def text_errors(
    answers: Sequence[str], given: Sequence[str], normalizer: Normalizer, ids: Sequence[str]
) -> pd.DataFrame:
    """Compare what was given with the right answers; one line each, in the order given.

    Columns: `id`, `answer` and `given`, both normalised, `wrong_answers` (whether these differ), and the errors and
    lengths in characters and words. The blank between two words counts as a character, as in jiwer. Nothing given is
    all deletions. Where the normaliser does not report words, `num_words` and `word_errors` are 0.

    Raises:
        ValueError: the three sequences are not of one length.
        LabError: a right answer is empty after normalisation; the message names its item.
    """
    if not len(answers) == len(given) == len(ids):
        raise ValueError(f"{len(answers)} answers, {len(given)} given and {len(ids)} ids do not pair up")
    expected = [normalizer(text) for text in answers]
    found = [normalizer(text) for text in given]
    for name, raw, normalized in zip(ids, answers, expected, strict=True):
        if not normalized:
            raise LabError(
                f"the answer of {name!r}, {raw!r}, is empty after the normaliser {normalizer.name!r}; leave it out or "
                "choose another normaliser"
            )
    characters = jiwer.process_characters(expected, found) if expected else None
    words = jiwer.process_words(expected, found) if expected and "wer" in normalizer.reports else None
    counts = {
        "wrong_answers": [int(a != b) for a, b in zip(expected, found, strict=True)],
        "num_questions": [1] * len(expected),
        "character_errors": [_edits(a) for a in characters.alignments] if characters else [],
        "num_characters": [len(r) for r in characters.references] if characters else [],
        "word_errors": [_edits(a) for a in words.alignments] if words else [0] * len(expected),
        "num_words": [len(r) for r in words.references] if words else [0] * len(expected),
    }
    texts = {
        "id": list(ids),
        "answer": list(answers),
        "given": list(given),
        "answer_normalized": expected,
        "given_normalized": found,
    }
    return pd.DataFrame(texts | counts).astype(dict.fromkeys(counts, "int64"))
