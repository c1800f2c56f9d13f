import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    DogeConfig,
    DogeForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    FalconH1Config,
    FalconH1ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    InklingForCausalLM,
    InklingTextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MptConfig,
    MptForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
)

from lab.errors import LabError
from lab.parts.joined_sequences import AnswerLoss, PackedSequence, answer_loss, pack_rows, packed_answers, pad_left
from lab.parts.packed_attention import check_longest
from tests.parts.tiny_models import ARCHITECTURES, HEADS, HIDDEN_SIZE, chunked, language_model, windowed

WIDTH = {"vocab_size": 6, "hidden_size": HIDDEN_SIZE}
SIZE = {**WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
ANSWERS = [[0, 1, 2], [], [3], [2, 2, 1, 0]]
LENGTHS = [9, 1, 4, 13]
END = 5


def long_rope(reach: int) -> PreTrainedModel:
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [8.0] * 4}
    sizes = {"max_position_embeddings": 64, "original_max_position_embeddings": reach, "pad_token_id": 0}
    return Phi3ForCausalLM(Phi3Config(**HEADS, **sizes, rope_parameters=rope))


def dynamic_rope(reach: int) -> PreTrainedModel:
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    return LlamaForCausalLM(LlamaConfig(**HEADS, max_position_embeddings=reach, rope_parameters=rope))


# Models that pack samples up to some length, and how they say it.
REACHING = {
    "MistralForCausalLM looks back {} tokens": windowed,
    "Llama4ForCausalLM attends in chunks of {} tokens": chunked,
    "Phi3ForCausalLM has 'longrope' positions, whose frequencies change with the largest beyond {}": long_rope,
    "LlamaForCausalLM has 'dynamic' positions, whose frequencies change with the largest beyond {}": dynamic_rope,
}


def doge(**options: Any) -> PreTrainedModel:
    model = DogeForCausalLM(DogeConfig(**HEADS, **options))
    for layer in model.model.layers:
        torch.nn.init.constant_(layer.self_attn.A, 1.0)
    return model


def falcon_h1() -> PreTrainedModel:
    mamba = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
    return FalconH1ForCausalLM(FalconH1Config(**HEADS, **mamba))


def inkling() -> PreTrainedModel:
    swa = {"swa_num_attention_heads": 2, "swa_num_key_value_heads": 1, "swa_head_dim": 8}
    return InklingForCausalLM(InklingTextConfig(**HEADS, **swa))


def falcon(**options: Any) -> PreTrainedModel:
    return FalconForCausalLM(FalconConfig(**SIZE, bos_token_id=0, eos_token_id=0, **options))


OUTSIDE = "without transformers' attention interface, so packed samples would leak into each other; do not pack it"
REFUSED = {
    "MptForCausalLM computes its attention by 'eager', which cannot keep packed samples apart": lambda: MptForCausalLM(
        MptConfig(vocab_size=6, d_model=HIDDEN_SIZE, n_layers=2, n_heads=2)
    ),
    f"FalconForCausalLM computes 2 of its 2 layers {OUTSIDE}": falcon,
    "FalconForCausalLM cannot be called on packed samples .ValueError: too many values to unpack": lambda: falcon(
        alibi=True
    ),
    "DogeAttention attends with a mask of its own, which packed attention lacks": doge,
    "DogeAttention attends with a mask of its own, which packed attention lacks; do not pack it": lambda: doge(
        keep_window_size=4
    ),
    "FalconH1ForCausalLM carries something over from one packed sample to the next": falcon_h1,
    "InklingAttention attends with position_bias, which packed attention lacks": inkling,
}


def packed_answer_loss(*given: Any, **options: Any) -> AnswerLoss:
    """The losses alone."""
    return packed_answers(*given, **options).loss


