import copy

import pytest
import torch
from transformers import masking_utils

from lab.errors import LabError
from lab.parts.audio_projectors import build_audio_projector
from lab.parts.media_tokens import AudioTokens, Sound
from lab.parts.omni_model import Example, OmniModel
from lab.training.cell import cell_stages
from lab.training.parameters import SpeechParameters
from lab.training.stages import apply_stage
from tests.parts.tiny_models import (
    ARCHITECTURES,
    HIDDEN_SIZE,
    NUM_FEATURES,
    heard,
    hearing_model,
    language_model,
)

POSITIONS = ("sequential", "time_aligned")
LENGTHS = [9, 4, 13, 2]
ANSWERS = [[0, 1, 2, 3], [], [3], [1, 1, 0, 2, 0, 3]]


def reference_loss(model: OmniModel, example: Example) -> torch.Tensor:
    """One utterance without padding or mask tricks: every layer's mask is spelt out, and labels are shifted by hand."""
    language, part = model.language_model, model.audio_projector
    prompt_ids, sound = example.content
    standardised = (sound.values - part.feature_mean) / part.feature_std
    audio = part.projector(standardised[None], torch.tensor([len(standardised)]))[0][0]
    embed = language.get_input_embeddings()
    start, end = model.codec.start_ids, model.codec.end_id
    prompt = embed(torch.tensor(prompt_ids, dtype=torch.long))
    sequence = torch.cat([prompt, audio, embed(torch.tensor([*start, *example.answer]))])[None]
    rate, first = part.projector.downsample_rate, len(prompt_ids)
    if model.positions == "sequential":
        places = list(range(sequence.shape[1]))
    else:
        windows = [first + i * rate + rate // 2 for i in range(len(audio))]
        text = [first + i * model.frames_per_token for i in range(len(example.answer) + 1)]
        places = [*range(first), *windows, *text]
    causal = torch.ones(sequence.shape[1], sequence.shape[1]).tril().bool()[None, None]
    additive = torch.zeros(causal.shape).masked_fill(~causal, torch.finfo(torch.float32).min)
    logits = language(
        inputs_embeds=sequence, position_ids=torch.tensor([places]), attention_mask=additive, use_cache=False
    ).logits[0]
    total = torch.zeros(())
    for i, target in enumerate([*example.answer, end]):
        column = first + len(audio) + i
        total = total - logits[column].log_softmax(-1)[target]
    return total


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_loss_of_each_sample_in_a_batch_is_its_loss_alone_and_that_of_a_slow_reference(architecture, positions):
    model = hearing_model(architecture, positions)
    examples = heard(LENGTHS, ANSWERS)
    together = model(examples)
    assert together.num_tokens.tolist() == [5, 1, 2, 7]
    for row, example in enumerate(examples):
        torch.testing.assert_close(together.loss[row], model([example]).loss[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(together.loss[row], reference_loss(model, example), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("positions", POSITIONS)
def test_gradient_of_a_batch_is_the_sum_of_the_gradients_of_its_samples(positions):
    model = hearing_model(positions=positions)
    examples = heard(LENGTHS, ANSWERS)
    parameters = list(model.audio_projector.parameters())
    together = torch.autograd.grad(model(examples).loss.sum(), parameters)
    alone = [torch.zeros_like(parameter) for parameter in parameters]
    for example in examples:
        gradients = torch.autograd.grad(reference_loss(model, example), parameters)
        alone = [a + g for a, g in zip(alone, gradients, strict=True)]
    for batch, samples in zip(together, alone, strict=True):
        torch.testing.assert_close(batch, samples, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_utterances_have_the_losses_and_gradients_of_the_padded_batch(architecture, positions):
    model, examples = hearing_model(architecture, positions), heard(LENGTHS, ANSWERS)
    padded, packed = model(examples), model.packed(examples).loss
    torch.testing.assert_close(packed.loss, padded.loss, rtol=1e-4, atol=1e-5)
    assert packed.num_tokens.tolist() == padded.num_tokens.tolist()
    parameters = list(model.audio_projector.parameters())
    for a, b in zip(*(torch.autograd.grad(x.loss.sum(), parameters) for x in (packed, padded)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_positions_and_layout_of_a_worked_example():
    model = hearing_model(positions="time_aligned", rate=4)
    model.frames_per_token = 4
    joined = model.embed(heard([12, 5], [[0, 1, 2, 3], [1]], prompt=()))
    assert joined.position_ids.tolist() == [[2, 6, 10, 0, 4, 8, 12, 16], [0, 0, 0, 0, 2, 6, 0, 4]]
    assert joined.attention_mask.tolist() == [[1] * 8, [0] * 4 + [1] * 4]
    embed = model.language_model.get_input_embeddings().weight
    torch.testing.assert_close(joined.embeddings[1, -2:], embed[[model.codec.start_ids[0], 1]])
    assert not joined.embeddings[1, :4].any()


def test_prompt_stands_before_the_audio_and_moves_it():
    model = hearing_model(positions="time_aligned", rate=2)
    joined = model.embed(heard([4], [[0]], prompt=(2, 1)))
    assert joined.position_ids.tolist() == [[0, 1, 3, 5, 2, 5]]
    embed = model.language_model.get_input_embeddings().weight
    torch.testing.assert_close(joined.embeddings[0, :2], embed[[2, 1]])


def test_what_comes_after_a_sound_begins_at_its_end_and_the_answer_where_the_last_sound_does():
    model = hearing_model(positions="time_aligned", rate=2)
    (first,), (second,) = (list(heard([n], prompt=())[0].content) for n in (4, 3))
    example = Example(content=[[0], first, [1, 2], second], answer=[3])
    assert model.embed([example]).position_ids.tolist() == [[0, 2, 4, 5, 6, 8, 10, 7, 10]]


@pytest.mark.parametrize("num_frames", [2, 3, 8])
@pytest.mark.parametrize("answer", [[], [0, 1, 2, 0]])
def test_num_tokens_is_the_length_of_the_joined_sequence_and_the_end(num_frames, answer):
    model = hearing_model()
    (example,) = heard([num_frames], [answer])
    length = model.embed([example]).embeddings.shape[1] + 1
    assert model.num_tokens(example) == length
    shape = Sound(torch.empty(num_frames, 0, device="meta"))
    assert model.num_tokens(Example(content=[[1, 0], shape], answer=answer)) == length


@pytest.mark.parametrize(("positions", "step"), [("sequential", 1), ("time_aligned", 3)])
def test_next_positions_go_on_as_in_a_longer_answer(positions, step):
    model = hearing_model(positions=positions)
    shorter = model.embed(heard([7, 3], [[0], [0]])).position_ids[:, -1]
    longer = model.embed(heard([7, 3], [[0, 1], [0, 1]])).position_ids[:, -1]
    assert model.next_positions(shorter).tolist() == longer.tolist() == (shorter + step).tolist()


@pytest.mark.parametrize("lengths", [[6], [6, 6], [9, 4]])
def test_positions_that_jump_are_never_taken_for_packed_samples(monkeypatch, lengths):
    def refuse(position_ids):
        raise AssertionError("transformers looked for packed samples")

    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", refuse)
    model = hearing_model(positions="time_aligned")
    examples = heard(lengths, [[0, 1]] * len(lengths))
    assert model(examples).loss.isfinite().all()
    # What it is guarded against: the same call without a mask.
    joined = model.embed(examples)
    with pytest.raises(AssertionError, match="looked for packed"):
        model.language_model(inputs_embeds=joined.embeddings, position_ids=joined.position_ids, use_cache=False)


def test_features_are_standardised_per_channel():
    model = hearing_model()
    plain = copy.deepcopy(model)
    plain.audio_projector.feature_mean.zero_()
    plain.audio_projector.feature_std.fill_(1.0)
    examples, part = heard([8, 8], [[0, 1], [2]]), model.audio_projector
    moved = [
        Example(
            content=[e.content[0], Sound((e.content[1].values - part.feature_mean) / part.feature_std)],
            answer=e.answer,
        )
        for e in examples
    ]
    torch.testing.assert_close(model(examples).loss, plain(moved).loss)


def steps(model: OmniModel) -> dict[str, torch.Tensor]:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(heard(LENGTHS, ANSWERS)).loss.sum().backward()
        optimizer.step()
    return before


def test_frozen_language_model_is_bit_equal_after_training_and_every_projector_weight_has_moved():
    model = hearing_model(train_language_model=True)
    (group,) = apply_stage(model.parts(), cell_stages(SpeechParameters(steps=3))[0])
    assert {id(p) for p in group["params"]} == {id(p) for p in model.audio_projector.parameters()}
    before = steps(model)
    for name, value in model.state_dict().items():
        moves = name.startswith("audio_projector.projector.")
        assert torch.equal(value, before[name]) != moves, name
    assert all(parameter.grad is None for parameter in model.language_model.parameters())
    assert not model.language_model.training
    assert model.audio_projector.training


def test_language_model_of_another_precision_takes_the_projectors_tokens():
    model = hearing_model()
    model.language_model.to(torch.bfloat16)
    loss = model(heard([8, 5], [[0, 1], [2]])).loss
    assert loss.dtype == torch.float32
    loss.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.audio_projector.parameters())


def build(**options: object) -> OmniModel:
    frames_per_token = options.pop("frames_per_token", None)
    width = options.pop("width", HIDDEN_SIZE)
    projector = build_audio_projector("mean_pool_mlp", hidden_size=NUM_FEATURES, output_size=width, downsample_rate=2)
    part = language_model(frames_per_token=frames_per_token)  # type: ignore[arg-type]
    return OmniModel(audio_projector=AudioTokens(projector=projector), language_model=part, **options)  # type: ignore[arg-type]


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
