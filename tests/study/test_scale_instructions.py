"""The scale of packed fine-tuning on text."""

import pytest

from lab.errors import LabError
from lab.study.ablation import load_ablation
from lab.study.scale import scale, table
from lab.training.parameters import TextTuningParameters
from lab.training.tuning import scored_tokens


@pytest.fixture(autouse=True)
def nothing_is_fetched(monkeypatch):
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("something was fetched or pretrained")

    monkeypatch.setattr("huggingface_hub.file_download.hf_hub_download", refuse)
    monkeypatch.setattr("transformers.modeling_utils.PreTrainedModel.from_pretrained", refuse)


@pytest.mark.slow
def test_the_papers_rung_is_a_7b_model_and_packs_of_65536_tokens():
    found = scale(load_ablation("loss_filter"), "paper", "main")
    memory = found.rows["gaussian_1"].memory
    assert memory.parts[0].trained_parameters == 7_615_616_512
    assert (memory.batch_size, memory.tokens) == (16, 4096 + 1)
    assert len({row.dearest for row in found.rows.values()}) == 1
    fewer = scale(load_ablation("loss_filter"), "paper", ["none"], answer_tokens=20_000).rows["none"].memory
    # The logits in bfloat16, their logarithms of probabilities in float32, and the gradient of the second.
    assert memory.total - fewer.total == pytest.approx((2 + 4 + 4) * 45_536 * 152_064, rel=0.05)
    written = table(found)
    assert "a pack of samples as long as they may be, of which all tokens are of answers" in written
    assert "language_model (M)" in written
    assert "Scoring before it: Qwen/Qwen2.5-7B (7,615.6 M parameters, 30.46 GB" in written
    # At the loss: logits of 4,096 answers in 2 bytes and in 4, log-probabilities in 4; embeddings in float32.
    assert 4096 * (10 * 152_064 + 4 * 3584) == 6_287_261_696
    assert "GB of weights), forward only, at most 6.29 GB besides, in packs of 4,096 tokens." in written
    assert "By stage of the paper" not in written


def test_a_pack_is_filled_with_samples_as_long_as_they_may_be():
    memory = scale(load_ablation("loss_filter"), "cpu", ["none"]).rows["none"].memory
    assert (memory.batch_size, memory.tokens) == (3, 160 + 1)  # 160, 160 and 80


@pytest.mark.parametrize("rung", ["cpu", "gpu", "smoke"])
def test_other_rungs_are_counted_too(rung):
    assert 0 < scale(load_ablation("loss_filter"), rung, ["none"]).rows["none"].memory.total < 80e9


def test_a_scorer_of_unknown_size_is_said_and_hinders_no_row():
    note = scale(load_ablation("loss_filter"), "cpu", ["none"]).scoring
    assert note.startswith("Scoring before it cannot be counted: unknown configuration")
    assert "'smollm2_135m'" in note


@pytest.mark.parametrize(("max_tokens", "tokens"), [(160, 1024), (1024, 1024), (4096, 4096)])
def test_no_instruction_that_may_be_trained_on_is_too_long_to_be_scored(max_tokens, tokens):
    assert scored_tokens(TextTuningParameters(max_tokens=max_tokens)) == tokens


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"answer_tokens": 70_000}, "answer_tokens is 70000; expected 1 to the pack's 65536"),
        ({"answer_tokens": 0}, "answer_tokens is 0"),
        ({"seconds": 3.0}, "seconds is 3, but a study of packed instructions has none"),
        ({"batch_size": 2}, "batch_size is 2, but a study of packed instructions has none"),
    ],
)
def test_what_no_pack_has_is_refused(asked, message):
    with pytest.raises(LabError, match=message):
        scale(load_ablation("loss_filter"), "paper", ["none"], **asked)