def rows_of(lengths: list[int] = LENGTHS, seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    """Rows of noise, each with positions that jump, as time-aligned ones do."""
    rng = torch.Generator().manual_seed(seed)
    rows = [torch.randn(length, HIDDEN_SIZE, generator=rng) for length in lengths]
    return rows, [torch.arange(length) * 3 % 11 for length in lengths]


def test_layout_of_a_worked_example():
    rows, _ = rows_of([5, 4])
    packed = pack_rows(rows, [torch.arange(5), torch.arange(4)])
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 3]]
    assert packed.boundaries.cu_seqlens.tolist() == [0, 5, 9]
    assert packed.boundaries.cu_seqlens.dtype == torch.int32
    assert (packed.boundaries.max_seqlen, packed.boundaries.lengths) == (5, (5, 4))
    assert torch.equal(packed.embeddings[0, 5:], rows[1])
    assert isinstance(packed, PackedSequence)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_losses_and_gradients_are_those_of_each_sample_alone_in_the_padded_path(architecture):
    model = language_model(architecture).model
    rows, positions = rows_of()
    packed = packed_answer_loss(model, pack_rows(rows, positions), ANSWERS, end_id=END)
    assert packed.num_tokens.tolist() == [4, 1, 2, 5]
    parameters = [p for name, p in model.named_parameters() if "embed" not in name and "wte" not in name]
    for index, (row, own) in enumerate(zip(rows, positions, strict=True)):
        alone = answer_loss(model, pad_left([row], [own]), [ANSWERS[index]], end_id=END)
        torch.testing.assert_close(packed.loss[index], alone.loss[0], rtol=1e-4, atol=1e-5)
        found, expected = (
            torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
            for loss in (packed.loss[index], alone.loss[0])
        )
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_labels_stay_in_their_sample_and_the_head_runs_on_nothing_else():
    model = language_model().model
    answers = packed_answers(model, pack_rows(*rows_of()), ANSWERS, end_id=END)
    assert answers.labels.tolist() == [0, 1, 2, END, END, 3, END, 2, 2, 1, 0, END]
    assert answers.logits.shape == (12, 6)


def test_other_calls_of_the_model_never_meet_packed_attention():
    model = language_model().model
    rows, positions = rows_of()
    before = copy.deepcopy(model.config.to_dict())
    padded = answer_loss(model, pad_left(rows, positions), ANSWERS, end_id=END).loss
    packed_answer_loss(model, pack_rows(rows, positions), ANSWERS, end_id=END)
    assert model.config.to_dict() == before
    assert torch.equal(answer_loss(model, pad_left(rows, positions), ANSWERS, end_id=END).loss, padded)


def test_layers_computed_again_in_the_backward_pass_keep_samples_apart_too():
    model = language_model().model.train()
    rows, positions = rows_of()
    rows = [row.requires_grad_() for row in rows]

    def gradients() -> list[Tensor]:
        loss = packed_answer_loss(model, pack_rows(rows, positions), ANSWERS, end_id=END).loss[2]
        parameters = list(model.model.layers.parameters())
        return list(torch.autograd.grad(loss, [*rows, *parameters], allow_unused=True, materialize_grads=True))

    stored = gradients()
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()
    again = gradients()
    assert all(torch.equal(a, b) for a, b in zip(stored, again, strict=True))
    assert not any(again[index].any() for index in (0, 1, 3))


@pytest.mark.parametrize("kind", ["bloom", "gemma2", "mamba"])
def test_a_model_whose_attention_is_its_own_is_refused(kind):
    if kind == "bloom":
        model = BloomForCausalLM(BloomConfig(**WIDTH, n_layer=2, n_head=2))
    elif kind == "gemma2":  # it caps its scores
        model = Gemma2ForCausalLM(Gemma2Config(**SIZE, intermediate_size=24, num_key_value_heads=1, head_dim=8))
    else:
        model = MambaForCausalLM(MambaConfig(**WIDTH, num_hidden_layers=2, state_size=4))
    with pytest.raises(LabError, match="computes its attention by 'eager', which cannot keep packed samples apart"):
        packed_answer_loss(model, pack_rows(*rows_of()), ANSWERS, end_id=END)


