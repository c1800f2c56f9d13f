"""Translation scored by sacrebleu, with its signature: text, or speech as in CoVoST-2 (section 4, Table 7).

Differs from the paper: its prompt, its Chinese segmentation and its BLEU's settings are not found. Ours are sacrebleu's
own (tokenizer `zh` for Chinese, `13a` for the rest) and stand in the score's settings; the prompt is versioned.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field

from lab.errors import LabError, choose
from lab.evaluation.benchmarks.benchmark import (
    Benchmark,
    Evaluated,
    Fills,
    Identity,
    Kind,
    Progress,
    check_limit,
    check_options,
    sampled,
)
from lab.evaluation.benchmarks.endpoints import PREFIX
from lab.evaluation.benchmarks.model_names import TEXT_MODELS, decoding_of, model_key
from lab.evaluation.benchmarks.replied import answers_of
from lab.evaluation.benchmarks.translation_scores import TOKENIZERS, sentence_bleu, translation_scores
from lab.evaluation.benchmarks.translation_sets import read_translations, translations_key

SPEECH_PROMPT = "Translate the speech into {language}. Write the translation and nothing else."
TEXT_PROMPT = "Translate into {language}. Write the translation and nothing else.\n\n{source}"
PROMPT_VERSION = "ours, 1"
LANGUAGES = {"en": "English", "zh": "Chinese", "de": "German", "fr": "French", "es": "Spanish"}
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

    def check(self, model: str, *, options: Mapping[str, str]) -> Identity:
        """Name the weights, the data, the prompt and sacrebleu's tokenizer.

        Raises:
            LabError: sacrebleu is missing, an option is wrong or missing, the model is none, or cannot hear and has to,
                or the data are not found.
        """
        check_options(self, options)
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
        choose(LANGUAGES, target, "target language")
        settings = {
            "data": translations_key(data),
            "target": target,
            "prompt": PROMPT_VERSION,
            "decoding": f"{decoding_of(model)}, {_MAX_NEW_TOKENS} new tokens",
            "tokenizer": TOKENIZERS.get(target, TOKENIZERS[""]),
        }
        return Identity(model_key=model_key(model), settings=settings)

    def evaluate(self, model: str, *, options: Mapping[str, str], limit: int | None, progress: Progress) -> Evaluated:
        """Let the model translate; what it has translated before is not asked again.

        Raises:
            LabError: as `check`; the model cannot be asked or refuses a sentence.
        """
        import pandas as pd

        check_limit(limit)
        identity = self.check(model, options=options)
        target = identity.settings["target"]
        found = read_translations(options.get("data", self.data))
        chosen = [found[index] for index in sampled(len(found), limit)]
        prompts = [
            (SPEECH_PROMPT if one.media else TEXT_PROMPT).format(language=LANGUAGES[target], source=one.source)
            for one in chosen
        ]
        answers = answers_of(model, chosen, prompts, max_new_tokens=_MAX_NEW_TOKENS, progress=progress)
        references = [one.reference for one in chosen]
        scores, signatures = translation_scores(answers, references, target=target)
        table = pd.DataFrame(
            {
                "id": [one.id for one in chosen],
                "prompt": prompts,
                "reference": references,
                "answer": answers,
                "score": sentence_bleu(answers, references, target=target),
            }
        )
        return self.evaluated(model, identity, scores, table, **signatures)


def _bleu(place: str) -> tuple[Fills, ...]:
    return (Fills(table="table_7", place=place, metric="BLEU", score="bleu"),)


TRANSLATION_BENCHMARKS: dict[str, Benchmark] = {
    "covost2_en2zh": Translation(
        name="covost2_en2zh",
        data="hub:lmms-lab-audio/covost2_en-zh:en_zh:test",
        source="hub: lmms-lab-audio/covost2_en-zh, test (a copy; Common Voice's own is by application)",
        target="zh",
        hears=True,
        cells=_bleu("CoVoST-2 en2zh"),
    ),
    "covost2_zh2en": Translation(
        name="covost2_zh2en",
        data="hub:lmms-lab-audio/covost2:zh_en:test",
        source="hub: lmms-lab-audio/covost2, test (a copy; Common Voice's own is by application)",
        target="en",
        hears=True,
        cells=_bleu("CoVoST-2 zh2en"),
    ),
    "translation": Translation(name="translation", source="a file of source and reference: give `data` and `target`"),
}
