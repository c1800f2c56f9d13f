"""The scale of the whole model: stage by stage, with all parts."""

from dataclasses import replace
from typing import Any

import pytest

from lab.errors import LabError
from lab.study.ablation import load_ablation
from lab.study.largest_batch import Asked, TracedStep, build_encoders, routes
from lab.study.scale import scale, table
from lab.training.named_parts import language_model_without_weights
from tests.study.test_scale_vision import SO400M, nothing_is_fetched  # noqa: F401  a fixture

pytestmark = pytest.mark.timeout(1500)


def cell(rung: str, **changes: Any) -> Any:
    return replace(load_ablation("baichuan_omni").resolve("small_rates", rung), **changes)


def steps(rung: str, stage: str, **asked: Any) -> dict[str, TracedStep]:
    """Those of one stage, by the kind of data."""
    own = cell(rung)
    return {leg.kind: TracedStep.of(own, leg, Asked(**asked), "float32") for leg in routes(own)[stage]}


def test_a_sample_holds_what_its_source_has_and_a_batch_as_many_as_its_tokens():
    # 36 patches pooled by four; a question of 64, the start, an answer of 128, its end; 1500 encoder frames by twos.
    tokens = {"captions": 9 + 194, "vqa": 9 + 194, "interleaved": 3 * 9 + 194, "pure_text": 194}
    found = steps("cpu", "image_3")
    assert {kind: step.memory.tokens for kind, step in found.items()} == tokens
    limit = cell("cpu").batch_tokens
    assert {kind: step.memory.batch_size for kind, step in found.items()} == {
        kind: round(limit / count) for kind, count in tokens.items()
    }
    heard = steps("cpu", "omni_alignment", question_tokens=40, seconds=4)
    assert [heard[kind].memory.tokens for kind in ("audio_text", "spoken_vqa", "quarters", "video_text")] == [
        100 + 130,
        9 + 100 + 130,  # what is said is not written
        9 + 100 + 40 + 130,
        heard["video_text"].largest.frames * 9 + 40 + 130,
    ]


def test_a_sound_is_no_longer_than_a_batch_holds():
    (heard,) = steps("cpu", "audio").values()
    assert heard.memory.tokens == cell("cpu").batch_tokens < 750 + 130
    assert heard.memory.batch_size == 1


def test_a_part_is_there_in_every_stage_and_takes_what_it_does_in_it():
    first = {part.name: part for part in steps("cpu", "image_1")["captions"].memory.parts}
    later = {part.name: part for part in steps("cpu", "audio")["asr_audio_text"].memory.parts}
    rate, width = 2, 384
    projector = 3 * (rate * width) ** 2 + 2 * rate * width + (rate * width + 1) * 192
    assert later["audio_projector"].trained_parameters == projector
    # All but the positions, which are fixed.
    assert later["audio_encoder"].trained_parameters == later["audio_encoder"].parameters - 1500 * width
    assert {name for name, part in first.items() if part.trained_parameters} == {"visual_projector"}
    for name in ("vision_encoder", "audio_encoder"):
        # Its features are kept until an encoder trains, yet it is on the device.
        assert first[name].weights >= 4 * first[name].parameters > 0
        assert (first[name].activations, first[name].gradients) == (0, 0)
    assert later["audio_encoder"].activations > 0
    assert later["vision_encoder"].activations == 0


def test_stages_of_a_row_are_its_own():
    study = load_ablation("omni_alignment")
    found = scale(study, "smoke", ["branches"])
    assert list(found.stages) == ["image_1", "image_2", "image_3", "video", "audio"]
    assert "By stage, branches" in table(found)
    assert found.models == "whisper_tiny_en and efficientnet_lite0 and character"


def test_a_kind_of_data_that_trains_nothing_is_told():
    own = cell("cpu", stages={"omni_alignment": {"share": 1.0, "frozen": ["language_model"]}})
    leg = next(leg for leg in routes(own)["omni_alignment"] if leg.kind == "audio_text")
    text = replace(leg, kind="pure_text", source="text:chatterbot")
    with pytest.raises(LabError, match=r"pure_text passes through nothing that trains: vision_encoder, .*audio_proj"):
        _ = TracedStep.of(own, text, Asked(), "float32").memory


def test_what_no_batch_of_it_holds_or_it_has_not_is_refused():
    study = load_ablation("baichuan_omni")
    with pytest.raises(LabError, match="a sample of captions takes 1075 tokens, more than the 600 of a batch"):
        scale(study, "smoke", ["small_rates"], answer_tokens=1000)
    with pytest.raises(LabError, match="batch_size is 2, but a study of the whole model has none"):
        scale(study, "smoke", ["small_rates"], batch_size=2)


# The other rungs take minutes: every sample of a pack is traced by itself.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "row"), [("baichuan_omni", "paper_rates"), ("omni_alignment", "joint"), ("sft", "none")]
)
@pytest.mark.parametrize("rung", ["cpu", "smoke"])
def test_a_row_of_every_study_is_counted(name, row, rung):
    found = scale(load_ablation(name), rung, [row])
    assert not found.refused
    assert not found.refused_stages
    assert all(0 < one.memory.kept < one.memory.total < 3e9 for one in found.rows.values())


def test_the_papers_rung_is_the_papers_model():
    step = steps("paper", "audio")["asr_audio_text"]
    parts = {
        **build_encoders(step.hears, step.sees),
        "language_model": language_model_without_weights(step.language_model),
    }
    counts = {name: sum(one.numel() for one in part.parameters()) for name, part in parts.items()}
    assert counts["vision_encoder"] == SO400M
    assert counts["audio_encoder"] == pytest.approx(637e6, rel=1e-3)
    assert counts["language_model"] == 7_615_616_512
