from dataclasses import replace
from typing import Any

import pytest

from lab.errors import LabError
from lab.training.cell import cell_audio_projector
from lab.training.parameters import PictureTuningParameters, SpeechParameters, TextTuningParameters, VisionParameters
from lab.training.tuning import as_vision

KINDS = (SpeechParameters, VisionParameters, TextTuningParameters, PictureTuningParameters)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_a_default_that_fits_and_the_seed_is_last(kind: type[SpeechParameters]) -> None:
    made = kind()
    assert list(made.as_dict()) == list(kind.names())
    assert kind.names()[-1] == "seed"
    assert kind(**made.as_dict()) == made


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"stepz": 1},
            r"unknown parameter of SpeechParameters 'stepz' .did you mean 'steps'.*choose one of: audio_enc",
        ),
        ({"steps": "3"}, "steps is '3' .str.; expected int"),
        ({"steps": True}, "steps is True .bool.; expected int"),
        ({"steps": 1.5}, "steps is 1.5 .float.; expected int"),
        ({"learning_rate": "3e-4"}, "learning_rate is '3e-4' .str.; expected float"),
        ({"normalizer": None}, "normalizer is None .NoneType.; expected str"),
        ({"device": "gpu"}, "unknown device 'gpu'.*choose one of: auto, cpu, cuda"),
        ({"encoder_window": "crop"}, "unknown encoder_window 'crop'.*choose one of: cropped, padded"),
        ({"projector_options": "4"}, "projector_options is '4' .str.; expected dict"),
    ],
)
def test_what_a_kind_of_study_does_not_have_is_refused(changes: dict[str, Any], message: str) -> None:
    for make in (SpeechParameters, lambda **given: replace(SpeechParameters(), **given)):
        with pytest.raises(LabError, match=message):
            make(**changes)


def test_a_whole_number_serves_as_a_fraction() -> None:
    assert SpeechParameters(learning_rate=1).learning_rate == 1


def test_what_was_recorded_before_a_parameter_was_added_still_loads() -> None:
    old = SpeechParameters(steps=7).as_dict()
    del old["projector_options"]
    assert SpeechParameters(**old) == SpeechParameters(steps=7)
    with pytest.raises(LabError, match="unknown parameter of SpeechParameters 'num_layers'"):
        SpeechParameters(**old, num_layers=3)


def test_an_option_of_a_projectors_class_is_given_by_its_name() -> None:
    narrow = cell_audio_projector(SpeechParameters(projector_options={"intermediate_size": 5}), 8, 6)
    assert narrow.intermediate_size == 5


def test_a_cell_of_tuned_pictures_is_one_of_images_alone() -> None:
    tuned = PictureTuningParameters(num_pretraining=3, num_training=4, image_size=64, budget_tokens=500)
    seen = as_vision(tuned)
    assert (seen.curriculum, seen.videos, seen.num_images, seen.batch_tokens) == ("image", "", 7, 500)
    assert (seen.image_size, seen.steps, seen.learning_rate) == (64, tuned.steps, tuned.learning_rate)
