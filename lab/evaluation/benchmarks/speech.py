"""Speech recognition benchmarks: word and character error rates of a Whisper (section 4, Table 6 of the paper).

Beside the rate under one normaliser stand those of the same transcripts under the others: the normaliser moves a rate
as much as an ablation does, and the paper's is not found. Every clip's transcript is kept, so that a stopped run goes
on, and another normaliser costs nothing.

Differs from the paper: how it cuts Chinese into words is not found. WenetSpeech's WER is therefore not measured, its
CER is; for Fleurs test-zh and KeSpeech, whose one rate the table calls WER and the text (of KeSpeech) CER, characters
are counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab.data.normalizers import NORMALIZERS, Normalizer
from lab.errors import LabError, choose
from lab.evaluation.benchmarks.benchmark import Benchmark, Identity, Kind, Progress, Score, sampled
from lab.evaluation.benchmarks.revisions import ModelRevision, data_revision, find_checkpoint

if TYPE_CHECKING:
    import pandas

    from lab.data.speech.corpora import Corpus
    from lab.evaluation.kept_transcripts import Recognizer

_CHUNK = 32  # clips between two reports; each is kept as it is transcribed
_OF_HUB = {
    "dataset": "another hub name or a folder of the same form, DATASET[:CONFIG[:SPLIT]]",
    "revision": "a commit of the hub's data set (default: the newest, named in the settings)",
}


@dataclass(frozen=True, kw_only=True)
class SpeechBenchmark(Benchmark):
    """The test split of a corpus, transcribed by a Whisper."""

    corpus: str = ""
    """`amazon_queen`, `asterisk`, or what follows `hub:` (empty where the user has to name it)."""
    language: str
    kind: Kind = "speech"
    models: str = "a Whisper: whisper_tiny_en, whisper_base, a local folder, or OWNER/NAME on the hub"
    hub: bool = True
    options: Mapping[str, str] = field(default_factory=lambda: _OF_HUB)

    def identify(self, model: str, options: Mapping[str, str]) -> Identity:
        """Name the weights, the data, and the normalisers with their versions.

        Raises:
            LabError: the model is unknown, an option is wrong, or the data set has to be named and is not.
        """
        settings = {
            "data": self._data(options),
            "split": "test",
            "language": self.language,
            "decoding": "greedy",
            **{f"normalizer.{one.name}": one.version for one in normalizers_of(self.language)},
        }
        return Identity(model_key=_checkpoint(model).key, settings=settings)

    def ask(
        self, model: str, identity: Identity, options: Mapping[str, str], limit: int | None, progress: Progress
    ) -> "tuple[tuple[Score, ...], pandas.DataFrame, Mapping[str, str]]":
        """Transcribe what is not kept yet and count the errors under every normaliser of the language.

        Raises:
            LabError: the weights or the corpus cannot be had.
        """
        from lab.evaluation.kept_transcripts import KeptTranscripts

        corpus = self._open(options)
        tested = corpus.split("test")
        if not tested:
            raise LabError(f"benchmark {self.name!r}: corpus {corpus.name!r} has no test split")
        chosen = [tested[place] for place in sampled(len(tested), limit)]
        kept = KeptTranscripts(self._recognizer(_checkpoint(model)), name=model)
        texts: dict[int, str] = {}
        # From short to long, as the recogniser's batches are; the answers stand in the corpus's order.
        order = sorted(range(len(chosen)), key=lambda place: chosen[place].sound.num_samples)
        for start in range(0, len(order), _CHUNK):
            chunk = order[start : start + _CHUNK]
            heard = kept.transcribe([chosen[place].sound.read() for place in chunk])
            texts.update(zip(chunk, heard, strict=True))
            progress(len(texts), len(chosen))
        scores, answers = score_transcripts(
            [sample.id for sample in chosen],
            [sample.answer for sample in chosen],
            [texts[place] for place in range(len(chosen))],
            self.language,
        )
        left_out = f"{len(chosen) - len(answers)} of {len(chosen)} without words to say"
        return scores, answers, {"corpus_sha256": corpus.sha256, "left_out": left_out}

    def _recognizer(self, checkpoint: ModelRevision) -> "Recognizer":
        from lab.parts.speech_recognizers import load_speech_recognizer

        name = checkpoint.name if checkpoint.packages else str(checkpoint.open()[0])
        return load_speech_recognizer(name, language=self.language)

    def _dataset(self, options: Mapping[str, str]) -> str:
        dataset = options.get("dataset", self.corpus)
        if not dataset:
            raise LabError(
                f"benchmark {self.name!r} has no data set that everybody can open ({self.source}); name yours with "
                "--option dataset=NAME_OR_FOLDER, of the form DATASET[:CONFIG[:SPLIT]] with columns audio and text"
            )
        return dataset

    def _data(self, options: Mapping[str, str]) -> str:
        if not self.hub:
            from lab.data.fetch import packages
            from lab.data.speech.corpora import CORPORA

            pinned = [packages()[source] for source in CORPORA[self.corpus]().sources]
            return ", ".join(f"{one.name} {one.version} {one.sha256[:16]}" for one in pinned)
        return f"hub:{self._dataset(options)} @ {self._revision(options)}"

    def _revision(self, options: Mapping[str, str]) -> str:
        return options.get("revision") or data_revision(self._dataset(options).partition(":")[0])

    def _open(self, options: Mapping[str, str]) -> "Corpus":
        from lab.data.speech.corpora import load_corpus

        if not self.hub:
            return load_corpus(self.corpus)
        revision = self._revision(options)
        pinned = {} if revision.startswith("folder ") else {"revision": revision}
        return load_corpus(f"hub:{self._dataset(options)}", language=self.language, **pinned)


def _checkpoint(model: str) -> ModelRevision:
    from lab.parts.audio_encoders import AUDIO_ENCODERS

    return find_checkpoint(model, {name: known().sources for name, known in AUDIO_ENCODERS.items()})


_RATES = {"wer": "word_error_rate", "cer": "character_error_rate"}


# As it stands, but for its white space: case and punctuation count as errors.
_RAW_ENGLISH = Normalizer(
    name="raw", version="1", reports=("wer", "cer"), normalize=lambda text: " ".join(text.split())
)
_RAW_CHINESE = Normalizer(name="raw", version="1", reports=("cer",), normalize=lambda text: "".join(text.split()))
_OF_LANGUAGE: dict[str, tuple[Normalizer, ...]] = {
    "en": (NORMALIZERS["whisper_english"], NORMALIZERS["lowercase_alphanumeric"], _RAW_ENGLISH),
    "zh": (NORMALIZERS["chinese_characters"], _RAW_CHINESE),
}


def normalizers_of(language: str) -> tuple[Normalizer, ...]:
    """Those that a language's transcripts are scored with, the one that counts first.

    Raises:
        LabError: another language than English and Chinese.
    """
    return choose(_OF_LANGUAGE, language, "language")


def score_transcripts(
    ids: Sequence[str], references: Sequence[str], hypotheses: Sequence[str], language: str
) -> "tuple[tuple[Score, ...], pandas.DataFrame]":
    """The rates under every normaliser, and a line an utterance with its errors under the first.

    The first normaliser gives the rates that are compared with other people's (`word_error_rate`); those of the others
    stand under its name and theirs (`word_error_rate/raw`).

    An utterance of which the first normaliser leaves no reference is left out of all rates and of the answers: it has
    nothing to get wrong.

    Raises:
        LabError: no utterance is left.
    """
    import pandas as pd

    from lab.data.normalizers import text_errors
    from lab.evaluation.benchmarks.scores import error_rate_score

    first, *others = normalizers_of(language)
    kept = [place for place, text in enumerate(references) if all(one(text) for one in (first, *others))]
    if not kept:
        raise LabError(f"none of the {len(ids)} references has a word left under the normaliser {first.name!r}")
    scores: list[Score] = []
    tables: list[pandas.DataFrame] = []
    for normalizer in (first, *others):
        table = text_errors(
            [references[place] for place in kept],
            [hypotheses[place] for place in kept],
            normalizer,
            [ids[place] for place in kept],
        )
        table = table.assign(group=table["answer_normalized"])
        tables.append(table)
        suffix = "" if normalizer is first else f"/{normalizer.name}"
        for kind in normalizer.reports:
            scores.append(error_rate_score(table, _RATES[kind], metric=f"{_RATES[kind]}{suffix}"))
    table = tables[0]
    counted, length = ("word_errors", "num_words") if "wer" in first.reports else ("character_errors", "num_characters")
    answers = pd.DataFrame(
        {
            "id": table["id"],
            "asked": "",
            "answer": table["answer"],
            "given": table["given"],
            "score": table[counted] / table[length],
            **{name: table[name] for name in table.columns[3:]},
        }
    )
    return tuple(scores), answers