def test_a_layer_outside_the_interface_is_refused(monkeypatch):
    model = language_model().model
    monkeypatch.setattr(model.config, "num_hidden_layers", 3)
    monkeypatch.setattr(model.config, "layer_types", ["full_attention"] * 3)
    with pytest.raises(LabError, match="computes 1 of its 3 layers without transformers' attention interface"):
        packed_answer_loss(model, pack_rows(*rows_of()), ANSWERS, end_id=END)


@pytest.mark.parametrize("message", REFUSED)
def test_a_model_that_packs_wrongly_is_refused_with_one_sentence(message):
    torch.manual_seed(0)
    model = REFUSED[message]().eval()
    own = model.config._attn_implementation
    for _ in range(2):
        with pytest.raises(LabError, match=message) as refused:
            packed_answer_loss(model, pack_rows(*rows_of()), ANSWERS, end_id=END)
    assert "\n" not in str(refused.value)
    assert model.config._attn_implementation == own


@pytest.mark.parametrize("message", REACHING)
def test_samples_are_packed_that_a_model_reaches_over_and_no_longer_ones(message):
    torch.manual_seed(0)
    model = REACHING[message](13).eval()
    rows, _ = rows_of()
    positions = [torch.arange(length) for length in LENGTHS]
    packed = packed_answer_loss(model, pack_rows(rows, positions), ANSWERS, end_id=END).loss
    alone = [
        answer_loss(model, pad_left([row], [own]), [answer], end_id=END).loss[0]
        for row, own, answer in zip(rows, positions, ANSWERS, strict=True)
    ]
    torch.testing.assert_close(packed, torch.stack(alone))
    check_longest(model, 13)
    model = REACHING[message](12).eval()
    with pytest.raises(LabError, match=f"sample 's1' has 13 tokens, and {message.format(12)}.*; do not pack it"):
        check_longest(model, 13, "sample 's1'")
    with pytest.raises(LabError, match=f"a sample has 13 tokens, and {message.format(12)}"):
        packed_answer_loss(model, pack_rows(rows, positions), ANSWERS, end_id=END)


@pytest.mark.parametrize("build", [long_rope, dynamic_rope])
def test_positions_that_jump_count_as_far_as_they_reach(build):
    model, rows = build(13), rows_of([4, 5])[0]
    positions = [torch.arange(4), torch.arange(5) * 4]
    with pytest.raises(LabError, match=r"a sample has 17 positions, and .* beyond 13"):
        packed_answer_loss(model, pack_rows(rows, positions), [[0], [1]], end_id=END)


def test_a_window_that_the_configuration_does_not_tell_is_met_at_the_step():
    model = windowed(13)
    for layer in model.model.layers:
        layer.self_attn.config = copy.deepcopy(model.config)
        layer.self_attn.config._attn_implementation = "omni_lab"
        layer.self_attn.config.sliding_window = 12
    with pytest.raises(LabError, match="MistralAttention looks back 12 tokens and a sample has 13"):
        packed_answer_loss(model, pack_rows(*rows_of()), ANSWERS, end_id=END)


def test_attention_to_what_comes_later_is_refused():
    model = language_model().model
    model.model.layers[1].self_attn.is_causal = False
    with pytest.raises(LabError, match="Qwen3Attention is not causal"):
        packed_answer_loss(model, pack_rows(*rows_of()), ANSWERS, end_id=END)


def test_under_autocast_attention_is_computed_in_its_precision():
    model = language_model().model
    rows, positions = rows_of()
    with torch.autocast("cpu", torch.bfloat16):
        low = packed_answer_loss(model, pack_rows(rows, positions), ANSWERS, end_id=END).loss
    high = packed_answer_loss(model, pack_rows(rows, positions), ANSWERS, end_id=END).loss
    assert not torch.equal(low, high)
    torch.testing.assert_close(low, high, rtol=5e-2, atol=5e-2)


def test_a_backend_that_cannot_run_here_is_refused():
    with pytest.raises(LabError, match="attention backend 'torch_varlen' cannot run here: it has no kernel for cpu"):
        packed_answers(language_model().model, pack_rows(*rows_of()), ANSWERS, end_id=END, attention="torch_varlen")
