import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2Config, Qwen2ForCausalLM

from lab.errors import LabError
from lab.parts import omni_model
from lab.parts.audio_projectors import AUDIO_PROJECTORS, build_audio_projector
from lab.parts.joined_sequences import AnswerLoss, PackedAnswers
from lab.parts.language_models import CharacterCodec, LanguageModel, WordCodec
from lab.parts.media_tokens import AudioTokens
from lab.parts.omni_model import Example, OmniModel
from lab.parts.packed_attention import PACKED_ATTENTION, PackedAttention, SampleBoundaries
from lab.parts.visual_projectors import VISUAL_PROJECTORS
from lab.training.packing_certificate import Check, PackingCertificate, certify
from standins.models.character_model import PretrainingOptions, build_character_model
from tests.parts.tiny_models import (
    ARCHITECTURES,
    HIDDEN_SIZE,
    NUM_FEATURES,
    SPREAD,
    chunked,
    heard,
    hearing_model,
    language_model,
)
from tests.parts.tiny_vision import asked, seeing_model, tiny_encoder

CODEC = CharacterCodec(alphabet="abcd")


def character() -> LanguageModel:
    """The project's own network, small."""
    options = PretrainingOptions(hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
    return LanguageModel("character", build_character_model(options, CODEC).eval(), CODEC, "", 4)


def words() -> LanguageModel:
    codec = WordCodec(words=("cat", "moves", "what", "red"))
    return LanguageModel("words", language_model("qwen3").model, codec, "")


def qwen2() -> LanguageModel:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=6,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=SPREAD,
    )
    return LanguageModel("qwen2", Qwen2ForCausalLM(config).eval(), CODEC, "")


LANGUAGE_MODELS = {
    "character": character,
    "words": words,
    "qwen2": qwen2,
    **{name: (lambda name=name: language_model(name)) for name in ARCHITECTURES},
}
TEXTS = [
    Example(content=[[0, 1, 2]], answer=[3, 1]),
    Example(content=[[2, 2, 1, 0]], answer=[0]),
    Example(content=[[]], answer=[1, 2, 3]),
]


def utterances() -> list[Example]:
    """Of which none is a whole number of windows long."""
    return heard([9, 5, 13], [[0, 1], [1], [2, 2, 3]])


def pictures(*, pixels: bool = False) -> list[Example]:
    return [
        asked([0, 1], "visual_projector", [1, 2], frames=1, pixels=pixels),
        asked([0, 1, 3], "video_projector", [1], frames=3, seed=5, pixels=pixels),
        asked([2], "video_projector", [1, 2, 0], frames=1, size=(8, 16), pixels=pixels),
    ]


def reads(part: LanguageModel) -> OmniModel:
    """A model of text alone."""
    return OmniModel(language_model=part)


def assert_bit_equal_where_shapes_are(certificate: PackingCertificate) -> None:
    exact = [check for check in certificate.checks if check.name.startswith(("text changed", "features changed"))]
    assert exact
    assert all(check.tolerance == check.difference == 0 for check in exact)


@pytest.mark.parametrize("attention", PACKED_ATTENTION)
@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_every_language_model_is_certified_with_every_backend(name, attention):
    if why := PACKED_ATTENTION[attention].missing(torch.device("cpu"), torch.float32):
        pytest.skip(f"{attention}: {why}")
    model = reads(LANGUAGE_MODELS[name]())
    certificate = certify(model, TEXTS, attention=attention).require()
    assert (certificate.attention, certificate.precision, certificate.idle) == (attention, "float32", ())
    assert_bit_equal_where_shapes_are(certificate)
    things = {check.name.partition(": ")[2] for check in certificate.checks}
    expected = {"positions", "labels", "embeddings", "logits", "loss", "gradients", "gradients on other samples"}
    assert things == expected


@pytest.mark.gpu
@pytest.mark.parametrize("attention", PACKED_ATTENTION)
def test_every_backend_is_certified_on_a_gpu(attention):
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    if why := PACKED_ATTENTION[attention].missing(torch.device("cuda"), torch.bfloat16):
        pytest.skip(f"{attention}: {why}")
    model = reads(character()).to("cuda")
    certificate = certify(model, TEXTS, attention=attention, precision="bfloat16").require()
    assert certificate.precision == "bfloat16"


def test_a_model_that_only_scores_is_certified_without_gradients():
    model = reads(language_model()).requires_grad_(False)
    with torch.no_grad():
        certificate = certify(model, TEXTS).require()
    assert not any("gradients" in check.name for check in certificate.checks)


