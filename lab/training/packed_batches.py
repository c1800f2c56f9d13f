"""Training in packs: the pack of every step, and the certificate without which no packed training starts.

Section 3 of the paper (packed fine-tuning). One step is one pack, so that a step costs nearly the same whatever it
holds. Where a padded run's batch has so many samples, a packed one's has so many tokens.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from lab.data.packing import PackedEpochs, PackingStatistics, TooLong
from lab.errors import LabError
from lab.parts.audio_language_model import AudioLanguageModel
from lab.parts.joined_sequences import AnswerLoss
from lab.parts.language_models import LanguageModel
from lab.parts.packed_models import packed_audio_answers, packed_text_answers
from lab.training.packing_certificate import PackingCertificate, Probe, S, certify
from lab.training.packing_probes import NUM_SAMPLES, AudioSample, TextSample, audio_probe, text_probe
from lab.training.speech import Augmentation, SpeechSplit, encoded, pad_features

_UNCHANGED = Augmentation()


def certify_pack(
    model: nn.Module,
    packs: PackedEpochs,
    sample: Callable[[int], S],
    probe: Callable[[Sequence[S]], Probe[S]],
    *,
    attention: str = "auto",
    precision: str,
) -> PackingCertificate:
    """The certificate of samples of the first pack, its shortest; the same one again where there are too few.

    Raises:
        LabError: as `PackingCertificate.require`.
    """
    chosen = np.resize(packs.shortest_of(0), NUM_SAMPLES)
    samples = [sample(int(index)) for index in chosen]
    return certify(model, probe(samples), attention=attention, precision=precision).require()


class PackedTexts:
    """Prompts and answers in packs, for a language model; `loss` is what `lab.training.loop.train` asks for.

    `certificate` is to be logged with the run (its `tags`, `metrics` and `artifact`), `statistics` too.

    Args:
        language_model: as it will train.
        prompts: token ids.
        answers: token ids without start and end.
        budget: tokens of a pack.
        seed: of the order.
        too_long: what happens to samples longer than the budget (see `pack_best_fit`).
        ids: the samples' names, for messages.
        attention: of `PACKED_ATTENTION`, or `auto`.
        precision: the training's.

    Raises:
        LabError: not an answer a prompt, what `PackedEpochs` refuses, or a certificate that is not passed.
    """

    def __init__(
        self,
        *,
        language_model: LanguageModel,
        prompts: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]],
        budget: int,
        seed: int,
        too_long: TooLong = "refuse",
        ids: Sequence[str] | None = None,
        attention: str = "auto",
        precision: str = "auto",
    ) -> None:
        if len(prompts) != len(answers):
            raise LabError(f"{len(prompts)} prompts and {len(answers)} answers cannot be packed; expected one each")
        self._model, self._prompts, self._answers = language_model, prompts, answers
        start = len(language_model.codec.start_ids)
        lengths = [len(prompt) + start + len(answer) for prompt, answer in zip(prompts, answers, strict=True)]
        self._packs = PackedEpochs(lengths=lengths, budget=budget, seed=seed, too_long=too_long, ids=ids)
        self.statistics: PackingStatistics = self._packs.statistics
        self.certificate = certify_pack(
            language_model.model,
            self._packs,
            lambda i: TextSample(prompt=prompts[i], answer=answers[i]),
            lambda samples: text_probe(language_model, samples),
            attention=attention,
            precision=precision,
        )
        self._attention = self.certificate.attention

    def loss(self, step: int) -> AnswerLoss:
        """Losses of the pack of one step, one a sample."""
        chosen = self._packs.pack(step)
        prompts, answers = [self._prompts[i] for i in chosen], [self._answers[i] for i in chosen]
        return packed_text_answers(self._model, prompts, answers, attention=self._attention).loss


class PackedUtterances:
    """Utterances in packs, for an audio branch: the packed counterpart of `lab.training.speech.TrainingBatches`.

    Arguments are those of `PackedTexts` and of `TrainingBatches`. With `augmentation.shift` an utterance may take a
    window more than it is counted for, so its pack up to a token an utterance more than the budget.

    Raises:
        LabError: as `PackedTexts`.
    """

    def __init__(
        self,
        *,
        data: SpeechSplit,
        model: AudioLanguageModel,
        budget: int,
        seed: int,
        too_long: TooLong = "refuse",
        augmentation: Augmentation = _UNCHANGED,
        attention: str = "auto",
        precision: str = "auto",
    ) -> None:
        self._data, self._model, self._seed, self._augmentation = data, model, seed, augmentation
        self._answers = [model.codec.encode(text) for text in data.texts]
        # The end stands in no row: it is only ever a label.
        lengths = [model.num_tokens(f, t) - 1 for f, t in zip(data.num_frames, data.texts, strict=True)]
        ids = [utterance.id for utterance in data.utterances]
        self._packs = PackedEpochs(lengths=lengths, budget=budget, seed=seed, too_long=too_long, ids=ids)
        self.statistics: PackingStatistics = self._packs.statistics
        self.certificate = certify_pack(
            model,
            self._packs,
            self._sample,
            lambda samples: audio_probe(model, samples),
            attention=attention,
            precision=precision,
        )
        self._attention = self.certificate.attention

    def padding_share(self) -> float:
        """Share of the positions computed that are padding, as `TrainingBatches` has it: none."""
        return 0.0

    def _sample(self, index: int) -> AudioSample:
        if self._model.encoder is None:
            sound = self._data.features(index)
        else:
            sound = self._data.corpus.audio(self._data.utterances[index])
        return AudioSample(sound=torch.tensor(sound), answer=self._answers[index])

    def loss(self, step: int) -> AnswerLoss:
        """Losses of the pack of one step, one an utterance."""
        indices = self._packs.pack(step).tolist()
        if self._model.encoder is not None:
            features, lengths = encoded(self._model, self._data, indices)
        else:
            rng = np.random.default_rng([self._seed, step])
            mean, std = (x.cpu().numpy() for x in (self._model.feature_mean, self._model.feature_std))
            frames = []
            for index in indices:
                stored = self._data.features(index, int(rng.integers(0, len(self._data.stores))))
                rate = self._model.projector.downsample_rate
                frames.append(self._augmentation(stored, rng, mean=mean, std=std, rate=rate))
            features, lengths = pad_features(frames, self._model.feature_mean.device)
        answers = [self._answers[index] for index in indices]
        return packed_audio_answers(self._model, features, lengths, answers, attention=self._attention).loss
