"""The test samples of a corpus or source, asked of a model that a cell kept, or transcribed by a Whisper.

What a cell was given to read stands with its model (`lab.parts.saved_model`): prompt, tiles, frames, normaliser. So the
same data give the numbers that the cell itself measured.

| source | its samples are | asked by |
|---|---|---|
| a corpus of speech, `hub:OWNER/NAME` | transcribed | error rates after a normaliser |
| pictures or video, as `stills`, `FORM@hub:OWNER/NAME` | questions with choices, else written answers | accuracy |
| instructions, as `bigbench:plurals` | choices among answers to others of the source | accuracy |

Of a Whisper (section 4, Table 6 of the paper) the rates of the same transcripts under other normalisers stand beside
the first: the normaliser moves a rate as much as an ablation does, and the paper's is not found. Every clip's
transcript is kept, so that a stopped run goes on.

Differs from the paper: how it cuts Chinese into words is not found. WenetSpeech's WER is therefore not measured, its
CER is; for Fleurs test-zh and KeSpeech, whose one rate the table calls WER and the text (of KeSpeech) CER, characters
are counted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from lab.data.hub import LETTERS, files_sha256, pinned_revision, weights_key
from lab.data.normalizers import NORMALIZERS, Normalizer
from lab.errors import LabError, choose
from lab.evaluation.benchmarks.benchmark import (
    Benchmark,
    Identity,
    Options,
    Progress,
    Score,
    sampled,
    scores_of_items,
    whole_number,
)
from lab.training.parameters import Parameters, SpeechParameters, TextTuningParameters, VisionParameters

if TYPE_CHECKING:
    import pandas

    from lab.data.speech.corpora import Corpus
    from lab.evaluation.answering import How
    from lab.parts.omni_model import OmniModel
    from lab.training.samples import SampleExamples

HUB = "hub:"
_CHUNK = 32  # clips heard together and kept before the next: what a kill loses at most
P = TypeVar("P", bound=Parameters)


def _raw(counted: Normalizer, joined_by: str) -> Normalizer:
    """As it stands, but for its white space: case and punctuation count as errors."""
    return replace(counted, name="raw", version="1", normalize=lambda text: joined_by.join(text.split()))


_ENGLISH, _CHINESE = NORMALIZERS["whisper_english"], NORMALIZERS["chinese_characters"]
_OF_LANGUAGE: dict[str, tuple[Normalizer, ...]] = {
    "en": (_ENGLISH, NORMALIZERS["lowercase_alphanumeric"], _raw(_ENGLISH, " ")),
    "zh": (_CHINESE, _raw(_CHINESE, "")),
}


@dataclass(frozen=True, kw_only=True)
class SampleBenchmark(Benchmark):
    """The test samples of a source; `folder` is the saved model that is asked, None where a Whisper is."""

    data: str = ""
    """The corpus or source; empty where the user has to name it."""
    language: str = "en"
    folder: Path | None = None

    kind = "speech"
    models = (
        "a Whisper (whisper_tiny_en, whisper_base, a local folder, OWNER/NAME on the hub); or a run that kept a model, "
        "or the folder of a saved one, which is asked about any corpus or source of samples"
    )
    options: ClassVar[Options] = {
        "dataset": "other data: hub:OWNER/NAME[:CONFIG[:SPLIT]], or hub:FOLDER of the same form",
        "normalizer": f"of a saved model: {', '.join(NORMALIZERS)} (default: the cell's own)",
        "num_beams": "of a saved model; 1: the likeliest token each time (default: the cell's own)",
        "num_choices": "of instructions, answers among which the right one is chosen (default: the cell's own)",
        "max_new_tokens": "of a saved model, at which a written answer is cut (default: 128)",
        "device": "of a saved model: cpu, cuda or auto (default: auto)",
    }

    def identify(self, model: str, options: Options) -> Identity:
        """Name the weights, the data, and how they are asked."""
        data = self._data(options)
        if self.folder is not None:
            return self._identify_saved(model, self.folder, data, options)
        from lab.parts.audio_encoders import AUDIO_ENCODERS

        if given := sorted(options.keys() - {"dataset"}):
            raise LabError(f"option {given[0]} is of a saved model, and {model!r} is a Whisper; leave it out")
        settings = {
            "data": _speech_state(data),
            "split": "test",
            "language": self.language,
            "decoding": "greedy",
            **{f"normalizer.{one.name}": one.version for one in normalizers_of(self.language)},
        }
        known = {name: encoder().sources for name, encoder in AUDIO_ENCODERS.items()}
        return Identity(model_key=weights_key(model, known), settings=settings)

    def ask(
        self, model: str, identity: Identity, options: Options, limit: int | None, progress: Progress
    ) -> "tuple[tuple[Score, ...], pandas.DataFrame, Options]":
        """Load the model and ask it; what a Whisper has transcribed before is not asked again."""
        if self.folder is None:
            return self._transcribed(model, self._data(options), limit, progress)
        from lab.data.filters.filtering import left_out_account
        from lab.evaluation.answering import answer
        from lab.evaluation.items import CUT

        loaded = open_saved(self.folder, device=options.get("device", "auto"))
        source = self._data(options)
        kind = SOURCES[kind_of(source, loaded.parts())]
        asked, how = kind.open(source, loaded, cell_of(self.folder, options), limit or 0)
        items = answer(loaded, asked, how, progress=progress)
        told = {"how": type(how).__name__.lower()}
        if items["finish_reason"].any():
            cut, silent = (items["finish_reason"] == CUT).sum(), (items["given"].str.strip() == "").sum()
            told["cut_off"] = f"{cut} of {len(items)}, at their limit of tokens"
            told["unanswered"] = f"{silent} of {len(items)}, counted as wrong"
        if asked.left_out:
            told["left_out"] = left_out_account(asked.left_out)
        return scores_of_items(items), items.assign(score=1.0 - items["wrong_answers"]), told

    def _data(self, options: Options) -> str:
        if data := options.get("dataset", self.data):
            return data
        raise LabError(
            f"benchmark {self.name!r} has no data set that everybody can open ({self.source}); name yours with "
            "--option dataset=hub:NAME_OR_FOLDER[:CONFIG[:SPLIT]], with columns audio and text"
        )

    def _identify_saved(self, model: str, folder: Path, data: str, options: Options) -> Identity:
        from lab.parts.saved_model import read_description

        parts = read_description(folder)["parts"]
        kind = kind_of(data, parts)
        if lacking := [part for part in SOURCES[kind].parts if part not in parts]:
            raise LabError(
                f"{data!r} is {kind}, for which the model {model} lacks its {' and '.join(lacking)}; its parts are: "
                f"{', '.join(parts)}"
            )
        cell = cell_of(folder, options)
        settings = {
            "data": SOURCES[kind].state(data),
            "split": "test",
            f"normalizer.{cell.normalizer.name}": cell.normalizer.version,
            "num_beams": str(cell.num_beams),
            "num_choices": str(cell.num_choices),
            "max_new_tokens": str(cell.max_new_tokens),
            "num_test": str(cell.seen.num_test),
            "prompt": cell.heard.prompt,
        }
        return Identity(model_key=f"saved@{files_sha256(folder)}", settings=settings)

    def _transcribed(
        self, model: str, data: str, limit: int | None, progress: Progress
    ) -> "tuple[tuple[Score, ...], pandas.DataFrame, Options]":
        from lab.parts.audio_encoders import load_speech_recognizer
        from lab.training.sample_filters import KeptTranscripts

        corpus = _open_corpus(data, self.language)
        tested = corpus.split("test")
        if not tested:
            raise LabError(f"benchmark {self.name!r}: corpus {corpus.name!r} has no test split")
        chosen = [tested[place] for place in sampled(len(tested), limit)]
        kept = KeptTranscripts(load_speech_recognizer(model, language=self.language), name=model)
        texts: dict[int, str] = {}
        # From short to long, as the recogniser's batches are; the answers stand in the corpus's order.
        order = sorted(range(len(chosen)), key=lambda place: chosen[place].sound.num_samples)
        for start in range(0, len(order), _CHUNK):
            chunk = order[start : start + _CHUNK]
            heard = kept.transcribe([chosen[place].sound.read() for place in chunk])
            texts.update(zip(chunk, heard, strict=True))
            progress(len(texts), len(chosen))
        said = [(sample.id, sample.answer, texts[place]) for place, sample in enumerate(chosen)]
        scores, answers = score_transcripts(said, self.language)
        left_out = f"{len(chosen) - len(answers)} of {len(chosen)} without words to say"
        return scores, answers.assign(source=corpus.name), {"corpus_sha256": corpus.sha256, "left_out": left_out}


def normalizers_of(language: str) -> tuple[Normalizer, ...]:
    """Those that a language's transcripts are scored with, the one that counts first.

    Raises:
        LabError: another language than English and Chinese.
    """
    return choose(_OF_LANGUAGE, language, "language")


def score_transcripts(said: list[tuple[str, str, str]], language: str) -> "tuple[tuple[Score, ...], pandas.DataFrame]":
    """The rates of (id, reference, transcript) under every normaliser, and the item table under the first.

    The first normaliser gives the rates that are compared with other people's (`word_error_rate`); those of the others
    stand under its name and theirs (`word_error_rate/raw`). An utterance of which a normaliser leaves no reference is
    left out of all rates and of the table: it has nothing to get wrong.

    Raises:
        LabError: no utterance is left.
    """
    from lab.data.normalizers import text_errors
    from lab.data.sample import TRANSCRIBE

    normalizers = normalizers_of(language)
    kept = [one for one in said if all(normalizer(one[1]) for normalizer in normalizers)]
    if not kept:
        name = normalizers[0].name
        raise LabError(f"none of the {len(said)} references has a word left under the normaliser {name!r}")
    ids, references, heard = zip(*kept, strict=True)
    scores: list[Score] = []
    tables: list[pandas.DataFrame] = []
    for normalizer in normalizers:
        table = text_errors(references, heard, normalizer, ids)
        table = table.assign(group=table["answer_normalized"], task=TRANSCRIBE, asked="", num_choices=0)
        suffix = f"/{normalizer.name}" if tables else ""
        scores += [replace(score, metric=f"{score.metric}{suffix}") for score in scores_of_items(table)]
        tables.append(table)
    return tuple(scores), tables[0].assign(score=1.0 - tables[0]["wrong_answers"])


def open_saved(folder: Path, *, device: str = "auto") -> "OmniModel":
    """A saved model on its device."""
    from lab.parts.saved_model import load_model
    from lab.training.loop import choose_device
    from lab.training.named_parts import open_audio_encoder, open_language_model, open_vision_encoder

    where = choose_device(device)
    openers: dict[str, Callable[..., Any]] = {
        "audio_encoder": open_audio_encoder,
        "vision_encoder": open_vision_encoder,
        "language_model": open_language_model,
    }
    return load_model(folder, openers=openers).to(where)


@dataclass(frozen=True, kw_only=True)
class SavedCell:
    """How a saved model is asked: as the cell that trained it was, but for what options say otherwise."""

    heard: SpeechParameters
    seen: VisionParameters
    whole: bool
    """Whether pictures and videos pass through projectors of their own."""
    normalizer: Normalizer
    num_beams: int
    num_choices: int
    max_new_tokens: int


def cell_of(folder: Path, options: Options) -> SavedCell:
    """What stands with a saved model of its cell; of what it was never given, the usual.

    Raises:
        LabError: no saved model of this version, an unknown normaliser, or an option that is no whole number.
    """
    from lab.parts.saved_model import read_description

    told = read_description(folder).get("cell", {})
    # Of a cell of the whole model what it hears and sees with stands apart.
    told = {**told, **told.get("hears", {}), **told.get("sees", {})} if "stages" in told else told

    def typed(usual: P) -> P:
        return replace(usual, **{name: told[name] for name in usual.names() if name in told})

    heard, seen = typed(SpeechParameters(num_beams=1)), typed(VisionParameters(videos="", num_test=500))
    return SavedCell(
        heard=heard,
        seen=seen,
        whole="stages" in told,
        normalizer=choose(NORMALIZERS, options.get("normalizer", heard.normalizer), "normaliser"),
        num_beams=whole_number(options, "num_beams", heard.num_beams),
        num_choices=whole_number(options, "num_choices", typed(TextTuningParameters()).num_choices),
        max_new_tokens=whole_number(options, "max_new_tokens", 128),
    )


@dataclass(frozen=True)
class SourceKind:
    """A kind of samples: the parts without which a model cannot be asked, what names the data, and what opens them."""

    parts: tuple[str, ...]
    state: Callable[[str], str]
    open: "Callable[[str, OmniModel, SavedCell, int], tuple[SampleExamples, How]]"


def _hub_state(name: str) -> str:
    return f"{name} @ {pinned_revision(name.partition(':')[0])}"


def _speech_state(source: str) -> str:
    from lab.data.fetch import packages
    from lab.data.speech.corpora import CORPORA

    if source.startswith(HUB):
        return _hub_state(source.removeprefix(HUB))
    pinned = [packages()[name] for name in choose(CORPORA, source, "corpus")().sources]
    return ", ".join(f"{one.name} {one.version} {one.sha256[:LETTERS]}" for one in pinned) or source


def _open_corpus(source: str, language: str) -> "Corpus":
    """A corpus; of the hub's the state that the settings name."""
    from lab.data.speech.corpora import load_corpus

    return load_corpus(source, language=language) if source.startswith(HUB) else load_corpus(source)


