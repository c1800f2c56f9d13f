from dataclasses import replace

import pytest

from lab.errors import LabError
from lab.training.cell import CURRICULA, cell_stages
from lab.training.parameters import VisionParameters
from lab.training.stages import Stage

CELL = VisionParameters(steps=100, first_share=0.3, image_share=0.4, language_model_learning_rate=1e-4)
RATES = {"video_projector": 1e-3, "language_model": 1e-4}


def stages_of(name: str, **options) -> tuple[Stage, ...]:
    return cell_stages(replace(CELL, curriculum=name, **options))


@pytest.mark.parametrize("name", CURRICULA)
@pytest.mark.parametrize("first_share", [0.001, 0.3, 0.5, 0.999])
@pytest.mark.parametrize("steps", [2, 3, 7, 100])
def test_all_curricula_have_the_same_steps_in_all_and_no_stage_is_empty(name, first_share, steps):
    found = [stage.steps for stage in stages_of(name, steps=steps, first_share=first_share)]
    assert sum(found) == steps
    assert min(found) >= 1


@pytest.mark.parametrize("name", CURRICULA)
def test_each_stage_starts_from_the_one_before_and_trains_alike(name):
    stages = stages_of(name)
    assert [stage.starts_from for stage in stages] == [(), *((stage.name,) for stage in stages[:-1])]
    assert [stage.name for stage in stages] == [f"{name}_{n}" for n in range(1, len(stages) + 1)]
    for stage in stages:
        assert dict(stage.learning_rates) == RATES
        assert stage.trained == tuple(RATES)
        assert stage.frozen == ("visual_projector", "vision_encoder")
        assert stage.schedule == "cosine"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("direct", [(100, {"video_text": 1.0})]),
        ("staged", [(30, {"image_text": 1.0}), (70, {"image_text": 0.4, "video_text": 0.6})]),
        ("mixed", [(100, {"image_text": 0.4, "video_text": 0.6})]),
        ("image_then_video", [(30, {"image_text": 1.0}), (70, {"video_text": 1.0})]),
        ("image", [(100, {"image_text": 1.0})]),
    ],
)
def test_steps_and_shares_are_those_that_the_curriculum_says(name, expected):
    found = stages_of(name)
    assert [(stage.steps, pytest.approx(stage.mixing_shares)) for stage in found] == expected
    assert set(CURRICULA) == {"direct", "staged", "mixed", "image_then_video", "image"}


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan")])
@pytest.mark.parametrize("name", ["first_share", "image_share"])
def test_shares_of_all_or_nothing_are_refused(name, share):
    with pytest.raises(LabError, match=rf"{name} is {share}; expected a share above 0 and below 1"):
        stages_of("staged", **{name: share})


def test_too_few_steps_and_unknown_curricula_are_refused():
    with pytest.raises(LabError, match="curriculum 'staged' has 2 stages; 1 steps are too few"):
        stages_of("staged", steps=1)
    with pytest.raises(LabError, match="curriculum 'direct' has 1 stages; 0 steps are too few"):
        stages_of("direct", steps=0)
    with pytest.raises(LabError, match=r"unknown curriculum 'stagd'.*staged"):
        stages_of("stagd")
