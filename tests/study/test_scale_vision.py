from dataclasses import replace
from typing import Any

import pytest
import torch

from lab.errors import LabError
from lab.study.ablation import Ablation, load_ablation
from lab.study.scale import scale, table

# A row of the paper's size is traced for minutes on a loaded machine.
pytestmark = pytest.mark.timeout(1500)

STUDIES = ("video_pretraining", "video_frames", "visual_projector", "visual_encoder", "anyres")
WIDTH = 1152
# A window of four patches to one, two linear layers to the language model's width; no place marks at this rung.
MEAN_POOL = 4 * WIDTH**2 + WIDTH + WIDTH * 3584 + 3584 + 3584**2 + 3584
# So400m without its pooling head: patches, positions, 27 layers, the last norm.
LAYER = 4 * (WIDTH**2 + WIDTH) + 2 * WIDTH * 4304 + 4304 + WIDTH + 4 * WIDTH
SO400M = 3 * 14**2 * WIDTH + WIDTH + 729 * WIDTH + 27 * LAYER + 2 * WIDTH


@pytest.fixture(autouse=True)
def nothing_is_fetched(monkeypatch):
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("something was fetched or pretrained")

    for name in (
        "huggingface_hub.file_download.hf_hub_download",
        "transformers.modeling_utils.PreTrainedModel.from_pretrained",
        "lab.training.named_parts.fetch",
        "standins.models.packaged_efficientnet.fetch",
        "standins.models.vision_pretraining.train_pair",
        "standins.models.character_model.pretrain_character_model",
        "standins.models.world_pretraining.pretrain_word_model",
    ):
        monkeypatch.setattr(name, refuse)


def changed(study: Ablation, **base: object) -> Ablation:
    return replace(study, base=replace(study.base, **base))


@pytest.mark.slow
def test_paper_rung_has_the_papers_encoder_and_projector():
    found = scale(load_ablation("video_pretraining"), "paper", ["direct"])
    encoder, visual, video, language_model = found.rows["direct"].memory.parts
    assert encoder.parameters == SO400M
    assert (visual.parameters, video.trained_parameters) == (MEAN_POOL, MEAN_POOL)
    assert (language_model.parameters, language_model.trained_parameters) == (7_615_616_512, 0)
    # A frozen encoder's features are computed once: it takes no part in a step.
    assert (encoder.weights, encoder.activations) == (0, 0)


@pytest.mark.parametrize(("projector", "frame"), [("mean_pool", 9), ("mlp", 36), ("concat", 9), ("c_abstractor", 9)])
def test_tokens_of_a_sample_and_samples_of_a_batch(projector, frame):
    study = changed(load_ablation("visual_projector"), batch_size=0)
    row = scale(study, "cpu", [projector], question_tokens=50, answer_tokens=20).rows[projector]
    assert (row.shown["tokens a frame"], row.shown["frames"]) == (str(frame), "1")
    assert row.memory.tokens == frame + 50 + 1 + 20 + 1
    limit = row.dearest.batches.tokens
    assert row.memory.batch_size == round(limit / row.memory.tokens)


def test_a_number_of_samples_of_the_rung_is_a_batch():
    study = changed(load_ablation("visual_projector"), batch_size=7)
    found = scale(study, "cpu", ["mean_pool"])
    assert found.rows["mean_pool"].memory.batch_size == 7
    assert found.rows["mean_pool"].shown["dearest batch"] == "7 image_text"


@pytest.mark.slow
def test_frames_and_tiles_of_video_are_the_papers():
    found: Any = scale(load_ablation("video_frames"), "paper", ["frames_48", "anyres_8"]).rows
    whole, tiled = found["frames_48"], found["anyres_8"]
    assert whole.shown["frames"] == "48"
    assert (whole.shown["tokens a frame"], whole.longest.memory.tokens) == ("169", 48 * 169 + 194)
    # 384 x 768: two tiles and the whole view.
    assert tiled.shown["tokens a frame"] == f"{3 * 169}"