@pytest.mark.parametrize("rate", [2, 3])
@pytest.mark.parametrize("name", AUDIO_PROJECTORS)
def test_every_audio_projector_is_certified(name, rate):
    budget = {"parameter_budget": 4000} if name == "conv_gmlp_budget" else {}
    torch.manual_seed(0)
    sizes = {"hidden_size": NUM_FEATURES, "output_size": HIDDEN_SIZE, "downsample_rate": rate}
    projector = build_audio_projector(name, **sizes, **budget)
    model = OmniModel(language_model=language_model(), audio_projector=AudioTokens(projector=projector))
    certificate = certify(model, utterances()).require()
    assert certificate.idle == ()
    assert_bit_equal_where_shapes_are(certificate)


@pytest.mark.parametrize("trained_encoder", [False, True])
@pytest.mark.parametrize("name", VISUAL_PROJECTORS)
def test_every_visual_projector_is_certified(name, trained_encoder):
    # A projector that keeps every patch has another order of tokens than the tiled picture here was given.
    samples = pictures(pixels=trained_encoder)
    if name == "mlp":
        samples = [*samples[:2], replace(samples[0], answer=[3])]
    model = seeing_model(encoder=tiny_encoder() if trained_encoder else None, projector=name)
    certificate = certify(model, samples).require()
    assert certificate.idle == ()
    assert_bit_equal_where_shapes_are(certificate)


# A leak of each kind.


def failures(model: nn.Module, samples: list[Example], **options: Any) -> set[str]:
    certificate = certify(model, samples, **options)
    assert not certificate.passed
    assert certificate.tags()["packing_certificate"] == "failed"
    with pytest.raises(LabError, match="packed samples are not kept apart with attention 'per_sample' in float32"):
        certificate.require()
    return {check.name for check in certificate.failed}


def test_attention_across_samples_is_found(monkeypatch):
    inner = PACKED_ATTENTION["per_sample"]

    def everywhere(query, key, value, boundaries, scale, dropout):
        whole = SampleBoundaries((len(query),), torch.tensor([0, len(query)]))
        return inner.attend(query, key, value, whole, scale, dropout)

    monkeypatch.setitem(PACKED_ATTENTION, "per_sample", PackedAttention(everywhere))
    model = reads(language_model())
    found = failures(model, TEXTS)
    assert {"text changed: logits", "text changed: gradients on other samples", "alone: loss"} <= found
    assert "alone: positions" not in found


def test_positions_that_do_not_start_anew_are_found(monkeypatch):
    inner = omni_model.pack_rows

    def running_on(rows, positions):
        packed = inner(rows, positions)
        return packed._replace(position_ids=torch.arange(packed.embeddings.shape[1])[None])

    monkeypatch.setattr(omni_model, "pack_rows", running_on)
    # Rotary positions are relative: no logit tells, so the positions themselves have to be looked at.
    model = reads(language_model("qwen3", frames_per_token=None))
    found = failures(model, TEXTS)
    assert found == {"alone: positions", "length changed: positions"}
    model = reads(language_model("gpt2", frames_per_token=None))
    assert {"alone: positions", "alone: logits"} <= failures(model, TEXTS)


def test_what_depends_on_the_length_of_a_pack_is_found_in_a_whole_one():
    torch.manual_seed(0)
    # Scaled by the place in the pack, in steps of 24 tokens.
    network = chunked(64, no_rope_layers=[1, 0], floor_scale=24, attn_scale=1.0)
    model = reads(LanguageModel("llama4", network, CODEC, ""))
    pack = [Example(content=[[0, 1, 2, 3] * n], answer=[2, 3]) for n in (4, 1, 1)]
    certificate = certify(model, TEXTS, packs=[TEXTS, pack[1:]]).require()
    assert [c.name for c in certificate.checks[-2:]] == [
        "pack of 16 tokens, 6 the longest sample's: loss",
        "pack of 14 tokens, 7 the longest sample's: loss",
    ]
    assert failures(model, TEXTS, packs=[TEXTS, pack]) == {"pack of 33 tokens, 19 the longest sample's: loss"}


