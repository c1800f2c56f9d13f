from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config

from lab.errors import LabError
from lab.study.ablation import Ablation, load_ablation
from lab.study.scale import scale
from lab.study.scale_table import table


@pytest.fixture(scope="module")
def study() -> Ablation:
    return load_ablation("conv_gmlp_rate")


def test_paper_rung_has_the_papers_encoder_and_projectors(study):
    found = scale(study, "paper", ["conv_gmlp_2", "conv_gmlp_8"])
    for rate, row in ((2, "conv_gmlp_2"), (8, "conv_gmlp_8")):
        encoder, projector, language_model = found.rows[row].parts
        width = 1280 * rate
        # 3 (n d)^2 + 2 n d and the layer to the language model's width, with bias.
        assert projector.trained_parameters == 3 * width**2 + 2 * width + (width + 1) * 3584
        assert encoder.trained_parameters == encoder.parameters - 1500 * 1280
        assert (language_model.parameters, language_model.trained_parameters) == (7_615_616_512, 0)
        # Prompt "Transcribe the speech." as 6, audio, start, answer.
        assert found.rows[row].tokens == 6 + -(-1500 // rate) + 1 + 128
    assert found.cells.sample.batch_size == 64
    assert found.dearest == "conv_gmlp_2"


def test_stages_are_those_of_the_paper_that_hold_all_parts(study):
    found = scale(study, "paper", ["conv_gmlp_2"])
    trained = {name: [bool(part.trained_parameters) for part in memory.parts] for name, memory in found.stages.items()}
    assert trained == {"audio": [True, True, False], "omni_alignment": [True] * 3, "sft": [True] * 3}
    # The rung is the paper's audio stage.
    assert found.stages["audio"] == found.rows["conv_gmlp_2"]
    assert found.stages["sft"].kept > 16 * 7.6e9


def test_nothing_is_given_memory_or_fetched(study, monkeypatch):
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("something was fetched")

    monkeypatch.setattr("huggingface_hub.file_download.hf_hub_download", refuse)
    monkeypatch.setattr("transformers.modeling_utils.PreTrainedModel.from_pretrained", refuse)
    before = torch.get_default_dtype()
    assert scale(study, "paper", ["conv_gmlp_8"], precision="bfloat16_weights").rows["conv_gmlp_8"].total > 100e9
    assert torch.get_default_dtype() == before


@pytest.mark.parametrize("rung", ["cpu", "espeak", "gpu", "smoke"])
def test_other_rungs_are_counted_too(study, rung):
    found = scale(study, rung, ["conv_gmlp_4", "q_former_8"])
    assert len(found.rows) == 2
    assert all(0 < memory.total < 80e9 for memory in found.rows.values())


def test_a_row_that_does_not_fit_the_rung_is_told_apart(study):
    # Its budget is that of the cpu rung's widths.
    found = scale(study, "gpu", ["conv_gmlp_4", "conv_gmlp_budget_8"])
    assert list(found.rows) == ["conv_gmlp_4"]
    assert "conv_gmlp_budget_8 does not fit this rung: parameter_budget 1918656 is too small" in table(found)
    with pytest.raises(LabError, match="row 'conv_gmlp_budget_8' of 'conv_gmlp_rate' does not fit rung 'gpu'"):
        scale(study, "gpu", ["conv_gmlp_budget_8"])


def test_a_frozen_encoder_is_outside_the_loop_of_a_rung(study):
    encoder = scale(study, "cpu", ["conv_gmlp_4"]).rows["conv_gmlp_4"].parts[0]
    assert (encoder.trained_parameters, encoder.weights, encoder.saved.everything) == (0, 0, 0)


def test_smaller_batches_and_shorter_utterances_take_less(study):
    whole = scale(study, "paper", ["conv_gmlp_4"]).rows["conv_gmlp_4"]
    small = scale(study, "paper", ["conv_gmlp_4"], batch_size=8, seconds=10, answer_tokens=40).rows["conv_gmlp_4"]
    assert small.kept == whole.kept
    assert small.total < whole.total / 4
    assert small.tokens == 6 + 125 + 1 + 40


def test_cropped_windows_compute_only_their_own_frames_and_the_margin(study):
    assert scale(study, "cpu", ["conv_gmlp_4"], seconds=10).cells.sample.encoder_frames == 500 + 25
    assert scale(study, "cpu", ["conv_gmlp_4"], seconds=30).cells.sample.encoder_frames == 1500
    assert scale(study, "gpu", ["conv_gmlp_4"], seconds=10).cells.sample.encoder_frames == 1500


def test_table_shows_rows_parts_and_stages(study):
    text = table(scale(study, "paper", ["conv_gmlp_2", "mean_pool_mlp_8"]))
    for line in ("By row", "By part, conv_gmlp_2, GB", "By stage of the paper"):
        assert line in text
    cells = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert cells["conv_gmlp_2"][:3] == ["28.8", "885", "663.9"]
    # 4 bytes a weight; 4 a gradient and 8 for the moments of the 635.0M that train.
    assert cells["audio_encoder"][:5] == ["637.0", "635.0", "2.55", "2.54", "5.08"]
    assert cells["language_model"][:5] == ["7,615.6", "0.0", "30.46", "0.00", "0.00"]
    assert max(map(len, text.splitlines())) < 150


def changed(study: Ablation, **base: object) -> Ablation:
    return replace(study, base=replace(study.base, **base))


def test_local_folder_is_counted(study, tmp_path):
    Qwen2Config(hidden_size=24, num_attention_heads=2, num_key_value_heads=2).save_pretrained(tmp_path)
    found = scale(changed(study, language_model=str(tmp_path)), "cpu", ["conv_gmlp_2"])
    assert found.rows["conv_gmlp_2"].parts[1].parameters == 3 * 768**2 + 2 * 768 + 769 * 24


@pytest.mark.parametrize(
    ("base", "options", "message"),
    [
        ({}, {"seconds": 31}, "seconds is 31; expected above 0 and at most the encoder's 30"),
        ({}, {"precision": "fp8"}, "unknown precision 'fp8'; choose one of: bfloat16, bfloat16_weights, float32"),
        ({}, {"rows": ["conv"]}, "unknown row of 'conv_gmlp_rate'"),
        ({}, {"answer_tokens": 5000}, "an utterance takes 5751 tokens, more than max_tokens 4096"),
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
        match="'toy' is of no kind that can be counted: it has no parameter 'audio_encoder' or 'scorer_steps' or ",
    ):
        scale(load_ablation("toy"), "cpu")