@pytest.mark.slow
def test_tiles_of_a_page_are_counted_as_they_are_cut():
    found = scale(load_ablation("anyres"), "paper").rows
    # Pages of up to 512 x 512 px take four tiles of 384 and the whole view; pooled by 4, 27 patches are 6.
    assert {row: need.shown["tokens a frame"] for row, need in found.items()} == {
        "fixed": "169",
        "anyres": f"{5 * 169}",
        "fixed_more_tokens": "729",
        "anyres_fewer_tokens": f"{5 * 36}",
    }


@pytest.mark.slow
def test_stages_are_the_papers_of_image_and_video():
    found = scale(load_ablation("video_pretraining"), "gpu", ["direct"])
    trained = {
        name: [bool(part.trained_parameters) for part in need.memory.parts] for name, need in found.stages.items()
    }
    assert trained == {
        "image_1": [False, True, False, False],
        "image_2": [True, True, False, False],
        "image_3": [True, True, False, True],
        "video": [False, False, True, False],
        "omni_alignment": [True] * 4,
        "sft": [True] * 4,
    }
    image = found.stages["image_2"]
    encoder = image.memory.parts[0]
    assert encoder.weights == pytest.approx(4 * encoder.parameters, rel=1e-3)  # and the numbers of the positions
    assert encoder.activations > 0
    assert image.dearest.leg.kind == "image_text"
    # Of images and video the dearer: more, shorter samples have more scored positions.
    video = found.stages["video"]
    assert (video.dearest.leg.kind, video.longest.leg.kind) == ("image_text", "video_text")


def test_a_row_in_which_nothing_can_train_is_told_apart():
    found = scale(load_ablation("video_pretraining"), "gpu", ["direct", "text_only"])
    assert list(found.rows) == ["direct"]
    assert found.refused == {"text_only": "video_text passes through nothing that trains: video_projector"}