def test_labels_shifted_across_a_boundary_are_found():
    model = reads(language_model())

    def shifted(samples: list[Example], attention: str) -> PackedAnswers:
        """The last token of a sample is scored on the first of the next one, not on the end."""
        answers = model.packed(samples, attention=attention)
        labels = answers.labels.clone()
        lasts = answers.loss.num_tokens.cumsum(0) - 1
        following = [[*s.content[0], *model.codec.start_ids][0] for s in samples[1:]]
        labels[lasts[:-1]] = torch.tensor(following, dtype=torch.long)
        losses = F.cross_entropy(answers.logits, labels, reduction="none").split(answers.loss.num_tokens.tolist())
        loss = AnswerLoss(torch.stack([own.sum() for own in losses]), answers.loss.num_tokens)
        return answers._replace(labels=labels, loss=loss)

    found = failures(model, TEXTS, packed=shifted)
    assert {"alone: labels", "alone: loss", "padded: loss", "mean: loss", "text changed: labels"} <= found


def test_a_convolution_across_a_boundary_is_found(monkeypatch):
    model = hearing_model(train_language_model=True)
    projector = model.audio_projector.projector
    inner = projector.forward

    def over_all(features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Frames of all samples one behind the other, cut into windows wherever they fall."""
        frames = torch.cat([own[:n] for own, n in zip(features, lengths.tolist(), strict=True)])
        counts = projector.output_length(lengths)
        frames = F.pad(frames, (0, 0, 0, int(counts.sum()) * projector.downsample_rate - len(frames)))
        tokens, _ = inner(frames[None], torch.tensor([len(frames)]))
        return nn.utils.rnn.pad_sequence(tokens[0].split(counts.tolist()), batch_first=True), counts

    monkeypatch.setattr(projector, "forward", over_all)
    found = failures(model, utterances())
    assert {"alone: embeddings", "features changed: embeddings", "features changed: loss"} <= found
    assert "text changed: embeddings" not in found


def test_tokens_of_a_modality_in_the_wrong_sample_are_found(monkeypatch):
    model = seeing_model()
    inner = model.read

    def exchanged(examples: list[Example]) -> list[Example]:
        """What is seen of one stands before the question of the next."""
        read = inner(examples)
        return [replace(e, content=[read[i - 1].content[0], e.content[1]]) for i, e in enumerate(read)]

    monkeypatch.setattr(model, "read", exchanged)
    samples = [asked([0, 1], "visual_projector", answer, frames=1) for answer in ([1, 2], [1], [3])]
    samples[1] = asked([0, 1], "visual_projector", [1], frames=1, seed=9)
    found = failures(model, samples)
    assert {"alone: embeddings", "features changed: embeddings", "features changed: logits"} <= found
    assert "alone: positions" not in found


def test_a_loss_that_weighs_samples_alike_is_not_the_mean_of_tokens():
    model = reads(language_model())

    def weighed(samples: list[Example], attention: str) -> PackedAnswers:
        answers = model.packed(samples, attention=attention)
        loss = answers.loss.loss / answers.loss.num_tokens * (2 if len(samples) > 1 else 1)
        return answers._replace(loss=answers.loss._replace(loss=loss))

    assert {"mean: loss", "mean: gradients", "padded: loss"} <= failures(model, TEXTS, packed=weighed)


# The certificate itself.


def test_a_certificate_leaves_the_model_as_it_was():
    model = hearing_model(train_language_model=True).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    certify(model, utterances())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_what_a_run_logs_of_it():
    model = reads(language_model())
    certificate = certify(model, TEXTS)
    assert certificate.tags() == {
        "packing_certificate": "passed",
        "attention": "per_sample",
        "packing_precision": "float32",
    }
    assert len(json.loads(json.dumps(certificate.artifact()))["checks"]) == len(certificate.checks)
    broken = replace(certificate, checks=(Check("alone: logits", math.inf, 0.0), Check("alone: loss", math.nan, 1.0)))
    assert [check["passed"] for check in broken.artifact()["checks"]] == [False, False]
    assert json.dumps(broken.artifact(), allow_nan=False)


def test_in_bfloat16_the_stated_tolerance_is_larger():
    model = reads(character())
    certificate = certify(model, TEXTS, precision="bfloat16").require()
    assert certificate.precision == "bfloat16"
    assert {check.tolerance for check in certificate.checks} == {0.0, 5e-2}


def test_a_change_that_nothing_shows_is_named():
    model = reads(language_model())
    samples = [TEXTS[0], Example(content=[[]]), TEXTS[2]]
    assert certify(model, samples).idle == ("text",)


def test_a_single_sample_certifies_nothing():
    with pytest.raises(LabError, match="a packing certificate needs 3 samples, not 1"):
        certify(reads(language_model()), TEXTS[:1])
