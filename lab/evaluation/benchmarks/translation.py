"""Translation scored by sacrebleu, with its signature: text, or speech as in CoVoST-2 (section 4, Table 7).

Differs from the paper: its prompt, its Chinese segmentation and its BLEU's settings are not found. Ours are sacrebleu's
own (tokenizer `zh` for Chinese, `13a` for the rest) and stand in the score's settings; the prompt is versioned.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab.errors import LabError, choose
from lab.evaluation.benchmarks.benchmark import Benchmark, Identity, Kind, Progress, Score, sampled
from lab.evaluation.benchmarks.endpoints import PREFIX
from lab.evaluation.benchmarks.items import TRIVIA, data_key, read_translations
from lab.evaluation.benchmarks.replies import replies_of
from lab.evaluation.benchmarks.text_models import TEXT_MODELS, decoding_of, model_key, open_text_model

if TYPE_CHECKING:
    import pandas

SPEECH_PROMPT = "Translate the speech into {language}. Write the translation and nothing else."
TEXT_PROMPT = "Translate into {language}. Write the translation and nothing else.\n\n{source}"
PROMPT_VERSION = "ours, 1"
LANGUAGES = {"en": "English", "zh": "Chinese", "de": "German", "fr": "French", "es": "Spanish"}
NUM_RESAMPLES = 1000
_HIGHEST = 100.0
# sacrebleu's names; "" is any other language.
_TOKENIZERS = {"zh": "zh", "": "13a"}
_MAX_NEW_TOKENS = 256
_OPTIONS = {
    "data": "a JSONL or Parquet file of source (text) or audio, and reference; or hub:OWNER/NAME:CONFIG:SPLIT",
    "target": "the language translated into: " + ", ".join(LANGUAGES),
}


@dataclass(frozen=True, kw_only=True)
class Translation(Benchmark):
    """Sentences or speech that a model translates."""

    data: str = ""
    target: str = ""
    """Into which language; with `data`, empty where the options have to say it."""
    hears: bool = False
    """Whether the data are speech, so that a language model cannot translate them."""
    kind: Kind = "translation"
    models: str = TEXT_MODELS + "; for speech one that hears, behind an endpoint"
    options: Mapping[str, str] = field(default_factory=lambda: _OPTIONS)

    def identify(self, model: str, options: Mapping[str, str]) -> Identity:
        """Name the weights, the data, the prompt and sacrebleu's tokenizer.

        Raises:
            LabError: sacrebleu is missing, an option is wrong or missing, the model is none, or cannot hear and has to,
                or the data are not found.
        """
        if self.hears and not model.startswith(PREFIX):
            raise LabError(
                f"benchmark {self.name!r} is speech, and {model!r} is a language model or none; expected a model that "
                "hears, behind an endpoint: openai:MODEL@URL"
            )
        if importlib.util.find_spec("sacrebleu") is None:
            raise LabError(f"benchmark {self.name!r} needs the package sacrebleu: pip install omni-lab")
        data, target = options.get("data", self.data), options.get("target", self.target)
        for name, value in (("data", data), ("target", target)):
            if not value:
                raise LabError(f"benchmark {self.name!r} needs --option {name}=..., {_OPTIONS[name]}")
        if data == TRIVIA:
            raise LabError(f"data {data!r} are no translations")
        choose(LANGUAGES, target, "target language")
        settings = {
            "data": data_key(data),
            "target": target,
            "prompt": PROMPT_VERSION,
            "decoding": f"{decoding_of(model)}, {_MAX_NEW_TOKENS} new tokens",
            "tokenizer": _TOKENIZERS.get(target, _TOKENIZERS[""]),
        }
        return Identity(model_key=model_key(model), settings=settings)

    def ask(
        self, model: str, identity: Identity, options: Mapping[str, str], limit: int | None, progress: Progress
    ) -> "tuple[tuple[Score, ...], pandas.DataFrame, Mapping[str, str]]":
        """Let the model translate; what it has translated before is not asked again.

        Raises:
            LabError: the model cannot be asked or refuses a sentence.
        """
        import pandas as pd

        target = identity.settings["target"]
        language = LANGUAGES[target]
        found = read_translations(options.get("data", self.data))
        chosen = [found[index] for index in sampled(len(found), limit)]
        asked = [
            one.asking((TEXT_PROMPT if text else SPEECH_PROMPT).format(language=language, source=text), one.answer)
            for one, text in ((one, one.question) for one in chosen)
        ]
        answering = open_text_model(model, max_new_tokens=_MAX_NEW_TOKENS)
        answers = replies_of(answering, asked, name=model, progress=progress)
        references = [one.answer for one in chosen]
        scores, signatures = translation_scores(answers, references, target=target)
        table = pd.DataFrame(
            {
                "id": [one.id for one in chosen],
                "asked": [one.question for one in asked],
                "answer": references,
                "given": answers,
                "score": sentence_bleu(answers, references, target=target),
            }
        )
        return scores, table, signatures


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

    return BLEU(tokenize=_TOKENIZERS.get(target, _TOKENIZERS[""]), effective_order=effective_order)


def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    class PlainCHRF(CHRF):  # type: ignore[misc, unused-ignore]
        """Scores as Python's floats: sacrebleu 2.6 has NumPy's but for 0, and its bootstrap cannot average the two."""

        def _compute_score_from_stats(self, stats: Any) -> Any:
            found = super()._compute_score_from_stats(stats)
            found.score = float(found.score)
            return found

    return PlainCHRF()
