import numpy as np
import pytest
import torch

from lab.errors import LabError
from lab.evaluation.normalizers import NORMALIZERS
from lab.parts.packed_attention import PACKED_ATTENTION, PackedAttention
from lab.parts.packed_attention_kernels import SampleBoundaries
from lab.training.loop import TrainingOptions, train
from lab.training.packed_batches import PackedTexts, PackedUtterances
from lab.training.speech import Augmentation, cell_data, encoded, open_encoder
from tests.parts.tiny_models import language_model
from tests.speech import tiny_parameters
from tests.training.test_speech import CELL, build

RNG = np.random.default_rng(0)
PROMPTS = [RNG.integers(0, 4, n).tolist() for n in RNG.integers(0, 12, 40)]
ANSWERS = [RNG.integers(0, 4, n).tolist() for n in RNG.integers(0, 6, 40)]


def texts(**options) -> PackedTexts:
    given = {"prompts": PROMPTS, "answers": ANSWERS, "budget": 48, "seed": 1, **options}
    return PackedTexts(**{"language_model": language_model(), **given})


def test_texts_train_in_packs_and_the_certificate_comes_first():
    part = language_model()
    batches = texts(language_model=part)
    assert batches.certificate.passed
    assert batches.certificate.attention == "per_sample"
    assert batches.statistics.num_samples == 40
    assert batches.statistics.num_tokens == sum(map(len, PROMPTS)) + 40 + sum(map(len, ANSWERS))
    record = train(part.model, batches.loss, TrainingOptions(steps=30, learning_rate=1e-2, precision="float32"))
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
        texts()


def test_what_cannot_be_packed_is_refused():
    with pytest.raises(LabError, match="40 prompts and 2 answers cannot be packed"):
        texts(answers=[[1], [2]])
    with pytest.raises(LabError, match="sample 'long' has 60 tokens, more than the budget of 48"):
        texts(prompts=[[0] * 59], answers=[[]], ids=["long"])
    assert texts(prompts=[*PROMPTS, [0] * 59], answers=[*ANSWERS, []], too_long="drop").statistics.num_dropped == 1


@pytest.fixture
def cell(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    return {**CELL, **tiny_parameters(tmp_path)}


def test_utterances_train_in_packs_with_the_losses_of_the_padded_path(cell):
    encoder = open_encoder(cell["audio_encoder"])
    data = cell_data(cell, encoder, keep=NORMALIZERS["whisper_english"])["train"]
    model = build(cell, encoder, {"train": data})
    batches = PackedUtterances(data=data, model=model, budget=120, seed=0)
    assert batches.certificate.passed
    seen: list[int] = []
    for step in range(batches.statistics.num_packs):
        chosen = batches._packs.pack(step).tolist()
        seen += chosen
        answers = [model.codec.encode(data.texts[index]) for index in chosen]
        expected = model(*encoded(model, data, chosen), answers)
        torch.testing.assert_close(batches.loss(step).loss, expected.loss, rtol=1e-4, atol=1e-4)
    assert sorted(seen) == list(range(len(data)))
    augmented = PackedUtterances(data=data, model=model, budget=120, seed=0, augmentation=Augmentation(1, 5, 0.1, True))
    record = train(model, augmented.loss, TrainingOptions(steps=20, learning_rate=3e-3))
    assert np.mean(record.losses[-5:]) < np.mean(record.losses[:5])


def test_utterances_whose_encoder_trains_are_certified_through_it(cell):
    cell = {**cell, "train_encoder": True}
    encoder = open_encoder(cell["audio_encoder"])
    data = cell_data(cell, encoder, keep=NORMALIZERS["whisper_english"])["train"]
    model = build(cell, encoder, {"train": data}, train_encoder=True)
    batches = PackedUtterances(data=data, model=model, budget=120, seed=0)
    assert batches.certificate.passed
    assert "features" not in batches.certificate.idle
    assert batches.loss(0).loss.isfinite().all()
