import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from lab.errors import LabError
from lab.parts.joined_sequences import AnswerLoss, PackedSequence, answer_loss, pack_rows, packed_answers, pad_left
from tests.parts.tiny_models import ARCHITECTURES, HIDDEN_SIZE, language_model

WIDTH = {"vocab_size": 6, "hidden_size": HIDDEN_SIZE}
SIZE = {**WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
ANSWERS = [[0, 1, 2], [], [3], [2, 2, 1, 0]]
LENGTHS = [9, 1, 4, 13]
END = 5


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


def test_a_window_is_allowed_where_no_sample_is_longer():
    config = MistralConfig(**SIZE, intermediate_size=24, num_key_value_heads=1, sliding_window=13)
    torch.manual_seed(0)
    model = MistralForCausalLM(config)
    rows, positions = rows_of()
    packed = packed_answer_loss(model, pack_rows(rows, positions), ANSWERS, end_id=END)
    padded = answer_loss(model, pad_left(rows, positions), ANSWERS, end_id=END)
    torch.testing.assert_close(packed.loss, padded.loss)
    model.config.sliding_window = 12
    with pytest.raises(LabError, match="MistralAttention looks back 12 tokens and a sample has 13"):
        packed_answer_loss(model, pack_rows(rows, positions), ANSWERS, end_id=END)


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
