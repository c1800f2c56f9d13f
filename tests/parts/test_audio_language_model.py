import copy

import pytest
import torch
from transformers import masking_utils

from lab.errors import LabError
from lab.parts.audio_language_model import AudioLanguageModel
from lab.parts.audio_projectors import build_audio_projector
from tests.parts.tiny_models import (
    ARCHITECTURES,
    HIDDEN_SIZE,
    NUM_FEATURES,
    audio_batch,
    joined_model,
    language_model,
)

POSITIONS = ("sequential", "time_aligned")
LENGTHS = [9, 4, 13, 2]
ANSWERS = ["abcd", "", "d", "bbacad"]


def encoded(model: AudioLanguageModel, answers: list[str] = ANSWERS) -> list[list[int]]:
    return [model.codec.encode(answer) for answer in answers]


def reference_loss(model: AudioLanguageModel, features: torch.Tensor, answer: list[int]) -> torch.Tensor:
    """One utterance without padding or mask tricks: every layer's mask is spelt out, and labels are shifted by hand."""
    language = model.language_model
    standardised = (features - model.feature_mean) / model.feature_std
    audio = model.projector(standardised[None], torch.tensor([len(features)]))[0][0]
    embed = language.get_input_embeddings()
    start, end = model.codec.start_ids, model.codec.end_id
    prompt = embed(torch.tensor(model.prompt_ids, dtype=torch.long))
    sequence = torch.cat([prompt, audio, embed(torch.tensor([*start, *answer]))])[None]
    rate, first = model.projector.downsample_rate, len(model.prompt_ids)
    if model.positions == "sequential":
        places = list(range(sequence.shape[1]))
    else:
        windows = [first + i * rate + rate // 2 for i in range(len(audio))]
        text = [first + i * model.frames_per_token for i in range(len(answer) + 1)]
        places = [*range(first), *windows, *text]
    causal = torch.ones(sequence.shape[1], sequence.shape[1]).tril().bool()[None, None]
    additive = torch.zeros(causal.shape).masked_fill(~causal, torch.finfo(torch.float32).min)
    logits = language(
        inputs_embeds=sequence, position_ids=torch.tensor([places]), attention_mask=additive, use_cache=False
    ).logits[0]
    total = torch.zeros(())
    for i, target in enumerate([*answer, end]):
        column = first + len(audio) + i
        total = total - logits[column].log_softmax(-1)[target]
    return total


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_loss_of_each_sample_in_a_batch_is_its_loss_alone_and_that_of_a_slow_reference(architecture, positions):
    model = joined_model(architecture, positions)
    features, lengths = audio_batch(LENGTHS)
    answers = encoded(model)
    together = model(features, lengths, answers)
    assert together.num_tokens.tolist() == [5, 1, 2, 7]
    for row, length in enumerate(LENGTHS):
        alone = model(features[row : row + 1, :length], lengths[row : row + 1], answers[row : row + 1])
        reference = reference_loss(model, features[row, :length], answers[row])
        torch.testing.assert_close(together.loss[row], alone.loss[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(together.loss[row], reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("positions", POSITIONS)
def test_gradient_of_a_batch_is_the_sum_of_the_gradients_of_its_samples(positions):
    model = joined_model(positions=positions)
    features, lengths = audio_batch(LENGTHS)
    answers = encoded(model)
    parameters = list(model.projector.parameters())
    together = torch.autograd.grad(model(features, lengths, answers).loss.sum(), parameters)
    alone = [torch.zeros_like(parameter) for parameter in parameters]
    for row, length in enumerate(LENGTHS):
        loss = reference_loss(model, features[row, :length], answers[row])
        alone = [a + g for a, g in zip(alone, torch.autograd.grad(loss, parameters), strict=True)]
    for batch, samples in zip(together, alone, strict=True):
        torch.testing.assert_close(batch, samples, rtol=1e-3, atol=1e-4)


def test_positions_and_layout_of_a_worked_example():
    model = joined_model(positions="time_aligned", prompt="", rate=4)
    model.frames_per_token = 4
    features, lengths = audio_batch([12, 5])
    joined = model.join(features, lengths, [[0, 1, 2, 3], [1]])
    assert joined.position_ids.tolist() == [[2, 6, 10, 0, 4, 8, 12, 16], [0, 0, 0, 0, 2, 6, 0, 4]]
    assert joined.attention_mask.tolist() == [[1] * 8, [0] * 4 + [1] * 4]
    embed = model.language_model.get_input_embeddings().weight
    torch.testing.assert_close(joined.embeddings[1, -2:], embed[[model.codec.start_ids[0], 1]])
    assert not joined.embeddings[1, :4].any()


def test_prompt_stands_before_the_audio_and_moves_it():
    model = joined_model(positions="time_aligned", prompt="cb", rate=2)
    features, lengths = audio_batch([4])
    joined = model.join(features, lengths, [[0]])
    assert joined.position_ids.tolist() == [[0, 1, 3, 5, 2, 5]]
    embed = model.language_model.get_input_embeddings().weight
    torch.testing.assert_close(joined.embeddings[0, :2], embed[[2, 1]])


@pytest.mark.parametrize("num_frames", [2, 3, 8])
@pytest.mark.parametrize("answer", ["", "abca"])
def test_num_tokens_is_the_length_of_the_joined_sequence_and_the_end(num_frames, answer):
    model = joined_model()
    features, lengths = audio_batch([num_frames])
    joined = model.join(features, lengths, [model.codec.encode(answer)])
    assert model.num_tokens(num_frames, answer) == joined.embeddings.shape[1] + 1


@pytest.mark.parametrize(("positions", "step"), [("sequential", 1), ("time_aligned", 3)])
def test_next_positions_go_on_as_in_a_longer_answer(positions, step):
    model = joined_model(positions=positions)
    features, lengths = audio_batch([7, 3])
    shorter = model.join(features, lengths, [[0], [0]]).position_ids[:, -1]
    longer = model.join(features, lengths, [[0, 1], [0, 1]]).position_ids[:, -1]
    assert model.next_positions(shorter).tolist() == longer.tolist() == (shorter + step).tolist()


@pytest.mark.parametrize("lengths", [[6], [6, 6], [9, 4]])
def test_positions_that_jump_are_never_taken_for_packed_samples(monkeypatch, lengths):
    def refuse(position_ids):
        raise AssertionError("transformers looked for packed samples")

    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", refuse)
    model = joined_model(positions="time_aligned")
    features, frames = audio_batch(lengths)
    assert model(features, frames, [[0, 1]] * len(lengths)).loss.isfinite().all()
    # What it is guarded against: the same call without a mask.
    joined = model.join(features, frames, [[0, 1]] * len(lengths))
    with pytest.raises(AssertionError, match="looked for packed"):
        model.language_model(inputs_embeds=joined.embeddings, position_ids=joined.position_ids, use_cache=False)


def test_features_are_standardised_per_channel():
    model = joined_model()
    plain = copy.deepcopy(model)
    plain.feature_mean.zero_()
    plain.feature_std.fill_(1.0)
    features, lengths = audio_batch([8, 8])
    answers = encoded(model, ["ab", "c"])
    expected = plain((features - model.feature_mean) / model.feature_std, lengths, answers).loss
    torch.testing.assert_close(model(features, lengths, answers).loss, expected)


def steps(model: AudioLanguageModel) -> dict[str, torch.Tensor]:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    features, lengths = audio_batch(LENGTHS)
    for _ in range(3):
        optimizer.zero_grad()
        model(features, lengths, encoded(model)).loss.sum().backward()
        optimizer.step()
    return before


def test_frozen_language_model_is_bit_equal_after_training_and_every_projector_weight_has_moved():
    model = joined_model()
    before = steps(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("projector."), name
    assert all(parameter.grad is None for parameter in model.language_model.parameters())
    assert not model.language_model.training
    assert model.projector.training


def test_language_model_trains_where_asked():
    model = joined_model(train_language_model=True)
    before = steps(model)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name for name, _ in model.named_parameters()} == moved
    assert model.language_model.training
    assert not model.eval().language_model.training


def test_language_model_of_another_precision_takes_the_projectors_tokens():
    model = joined_model()
    model.language_model.to(torch.bfloat16)
    features, lengths = audio_batch([8, 5])
    loss = model(features, lengths, [[0, 1], [2]]).loss
    assert loss.dtype == torch.float32
    loss.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.projector.parameters())


def build(**options: object) -> AudioLanguageModel:
    frames_per_token = options.pop("frames_per_token", None)
    width = options.pop("width", HIDDEN_SIZE)
    projector = build_audio_projector("mean_pool_mlp", hidden_size=NUM_FEATURES, output_size=width, downsample_rate=2)
    part = language_model(frames_per_token=frames_per_token)  # type: ignore[arg-type]
    return AudioLanguageModel(projector=projector, language_model=part, **options)  # type: ignore[arg-type]


def test_positions_follow_the_language_model_unless_told_otherwise():
    assert build().positions == "sequential"
    assert build(frames_per_token=4).positions == "time_aligned"
    assert build(frames_per_token=4, positions="sequential").positions == "sequential"


def test_unknown_position_scheme_is_refused_with_the_choices():
    with pytest.raises(LabError, match=r"unknown position scheme 'timealigned'.*choose one of: sequential, time_"):
        build(positions="timealigned")


def test_time_aligned_positions_need_a_language_model_that_knows_its_frames():
    with pytest.raises(LabError, match="'tiny qwen3' was not: choose positions 'sequential'"):
        build(positions="time_aligned")


def test_projector_of_another_width_is_refused():
    with pytest.raises(LabError, match="gives tokens 12 wide; language model 'tiny qwen3' takes 16"):
        build(width=12)
