from dataclasses import replace

import numpy as np
import pytest
import torch

from lab.errors import LabError
from lab.evaluation.normalizers import NORMALIZERS
from lab.parts.omni_model import Example, OmniModel
from lab.parts.packed_attention import PACKED_ATTENTION, PackedAttention
from lab.parts.packed_attention_kernels import SampleBoundaries
from lab.training.augmentation import Augmentation
from lab.training.batches import PackedBatches, PaddedBatches
from lab.training.examples import ReadyExamples
from lab.training.loop import TrainingOptions, train
from lab.training.parameters import SpeechParameters
from lab.training.speech import cell_data, open_encoder
from tests.parts.tiny_models import language_model
from tests.speech import tiny_parameters
from tests.training.test_speech import build

RNG = np.random.default_rng(0)
PROMPTS = [RNG.integers(0, 4, n).tolist() for n in RNG.integers(0, 12, 40)]
ANSWERS = [RNG.integers(0, 4, n).tolist() for n in RNG.integers(0, 6, 40)]


def texts(model=None, prompts=PROMPTS, answers=ANSWERS, **options) -> PackedBatches:
    examples = [Example(content=[prompt], answer=answer) for prompt, answer in zip(prompts, answers, strict=True)]
    data = ReadyExamples(examples, [f"t{number}" for number in range(len(examples))])
    return PackedBatches(
        data, model or OmniModel(language_model=language_model()), **{"budget": 48, "seed": 1, **options}
    )


def test_texts_train_in_packs_and_the_certificate_comes_first():
    model = OmniModel(language_model=language_model())
    batches = texts(model)
    assert batches.certificate.passed
    assert batches.certificate.attention == "per_sample"
    assert batches.statistics.num_samples == 40
    assert batches.statistics.num_tokens == sum(map(len, PROMPTS)) + 40 + sum(map(len, ANSWERS))
    record = train(model, batches.loss, TrainingOptions(steps=30, learning_rate=1e-2, precision="float32"))
    assert np.mean(record.losses[-10:]) < np.mean(record.losses[:10])


def test_the_loss_of_a_step_does_not_depend_on_the_steps_before():
    straight, jumping = texts(), texts()
    losses = [straight.loss(step).loss for step in range(12)]
    assert torch.equal(jumping.loss(11).loss, losses[11])
    assert torch.equal(jumping.loss(2).loss, losses[2])


def test_a_single_text_can_be_packed():
    assert texts(prompts=[[0, 1]], answers=[[2]]).loss(3).num_tokens.tolist() == [2]


def test_no_packed_training_starts_without_its_certificate(monkeypatch):
    inner = PACKED_ATTENTION["per_sample"]

    def everywhere(query, key, value, boundaries, scale, dropout):
        whole = SampleBoundaries((len(query),), torch.tensor([0, len(query)]))
        return inner.attend(query, key, value, whole, scale, dropout)

    monkeypatch.setitem(PACKED_ATTENTION, "per_sample", PackedAttention(everywhere, inner.missing))
    with pytest.raises(LabError, match="packed samples are not kept apart"):
        texts().loss(0)


def test_what_cannot_be_packed_is_refused():
    with pytest.raises(LabError, match="sample 't0' has 60 tokens, more than the budget of 48"):
        texts(prompts=[[0] * 59], answers=[[]])
    assert texts(prompts=[*PROMPTS, [0] * 59], answers=[*ANSWERS, []], too_long="drop").statistics.num_dropped == 1


def test_a_padded_batch_has_as_many_examples_as_asked_for_or_as_have_its_tokens_together():
    model = OmniModel(language_model=language_model())
    data = ReadyExamples([Example(content=[[0] * 7], answer=[1])] * 20, [str(number) for number in range(20)])
    assert {len(PaddedBatches(data, model, batch_size=3, seed=0).indices(step)) for step in range(6)} == {3}
    # Ten tokens each: prompt, start, answer and end.
    assert {len(PaddedBatches(data, model, max_tokens=52, seed=0).indices(step)) for step in range(4)} == {5}
    with pytest.raises(LabError, match="batches need at least one example"):
        PaddedBatches(ReadyExamples([], []), model, seed=0)


@pytest.fixture
def cell(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    return SpeechParameters(**tiny_parameters(tmp_path))


def test_utterances_train_in_packs_with_the_losses_of_the_padded_path(cell):
    encoder = open_encoder(cell.audio_encoder)
    data = cell_data(cell, encoder, keep=NORMALIZERS["whisper_english"])["train"]
    model = build(cell, encoder, {"train": data})
    batches = PackedBatches(data, model, budget=120, seed=0)
    assert batches.certificate.passed
    seen: list[int] = []
    for step in range(batches.statistics.num_packs):
        chosen = batches.indices(step)
        seen += chosen
        expected = model([data.example(index, model) for index in chosen])
        torch.testing.assert_close(batches.loss(step).loss, expected.loss, rtol=1e-4, atol=1e-4)
    assert sorted(seen) == list(range(len(data)))
    augmented = PackedBatches(replace(data, augmentation=Augmentation(1, 5, 0.1, True)), model, budget=120, seed=0)
    record = train(model, augmented.loss, TrainingOptions(steps=20, learning_rate=3e-3))
    assert np.mean(record.losses[-5:]) < np.mean(record.losses[:5])


def test_utterances_whose_encoder_trains_are_certified_through_it(cell):
    cell = replace(cell, train_encoder=True)
    encoder = open_encoder(cell.audio_encoder)
    data = cell_data(cell, encoder, keep=NORMALIZERS["whisper_english"])["train"]
    model = build(cell, encoder, {"train": data}, train_encoder=True)
    batches = PackedBatches(data, model, budget=120, seed=0)
    assert batches.certificate.passed
    assert "features" not in batches.certificate.idle
    assert batches.loss(0).loss.isfinite().all()
