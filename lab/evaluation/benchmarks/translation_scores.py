"""BLEU and chrF of a set of translations, by sacrebleu, with its signature and its bootstrap's interval."""

from collections.abc import Sequence
from typing import Any

from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import Score

NUM_RESAMPLES = 1000
_HIGHEST = 100.0
# sacrebleu's names; "" is any other language.
TOKENIZERS = {"zh": "zh", "": "13a"}


def translation_scores(
    hypotheses: Sequence[str], references: Sequence[str], *, target: str
) -> tuple[tuple[Score, ...], dict[str, str]]:
    """Corpus BLEU and chrF in points of 100, with 95% intervals over sentences, and the signature of each.

    The interval is sacrebleu's own bootstrap (`bs:1000` in the signature): the mean of the resamples and what holds
    95% of them around it. One sentence has none.

    Raises:
        LabError: no sentence, or another number of references.
    """
    if not hypotheses or len(hypotheses) != len(references):
        raise LabError(
            f"{len(hypotheses)} translations for {len(references)} references; expected one each, at least 1"
        )
    scores, signatures = [], {}
    for name, metric in (("bleu", _bleu(target)), ("chrf", _chrf())):
        resamples = NUM_RESAMPLES if len(hypotheses) > 1 else 1
        found = metric.corpus_score(list(hypotheses), [list(references)], n_bootstrap=resamples)
        value = min(float(found.score), _HIGHEST)
        low = high = None
        if resamples > 1:
            mean, half = float(found._mean), float(found._ci)
            # The half-width is symmetric, and the scale ends.
            low, high = max(0.0, min(mean - half, value)), min(_HIGHEST, max(mean + half, value))
        scores.append(
            Score(
                metric=name, value=value, unit="points", low=low, high=high, better="higher", num_items=len(hypotheses)
            )
        )
        signatures[f"{name}_signature"] = metric.get_signature().format()
    return tuple(scores), signatures


def sentence_bleu(hypotheses: Sequence[str], references: Sequence[str], *, target: str) -> list[float]:
    """BLEU of each sentence by itself (with effective order), to look at: their mean is not the corpus's."""
    metric = _bleu(target, effective_order=True)
    return [
        float(metric.sentence_score(hypothesis, [reference]).score)
        for hypothesis, reference in zip(hypotheses, references, strict=True)
    ]


def _bleu(target: str, *, effective_order: bool = False) -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize=TOKENIZERS.get(target, TOKENIZERS[""]), effective_order=effective_order)


def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    class PlainCHRF(CHRF):  # type: ignore[misc, unused-ignore]
        """Scores as Python's floats: sacrebleu 2.6 has NumPy's but for 0, and its bootstrap cannot average the two."""

        def _compute_score_from_stats(self, stats: Any) -> Any:
            found = super()._compute_score_from_stats(stats)
            found.score = float(found.score)
            return found

    return PlainCHRF()
