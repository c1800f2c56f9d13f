import json
import math

import pytest

from lab.errors import LabError
from lab.paths import cache_dir
from standins.models import contrastive
from standins.models import vision_pretraining as module
from standins.models.contrastive import TimmTower, build_image_tower
from standins.models.vision_pretraining import pretrained_vision_tower, tower_pictures, vision_tower_folder
from tests.standins.coloured_pictures import coloured_pictures

NAME = "timm:test_convnext"


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    found = coloured_pictures(tmp_path)
    monkeypatch.setattr(module, "stamps", lambda: [])
    monkeypatch.setattr(module, "emoji", lambda: found)
    return found


def test_a_tower_is_trained_once_on_the_training_side_and_described(pictures):
    calls = []
    folder = pretrained_vision_tower(NAME, steps=2, image_size=32, progress=lambda *call: calls.append(call))
    assert folder == vision_tower_folder(NAME, steps=2, image_size=32)
    assert pretrained_vision_tower(NAME, steps=2, image_size=32, progress=lambda *call: calls.append(call)) == folder
    assert len(calls) == 1
    described = json.loads((folder / "tower.json").read_text())
    training = tower_pictures("train")
    assert 0 < len(training) < len(pictures)
    assert described["training_pictures"] == {"emoji": len(training)}
    assert described["training_things"] == len(training)
    assert described["options"]["steps"] == 2
    weights = build_image_tower(NAME, image_size=32).parameters()
    assert described["parameters"] == sum(weight.numel() for weight in weights)
    assert [path.name for path in folder.parent.iterdir() if path.suffix != ".lock"] == [folder.name]


def test_what_a_tower_depends_on_is_in_its_folders_name(monkeypatch):
    folders = {
        vision_tower_folder(),
        vision_tower_folder(steps=1),
        vision_tower_folder(seed=1),
        vision_tower_folder(image_size=64),
        vision_tower_folder("timm:test_vit"),
    }
    monkeypatch.setattr(module, "RECIPE_VERSION", 99)
    assert len(folders | {vision_tower_folder()}) == 6
    assert vision_tower_folder("timm:a/b").name.startswith("timm-a-b-")


def test_no_step_is_the_untrained_tower(pictures):
    folder = pretrained_vision_tower(NAME, steps=0, image_size=32)
    assert json.loads((folder / "tower.json").read_text())["training_loss"] is None


def test_a_loss_that_is_not_finite_stops_before_anything_is_written(pictures, monkeypatch):
    monkeypatch.setattr(contrastive, "sigmoid_loss", lambda logits: logits.sum() * math.nan)
    with pytest.raises(LabError, match=r"the loss is nan at step 0 of the image tower, learning rate"):
        pretrained_vision_tower(NAME, steps=2, image_size=32)
    assert not vision_tower_folder(NAME, steps=2, image_size=32).exists()


def test_a_full_disk_is_one_sentence_and_leaves_nothing(pictures, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TimmTower, "save", full)
    with pytest.raises(LabError, match=r"the image tower cannot be written to .*No space left"):
        pretrained_vision_tower(NAME, steps=1, image_size=32)
    assert [path for path in (cache_dir() / "vision_towers").iterdir() if path.suffix != ".lock"] == []
