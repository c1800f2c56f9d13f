import shutil

import pytest

from lab import paths
from lab.errors import LabError
from lab.study import image_text_preparation, preparation
from lab.study.ablation import load_ablation, load_module
from lab.study.image_text_preparation import CHECKED_PARAMETERS, PREPARED_PARAMETERS, prepare_image_text
from lab.training import vision
from lab.training.curricula import IMAGE, image_text_stages
from lab.training.image_text_data import open_image_text_data
from lab.training.image_text_model import image_text_splits, open_pretrained
from lab.training.language_models import open_language_model
from standins.models import packaged_efficientnet
from tests.image_text import NAME, tiny_image_text
from tests.vision import draw_stand_ins


@pytest.fixture
def cell(tmp_path, monkeypatch):
    draw_stand_ins(tmp_path / "things", monkeypatch)
    return tiny_image_text(tmp_path)


def test_cells_that_differ_in_filter_steps_and_seed_share_one_preparation_which_is_remembered(cell, monkeypatch):
    made = []
    real = image_text_preparation._scored
    monkeypatch.setattr(image_text_preparation, "_scored", lambda cells: made.append(len(cells)) or real(cells))
    cells = [cell, {**cell, "loss_filter": "gaussian"}, {**cell, "seed": 1, "steps": 5, "warmup_steps": 0}]
    first = prepare_image_text(cells)
    assert made == [1]
    assert set(first["images"]) == {"stills"}
    assert first["test_source"] == {"": "none"}
    assert prepare_image_text(cells) == first
    assert made == [1]
    shutil.rmtree(paths.cache_dir() / "vision_language_models")
    assert prepare_image_text(cells) == first
    assert made == [1, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss_filter": "gausian"}, "unknown loss filter 'gausian'"),
        ({"fitted_by": "kind"}, "unknown fitted_by 'kind'"),
        ({"k": -1.0}, "k is -1.0; expected at least 0 standard deviations"),
        ({"fault_share": 1.5}, "fault_share is 1.5; expected 0 to below 1"),
        ({"num_training": 0}, "num_pretraining and num_training are 16 and 0"),
        ({"steps": 0}, "number of steps in stage 'image_text_fine_tuning' is 0"),
        ({"scorer_steps": 0}, "number of steps in stage 'image_text_pretraining' is 0"),
        ({"language_model_learning_rate": -1.0}, "learning rate of language_model in stage .* is -1.0"),
        ({"images": "still"}, r"unknown source of pictures or video 'still' \(did you mean 'stills'\?\)"),
        ({"test_source": "choices@hub:a/b"}, "unknown form of a data set 'choices'"),
        ({"projector": "mean_pol"}, "unknown visual projector 'mean_pol'"),
        ({"vision_encoder": "efficientnet"}, "unknown vision encoder 'efficientnet'"),
        ({"language_model": "charakter"}, "unknown language model 'charakter'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(cell, monkeypatch, changes, message):
    for module, name in ((preparation, "_with_language_models"), (packaged_efficientnet, "fetch")):
        monkeypatch.setattr(module, name, lambda *arguments: pytest.fail("something was made"))
    with pytest.raises(LabError, match=message):
        prepare_image_text([cell, {**cell, **changes}])


def test_what_is_prepared_is_what_a_cell_then_opens(cell):
    """Every parameter that opening the data looks at is among those that are prepared."""

    class Noted(dict):
        def __getitem__(self, name):
            asked.add(name)
            return super().__getitem__(name)

    asked: set[str] = set()
    noted = Noted(cell)
    encoder = vision.open_vision_encoder(cell["vision_encoder"])
    images = image_text_splits(noted, encoder)[IMAGE]
    llm = open_language_model(cell["language_model"], pretraining_steps=1)
    open_image_text_data(noted, open_pretrained(noted, images, encoder, llm))
    assert asked <= set(PREPARED_PARAMETERS)
    asked.clear()
    image_text_stages(noted)
    assert asked <= set(CHECKED_PARAMETERS)


def test_what_is_prepared_and_checked_are_parameters_of_the_study():
    assert {*PREPARED_PARAMETERS, *CHECKED_PARAMETERS} <= load_ablation(NAME).base.keys()
    assert load_module(NAME).prepare is prepare_image_text
