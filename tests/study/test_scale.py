from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config

from lab.errors import LabError
from lab.study.ablation import Ablation, load_ablation
from lab.study.scale import scale, table


@pytest.fixture(scope="module")
def study() -> Ablation:
    return load_ablation("conv_gmlp_rate")


@pytest.mark.slow
def test_paper_rung_has_the_papers_encoder_and_projectors(study):
    found = scale(study, "paper", ["conv_gmlp_2", "conv_gmlp_8"])
    for rate, row in ((2, "conv_gmlp_2"), (8, "conv_gmlp_8")):
        memory = found.rows[row].memory
        encoder, projector, language_model = memory.parts
        width = 1280 * rate
        # 3 (n d)^2 + 2 n d and the layer to the language model's width, with bias.
        assert projector.trained_parameters == 3 * width**2 + 2 * width + (width + 1) * 3584
        assert encoder.trained_parameters == encoder.parameters - 1500 * 1280
        assert (language_model.parameters, language_model.trained_parameters) == (7_615_616_512, 0)
        # Prompt "Transcribe the speech." as 6, audio, start, answer, end.
        assert (memory.tokens, memory.batch_size) == (6 + -(-1500 // rate) + 1 + 128 + 1, 64)
    assert found.dearest == "conv_gmlp_2"


@pytest.mark.slow
def test_operations_of_a_step_are_those_of_its_matrices(study):
    memory = scale(study, "paper", ["conv_gmlp_8"]).rows["conv_gmlp_8"].memory
    encoder, projector, language_model = memory.parts
    # Two a multiply-add: a frozen part's matrices pass twice (forward, and the gradient through them), a trained one's
    # three times; the head on the answers alone, the embeddings never.
    head = 152_064 * 3584
    positions = 64 * (memory.tokens - 1)
    decoder = 4 * (language_model.parameters - 2 * head) * positions + 4 * head * 64 * 129
    by_hand = decoder + 6 * encoder.parameters * 64 * 1500 + 6 * projector.parameters * 64 * 188
    attention = 3.5 * 4 * 64 * (32 * 1280 * 1500**2 + 28 * 3584 * (memory.tokens - 1) ** 2)
    assert memory.flops == pytest.approx(by_hand + attention, rel=0.02)


@pytest.mark.slow
def test_stages_are_those_of_the_paper_that_hold_all_parts(study):
    found = scale(study, "gpu", ["conv_gmlp_2"])
    trained = {
        name: [bool(part.trained_parameters) for part in need.memory.parts] for name, need in found.stages.items()
    }
    assert trained == {"audio": [True, True, False], "omni_alignment": [True] * 3, "sft": [True] * 3}
    # The rung is the paper's audio stage.
    assert found.stages["audio"].dearest == found.rows["conv_gmlp_2"].dearest
    assert found.stages["sft"].memory.kept > 16 * 0.49e9


def test_nothing_is_given_memory_or_fetched(study, monkeypatch):
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("something was fetched")

    monkeypatch.setattr("huggingface_hub.file_download.hf_hub_download", refuse)
    monkeypatch.setattr("transformers.modeling_utils.PreTrainedModel.from_pretrained", refuse)
    before = torch.get_default_dtype()
    row = scale(study, "gpu", ["conv_gmlp_8"], precision="bfloat16_weights").rows["conv_gmlp_8"]
    assert row.memory.total > 10e9
    assert torch.get_default_dtype() == before


@pytest.mark.parametrize("rung", ["cpu", "espeak", "gpu", "smoke"])
def test_other_rungs_are_counted_too(study, rung):
    found = scale(study, rung, ["conv_gmlp_4", "q_former_8"])
    assert len(found.rows) == 2
    assert all(0 < row.memory.total < 80e9 for row in found.rows.values())


@pytest.mark.slow
def test_a_row_that_does_not_fit_the_rung_is_told_apart(study):
    # Its budget is that of the cpu rung's widths.
    found = scale(study, "gpu", ["conv_gmlp_4", "conv_gmlp_budget_8"])
    assert list(found.rows) == ["conv_gmlp_4"]
    assert "conv_gmlp_budget_8 does not fit this rung: parameter_budget 1918656 is too small" in table(found)
    with pytest.raises(LabError, match="row 'conv_gmlp_budget_8' of 'conv_gmlp_rate' does not fit rung 'gpu'"):
        scale(study, "gpu", ["conv_gmlp_budget_8"])


def test_a_frozen_encoder_is_outside_the_loop_of_a_rung(study):
    encoder = scale(study, "cpu", ["conv_gmlp_4"]).rows["conv_gmlp_4"].memory.parts[0]
    assert (encoder.trained_parameters, encoder.weights, encoder.activations) == (0, 0, 0)


def test_smaller_batches_and_shorter_utterances_take_less(study):
    whole = scale(study, "gpu", ["conv_gmlp_4"]).rows["conv_gmlp_4"].memory
    small = scale(study, "gpu", ["conv_gmlp_4"], batch_size=2, seconds=10, answer_tokens=40).rows["conv_gmlp_4"].memory
    assert small.kept == whole.kept
    assert small.total < whole.total / 3
    assert small.flops < whole.flops / 8
    assert small.tokens == 6 + 125 + 1 + 40 + 1


@pytest.mark.parametrize(
    ("window", "seconds", "frames"), [("cropped", 10, 525), ("cropped", 30, 1500), ("padded", 10, 1500)]
)
def test_an_encoder_inside_computes_its_window(study, window, seconds, frames):
    inside = changed(study, train_encoder=True, encoder_window=window)
    short, whole = (
        scale(inside, "cpu", ["conv_gmlp_4"], seconds=s).rows["conv_gmlp_4"].memory.parts[0].activations
        for s in (seconds, 30)
    )
    assert short / whole == pytest.approx(frames / 1500, rel=0.05)


def test_packed_utterances_are_as_many_as_fill_a_pack(study):
    packed = scale(changed(study, pack_tokens=2000), "cpu", ["conv_gmlp_2"]).rows["conv_gmlp_2"].memory
    assert packed.batch_size == round(2000 / packed.tokens) == 2


@pytest.mark.slow
def test_table_shows_rows_parts_and_stages(study):
    found = scale(study, "paper", ["conv_gmlp_2", "mean_pool_mlp_8"])
    text = table(found)
    for line in ("By row", "By part, conv_gmlp_2, GB", "By stage of the paper", "a step: utterances of 30 s"):
        assert line in text
    cells = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert cells["conv_gmlp_2"][:6] == ["886", "64", "asr_audio_text", "635.0", "28.8", "0.0"]
    # 4 bytes a weight; 4 a gradient and 8 for the moments of the 635.0M that train.
    assert cells["audio_encoder"][:5] == ["637.0", "635.0", "2.55", "2.54", "5.08"]
    assert cells["language_model"][:5] == ["7,615.6", "0.0", "30.46", "0.00", "0.00"]
    assert max(map(len, text.splitlines())) < 160
    row = found.rows["conv_gmlp_2"]
    assert row.dearest.checkpointed.total < row.memory.total / 3


def changed(study: Ablation, **base: object) -> Ablation:
    return replace(study, base=replace(study.base, **base))


def test_local_folder_is_counted(study, tmp_path):
    Qwen2Config(hidden_size=24, num_attention_heads=2, num_key_value_heads=2).save_pretrained(tmp_path)
    found = scale(changed(study, language_model=str(tmp_path)), "cpu", ["conv_gmlp_2"])
    assert found.rows["conv_gmlp_2"].memory.parts[1].parameters == 3 * 768**2 + 2 * 768 + 769 * 24


@pytest.mark.parametrize(
    ("base", "options", "message"),
    [
        ({}, {"seconds": 31}, "seconds is 31; expected above 0 and at most the encoder's 30"),
        ({}, {"precision": "fp8"}, "unknown precision 'fp8'; choose one of: bfloat16, bfloat16_weights, float32"),
        ({}, {"rows": ["conv"]}, "unknown row of 'conv_gmlp_rate'"),
        ({}, {"answer_tokens": 5000}, r"a sample of asr_audio_text takes 5752 tokens, more than the 4096 of a batch"),
        ({"language_model": "Qwen/Qwen9-7B"}, {}, r"unknown configuration \(a known hub name.*'Qwen/Qwen9-7B'"),
        ({"audio_encoder": "Qwen/Qwen2.5-7B"}, {}, "'Qwen/Qwen2.5-7B' is a qwen2 model; expected Whisper"),
    ],
)
def test_what_cannot_be_counted_is_one_clear_sentence(study, base, options, message):
    with pytest.raises(LabError, match=message):
        scale(changed(study, **base), "cpu", **{"rows": ["conv_gmlp_2"], **options})


def test_a_study_of_something_else_is_named(toy_project: Path):
    with pytest.raises(
        LabError,
        match="'toy' is of no kind that can be counted: it has ToyParameters, none of: SpeechParameters, ",
    ):
        scale(load_ablation("toy"), "cpu")
