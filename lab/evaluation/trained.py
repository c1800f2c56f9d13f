"""A model that a cell trained and kept, asked about the test samples of any corpus or source: nothing is trained.

What the cell was given to read stands with the model (`lab.parts.saved_model`): prompt, tiles, frames, normaliser. So
the same data give the numbers that the cell itself measured.

| source | its samples are | asked by |
|---|---|---|
| a corpus of speech, `hub:OWNER/NAME` | transcribed | error rates after a normaliser |
| pictures or video, as `stills`, `FORM@hub:OWNER/NAME` | questions with choices, else written answers | accuracy |
| instructions, as `bigbench:plurals` | choices among answers to others of the source | accuracy |
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.data.normalizers import NORMALIZERS
from lab.errors import LabError, choose
from lab.evaluation.benchmarks.benchmark import Benchmark, Identity, Kind, Progress, Score, whole_number
from lab.evaluation.benchmarks.revisions import data_revision, files_sha256

if TYPE_CHECKING:
    import pandas

    from lab.evaluation.answering import How
    from lab.parts.omni_model import OmniModel
    from lab.training.samples import SampleExamples

HUB = "hub:"
_LETTERS = 16
_OPTIONS = {
    "normalizer": f"{', '.join(NORMALIZERS)} (default: the cell's own)",
    "num_beams": "1: the likeliest token each time (default: the cell's own)",
    "num_choices": "of instructions, answers among which the right one is chosen (default: the cell's own)",
    "max_new_tokens": "at which a written answer is cut (default: 128)",
    "device": "cpu, cuda or auto (default: auto)",
}


def openers() -> Mapping[str, Callable[..., Any]]:
    """What opens the parts that a saved model keeps by name, as studies open them."""
    from lab.training.language_models import open_language_model
    from lab.training.speech import open_encoder
    from lab.training.vision import open_vision_encoder

    return {
        "audio_encoder": open_encoder,
        "vision_encoder": open_vision_encoder,
        "language_model": open_language_model,
    }


def open_saved(folder: Path, *, device: str = "auto") -> "OmniModel":
    """A saved model on its device.

    Raises:
        LabError: as `load_model` and `choose_device`.
    """
    from lab.parts.saved_model import load_model
    from lab.training.loop import choose_device

    where = choose_device(device)
    return load_model(folder, openers=openers()).to(where)


@dataclass(frozen=True)
class SourceKind:
    """A kind of samples: the parts without which a model cannot be asked, what names the data, and what opens them.

    `opened` is given the model, what the cell was given to read, the source and how many samples at most (0: all), and
    gives them with how they are asked.
    """

    parts: tuple[str, ...]
    state: Callable[[str], str]
    opened: "Callable[[OmniModel, Mapping[str, Any], str, int], tuple[SampleExamples, How]]"


def _speech_state(source: str) -> str:
    from lab.data.fetch import packages
    from lab.data.speech.corpora import CORPORA

    if source.startswith(HUB):
        return _hub_state(source.removeprefix(HUB))
    pinned = [packages()[name] for name in choose(CORPORA, source, "corpus")().sources]
    return ", ".join(f"{one.name} {one.version} {one.sha256[:_LETTERS]}" for one in pinned) or source


def _hub_state(name: str) -> str:
    return f"{name} @ {data_revision(name.partition(':')[0])}"


def _utterances(model: "OmniModel", cell: Mapping[str, Any], source: str, count: int) -> "tuple[SampleExamples, How]":
    from lab.evaluation.answering import Transcribe
    from lab.training.language_models import transcript_writer
    from lab.training.speech import MIN_FRAMES, open_corpus, open_split

    normalizer = choose(NORMALIZERS, cell["normalizer"], "normaliser")
    encoder = model.part("audio_encoder", "sounds")
    split = open_split(
        open_corpus(source),
        "test",
        encoder,
        write=transcript_writer(model.language.name),
        keep=normalizer,
        limit=count,
        min_frames=MIN_FRAMES,
        # Features are kept for those who hear with the same encoder; nobody else has one that was trained.
        features=not cell["train_encoder"],
        prompt=cell["prompt"],
    )
    return split, Transcribe(normalizer=normalizer, num_beams=cell["num_beams"])


def _seen_state(source: str) -> str:
    from lab.data.sources import sources_sha256

    _, hub, name = source.partition(f"@{HUB}")
    return _hub_state(name) if hub else f"{source} {sources_sha256(source)[:_LETTERS]}"


def _questions(model: "OmniModel", cell: Mapping[str, Any], source: str, count: int) -> "tuple[SampleExamples, How]":
    from lab.evaluation.answering import Choose
    from lab.training.parameters import VisionParameters
    from lab.training.samples import writer_of
    from lab.training.vision_cell import open_cell_split

    encoder, write = model.part("vision_encoder", "pictures or videos"), writer_of(model.language)
    known = {name: cell[name] for name in VisionParameters.names() if name in cell}
    asked = open_cell_split(VisionParameters(**known), encoder, source, "test", count or cell["num_test"], write=write)
    how = Choose() if all(one.choices for one in asked.samples) else _writing(cell)
    return asked, how


def _writing(cell: Mapping[str, Any]) -> "How":
    from lab.evaluation.answering import Write

    normalizer = choose(NORMALIZERS, cell["normalizer"], "normaliser")
    return Write(normalizer=normalizer, num_beams=cell["num_beams"], max_new_tokens=cell["max_new_tokens"])


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
            told.append(f"{part} {package.sha256[:_LETTERS]}")
    return ", ".join(told)


def _instructions(model: "OmniModel", cell: Mapping[str, Any], source: str, count: int) -> "tuple[SampleExamples, How]":
    from lab.data.instructions.instructions import read_instructions, split_instructions, with_choices
    from lab.evaluation.answering import Choose
    from lab.evaluation.benchmarks.benchmark import sampled
    from lab.training.samples import SampleExamples, writer_of

    held_out = split_instructions(read_instructions(source).samples)["test"]
    chosen = [held_out[place] for place in sampled(len(held_out), count or None)]
    write = writer_of(model.language)
    samples = with_choices(chosen, write, num_choices=cell["num_choices"])
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
    from lab.data.sources import SAMPLE_SOURCES
    from lab.data.speech.corpora import CORPORA

    if f"@{HUB}" in source:
        return "pictures or video"
    if source.startswith(HUB):
        return "speech" if "audio_projector" in parts else "instructions"
    names = {
        **dict.fromkeys(CORPORA, "speech"),
        **dict.fromkeys(SAMPLE_SOURCES, "pictures or video"),
        **dict.fromkeys(INSTRUCTION_SOURCES, "instructions"),
    }
    forms = {f"{form}OWNER/NAME": "" for form in (HUB, f"FORM@{HUB}")}
    return choose({**names, **forms}, source.partition(":")[0], "corpus or source of samples")


# What a cell was given to read, where it says nothing of it.
_UNTOLD: Mapping[str, Any] = {
    "normalizer": "whisper_english",
    "num_beams": 1,
    "prompt": "",
    "train_encoder": False,
    "max_new_tokens": 128,
    "num_choices": 4,
    "num_test": 500,
    "frame_size": 96,
    "frames_per_second": 1.0,
    "max_frames": 8,
    "max_tiles": 1,
    "fit": "pad",
    "unpad": False,
    "newline": False,
    "videos": "",
}


@dataclass(frozen=True, kw_only=True)
class TrainedModel(Benchmark):
    """The test samples of a source, which a saved model is asked about; `name` is the source's."""

    folder: Path
    """The saved model."""
    kind: Kind = "samples"
    models: str = "a run that kept a model, or the folder of a saved one"
    source: str = "the corpora of studies, and the hub"
    options: Mapping[str, str] = field(default_factory=lambda: _OPTIONS)

    def identify(self, model: str, options: Mapping[str, str]) -> Identity:
        """Name the weights, the data, and how they are asked.

        Raises:
            LabError: an unknown source, one with parts that the model lacks, or no saved model of this version.
        """
        from lab.parts.saved_model import read_description

        described = read_description(self.folder)
        kind = kind_of(self.name, described["parts"])
        if lacking := [part for part in SOURCES[kind].parts if part not in described["parts"]]:
            raise LabError(
                f"{self.name!r} is {kind}, for which the model {model} lacks its {' and '.join(lacking)}; its parts "
                f"are: {', '.join(described['parts'])}"
            )
        cell = self._cell(options)
        normalizer = choose(NORMALIZERS, cell["normalizer"], "normaliser")
        asked = {name: cell[name] for name in ("num_beams", "num_choices", "max_new_tokens", "num_test", "prompt")}
        settings = {
            "data": SOURCES[kind].state(self.name),
            "split": "test",
            f"normalizer.{normalizer.name}": normalizer.version,
            **{name: str(value) for name, value in asked.items()},
        }
        return Identity(model_key=f"saved@{files_sha256(self.folder)}", settings=settings)

    def ask(
        self, model: str, identity: Identity, options: Mapping[str, str], limit: int | None, progress: Progress
    ) -> "tuple[tuple[Score, ...], pandas.DataFrame, Mapping[str, str]]":
        """Load the model and ask it.

        Raises:
            LabError: the model or the data cannot be opened, or as `lab.evaluation.answering.answer`.
        """
        from lab.evaluation.answering import answer
        from lab.evaluation.benchmarks.scores import scores_of_items

        loaded = open_saved(self.folder, device=options.get("device", "auto"))
        kind = kind_of(self.name, loaded.parts())
        asked, how = SOURCES[kind].opened(loaded, self._cell(options), self.name, limit or 0)
        items = answer(loaded, asked, how, progress=progress)
        answers = items.assign(score=1.0 - items["wrong_answers"])
        return scores_of_items(items), answers, {"how": type(how).__name__.lower()}

    def _cell(self, options: Mapping[str, str]) -> dict[str, Any]:
        """What the cell was given to read, and what is wanted otherwise."""
        from lab.parts.saved_model import read_description

        given = {"normalizer": options["normalizer"]} if "normalizer" in options else {}
        counts = [name for name in ("num_beams", "num_choices", "max_new_tokens") if name in options]
        told = read_description(self.folder).get("cell", {})
        return {**_UNTOLD, **told, **given, **{name: whole_number(options, name, "1") for name in counts}}