def _utterances(source: str, model: "OmniModel", cell: SavedCell, count: int) -> "tuple[SampleExamples, How]":
    from lab.evaluation.answering import Transcribe
    from lab.training.cell import open_split
    from lab.training.named_parts import transcript_writer

    split = open_split(
        _open_corpus(source, cell.normalizer.language),
        "test",
        model.part("audio_encoder", "sounds"),
        write=transcript_writer(model.language.name),
        keep=cell.normalizer,
        limit=count,
        # Features are kept for those who hear with the same encoder; nobody else has one that was trained.
        features=not cell.heard.train_encoder,
        prompt=cell.heard.prompt,
    )
    return split, Transcribe(normalizer=cell.normalizer, num_beams=cell.num_beams)


def _seen_state(source: str) -> str:
    from lab.data.sources import sources_sha256

    _, hub, name = source.partition(f"@{HUB}")
    return _hub_state(name) if hub else f"{source} {sources_sha256(source)[:LETTERS]}"


def _questions(source: str, model: "OmniModel", cell: SavedCell, count: int) -> "tuple[SampleExamples, How]":
    from lab.evaluation.answering import Choose, Write
    from lab.training.cell import open_seen_split

    encoder = model.part("vision_encoder", "pictures or videos")
    found = open_seen_split(cell.seen, encoder, source, "test", count or cell.seen.num_test)
    found = replace(found, branch=None) if cell.whole else found
    if all(one.choices for one in found.samples):
        return found, Choose()
    limits = {"num_beams": cell.num_beams, "max_new_tokens": cell.max_new_tokens}
    return found, Write(normalizer=cell.normalizer, **limits)


