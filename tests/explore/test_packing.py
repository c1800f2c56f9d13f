import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from lab.errors import LabError
from lab.explore.packing import (
    as_one_text,
    attention_mask,
    certificate_panel,
    model_of_characters,
    packing_panel,
)
from lab.parts.omni_model import Example

TEXTS = ["abc", "ba", "cab"]


def samples(model):
    return [Example(content=[model.codec.encode(text)], answer=model.codec.encode(text[::-1])) for text in TEXTS]


def test_a_token_sees_those_before_it_in_its_own_sample_alone():
    expected = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 1]]
    np.testing.assert_array_equal(attention_mask([2, 3]), np.array(expected, dtype=bool))


def test_the_account_and_the_picture_follow_budget_samples_and_pack():
    panel = packing_panel([7, 6, 4, 3, 2], budget=10)
    account, figure = panel.shown
    assert "5 samples (22 tokens) in 3 packs" in account
    assert isinstance(figure, Figure)
    assert figure.axes[1].get_images()[0].get_array().shape == (10, 10, 3)
    panel.controls["budget"].value = 22
    assert "in 1 packs" in panel.shown[0]
    assert panel.shown[1].axes[1].get_images()[0].get_array().shape == (22, 22, 3)
    panel.controls["num_samples"].value = 2
    assert "2 samples (13 tokens)" in panel.shown[0]
    panel.controls["pack"].value = 1
    assert panel.error == "there are 1 packs, counted from 0, and no pack 1; choose a lower one"


def test_nothing_to_pack_is_refused():
    with pytest.raises(LabError, match="there is nothing to pack"):
        packing_panel([])


def test_the_certificate_passes_and_finds_a_pack_that_was_taken_for_one_text():
    model = model_of_characters(TEXTS)
    panel = certificate_panel(model, samples(model))
    assert "certificate passed" in panel.shown[0]
    panel.controls["leak"].value = True
    assert "certificate FAILED" in panel.shown[0]
    assert "leaks" in panel.shown[0]
    panel.controls["leak"].value = False
    panel.controls["attention"].value = "flash_attn"
    assert "attention backend 'flash_attn' cannot run here" in panel.error or torch.cuda.is_available()


def test_one_text_differs_from_packed_samples_behind_the_first_alone():
    model = model_of_characters(TEXTS)
    chosen = samples(model)
    leaky = as_one_text(model, chosen)
    packed = model.packed(chosen)
    assert torch.equal(leaky.labels, packed.labels)
    first = len(chosen[0].answer) + 1
    torch.testing.assert_close(leaky.logits[:first], packed.logits[:first], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(leaky.logits[first:], packed.logits[first:], rtol=1e-2, atol=1e-3)