def test_a_stage_in_which_nothing_can_train_is_told_apart():
    found = scale(changed(load_ablation("video_pretraining"), images=""), "cpu", ["text_only"])
    assert list(found.rows) == ["text_only"]  # its language model trains
    assert list(found.stages) == ["omni_alignment", "sft"]
    assert "video cannot be counted with it: video_text passes through nothing that trains" in table(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("rung", ["gpu", "paper", "cpu", "smoke"])
def test_every_row_of_every_rung_is_counted_or_told_apart(name, rung):
    found = scale(load_ablation(name), rung, "all")
    assert {*found.rows, *found.refused} == {row.key for row in load_ablation(name).rows}
    assert set(found.refused) <= {"text_only"}
    largest = 2e9 if rung in ("cpu", "smoke") else 2e12
    assert all(0 < row.memory.kept < row.memory.total < largest for row in found.rows.values())
    assert set(found.stages) | set(found.refused_stages) >= {"image_1", "image_2", "image_3", "video"}


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_first_row_of_every_study_has_the_papers_stages(name):
    study = load_ablation(name)
    found = scale(study, "cpu", [study.rows[0].key])
    assert set(found.stages) == {"image_1", "image_2", "image_3", "video", "omni_alignment", "sft"}
    assert found.refused_stages == {}


@pytest.mark.slow
def test_encoders_of_the_cpu_rung_are_their_real_networks():
    found = scale(load_ablation("visual_encoder"), "cpu", "all").rows
    sizes = {row: need.memory.parts[0].parameters for row, need in found.items()}
    # Patches of 16, 36 positions, 4 layers of width 128, the last norm; without the pooling head.
    layer = 4 * (128**2 + 128) + 2 * 128 * 512 + 512 + 128 + 4 * 128
    assert sizes["siglip_own"] == 3 * 256 * 128 + 128 + 36 * 128 + 4 * layer + 2 * 128
    assert sizes["efficientnet_imagenet"] == sizes["efficientnet_own"]
    assert sizes["siglip_so400m"] > 400e6


@pytest.mark.parametrize("row", ["siglip_own", "efficientnet_imagenet"])
def test_a_trained_encoder_takes_part_in_the_step(row):
    study = changed(load_ablation("visual_encoder"), train_encoder=True)
    encoder = scale(study, "cpu", [row]).rows[row].memory.parts[0]
    assert encoder.trained_parameters == encoder.parameters > 0
    assert encoder.activations > 0


def test_smaller_batches_and_shorter_texts_take_less():
    study = load_ablation("visual_projector")
    whole = scale(study, "gpu", ["mean_pool"]).rows["mean_pool"].memory
    few = {"batch_size": 4, "question_tokens": 10, "answer_tokens": 10}
    small = scale(study, "gpu", ["mean_pool"], **few).rows["mean_pool"].memory
    assert small.batch_size == 4
    assert small.kept == whole.kept
    # Copies of the language model's weights stay.
    assert 2 * 0.35e9 < small.total - small.kept < (whole.total - whole.kept) / 10


@pytest.mark.slow
def test_table_shows_rows_parts_and_stages():
    text = table(scale(load_ablation("video_pretraining"), "paper", ["direct", "text_only"]))
    for line in ("By row", "By part, ", "By stage of the paper", "samples as large as", "64 tokens of question"):
        assert line in text
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert lines["direct"][:9] == ["169", "48", "8,306", "16", "video_text", "0.0", "0.0", "22.3", "0.0"]
    # 4 bytes a weight.
    assert lines["language_model"][:5] == ["7,615.6", "0.0", "30.46", "0.00", "0.00"]
    assert lines["image_3"][5:9] == ["413.0", "22.3", "0.0", "7,615.6"]
    assert max(map(len, text.splitlines())) < 200


def test_default_type_is_left_alone():
    before = torch.get_default_dtype()
    found = scale(load_ablation("visual_projector"), "gpu", ["c_abstractor"], precision="bfloat16_weights")
    part = found.rows["c_abstractor"].memory.parts[3]
    assert part.weights == pytest.approx(2 * part.parameters, rel=1e-4)
    assert torch.get_default_dtype() == before


@pytest.mark.parametrize(
    ("base", "options", "message"),
    [
        ({}, {"seconds": 10.0}, "seconds is 10, but a study of pictures or video has none; leave it out"),
        ({}, {"precision": "fp8"}, "unknown precision 'fp8'; choose one of: bfloat16, bfloat16_weights, float32"),
        ({}, {"rows": ["mean"]}, "unknown row of 'visual_projector'"),
        ({"batch_tokens": 100}, {}, r"does not fit rung 'cpu': a sample of image_text takes 203 tokens, more than"),
        ({"vision_encoder": "openai/clip"}, {}, r"unknown configuration \(a known hub name.*'openai/clip'"),
        (
            {"vision_encoder": "Qwen/Qwen2.5-7B"},
            {},
            "'Qwen/Qwen2.5-7B' is a qwen2 model; expected SigLIP, or timm:NAME",
        ),
        ({"vision_encoder": "own:siglip_huge"}, {}, "unknown image tower 'siglip_huge'"),
        ({"vision_encoder": "timm:vit_nowhere"}, {}, "timm has no model 'vit_nowhere'"),
        ({"language_model": "Qwen/Qwen9-7B"}, {}, r"unknown configuration \(a known hub name.*'Qwen/Qwen9-7B'"),
        ({"curriculum": "random"}, {}, "unknown curriculum 'random'"),
    ],
)
def test_what_cannot_be_counted_is_one_clear_sentence(base, options, message):
    with pytest.raises(LabError, match=message):
        scale(changed(load_ablation("visual_projector"), **base), "cpu", **{"rows": ["mean_pool"], **options})


def test_an_unknown_projector_is_named():
    with pytest.raises(LabError, match="unknown visual projector 'q_former'"):
        scale(changed(load_ablation("anyres"), projector="q_former"), "cpu", ["fixed"])


def test_a_question_is_not_for_speech():
    with pytest.raises(LabError, match="question_tokens is 9, but a study of speech has none; leave it out"):
        scale(load_ablation("conv_gmlp_rate"), "cpu", ["conv_gmlp_2"], question_tokens=9)