def _text_state(source: str) -> str:
    from lab.data.fetch import packages
    from lab.data.instructions.instructions import INSTRUCTION_SOURCES, JOIN

    told = []
    for part in source.split(JOIN):
        name, _, option = part.partition(":")
        if part.startswith(HUB):
            told.append(_hub_state(option))
        else:
            package = packages()[choose(INSTRUCTION_SOURCES, name, "source of instructions")[0]]
            told.append(f"{part} {package.sha256[:LETTERS]}")
    return ", ".join(told)


def _instructions(source: str, model: "OmniModel", cell: SavedCell, count: int) -> "tuple[SampleExamples, How]":
    from lab.data.instructions.instructions import read_instructions, split_instructions, with_choices
    from lab.evaluation.answering import Choose
    from lab.training.named_parts import writer_of
    from lab.training.samples import SampleExamples

    held_out = split_instructions(read_instructions(source).samples)["test"]
    chosen = [held_out[place] for place in sampled(len(held_out), count or None)]
    samples = with_choices(chosen, writer_of(model.language), num_choices=cell.num_choices)
    return SampleExamples(samples=samples, name=source), Choose(per_token=True, pack_tokens=4096)


SOURCES: Mapping[str, SourceKind] = {
    "speech": SourceKind(("audio_encoder", "audio_projector"), _speech_state, _utterances),
    "pictures or video": SourceKind(("vision_encoder", "visual_projector"), _seen_state, _questions),
    "instructions": SourceKind((), _text_state, _instructions),
}


def kind_of(source: str, parts: Mapping[str, Any]) -> str:
    """Of which of `SOURCES` a source is; a data set of the hub is speech where the model hears.

    Raises:
        LabError: it is of none; the message lists the choices.
    """
    from lab.data.instructions.instructions import INSTRUCTION_SOURCES
    from lab.data.sources import OUTER_SOURCES, SAMPLE_SOURCES
    from lab.data.speech.corpora import CORPORA

    if f"@{HUB}" in source and source.partition(":")[0] not in OUTER_SOURCES:
        return "pictures or video"
    if source.startswith(HUB):
        return "speech" if "audio_projector" in parts else "instructions"
    names = {
        **dict.fromkeys(CORPORA, "speech"),
        **dict.fromkeys({*SAMPLE_SOURCES, *OUTER_SOURCES} - {"speech", "text"}, "pictures or video"),
        **dict.fromkeys(INSTRUCTION_SOURCES, "instructions"),
    }
    forms = {f"{form}OWNER/NAME": "" for form in (HUB, f"FORM@{HUB}")}
    return choose({**names, **forms}, source.partition(":")[0], "corpus or source of samples")
