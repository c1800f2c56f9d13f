import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lab import paths
from lab.data import fetch, sources
from lab.errors import LabError
from lab.study import preparation, remembered, vision_preparation
from lab.study.remembered import folder_states
from lab.study.vision_preparation import CHECKED_PARAMETERS, PREPARED_PARAMETERS, prepare_vision
from lab.training import vision
from lab.training.samples import SampleExamples
from standins.models import packaged_efficientnet, vision_pretraining
from tests.vision import draw_stand_ins, tiny_cell, write_image_set, write_rows, write_siglip


@pytest.fixture
def cell(tmp_path, monkeypatch):
    draw_stand_ins(tmp_path / "things", monkeypatch)
    return tiny_cell(tmp_path, num_images=6, num_videos=4, num_test=4)


@pytest.fixture
def made(monkeypatch):
    """How often something was made."""
    calls = []
    real = vision_preparation._views
    monkeypatch.setattr(vision_preparation, "_views", lambda cells: calls.append(len(cells)) or real(cells))
    return calls


def test_what_was_prepared_is_remembered_and_made_again_when_it_is_gone(cell, made):
    first = prepare_vision([cell])
    assert prepare_vision([cell]) == first
    assert made == [1]
    shutil.rmtree(paths.cache_dir() / "features")
    assert prepare_vision([cell]) == first
    assert made == [1, 1]
    assert len(list((paths.cache_dir() / "features").glob("*/values.bin"))) == 3


def test_every_ingredient_is_named_by_the_parameters_value(cell):
    prepared = prepare_vision([cell, {**cell, "test_source": "stills"}])
    assert set(prepared["images"]) == {"stills"}
    assert set(prepared["videos"]) == {cell["videos"]}
    assert set(prepared["test_source"]) == {"", "stills"}
    assert prepared["test_source"][""] == "none"
    assert prepared["test_source"]["stills"] == prepared["images"]["stills"]
    encoder = vision.open_vision_encoder(cell["vision_encoder"])
    assert prepared["vision_encoder"] == {cell["vision_encoder"]: encoder.weights_sha256}
    assert set(prepared["language_model"]) == {cell["language_model"]}
    assert prepared["device"] == {"cpu": "cpu"}
    assert prepared["precision"] == {"float32": "float32"}


def test_what_device_and_precision_come_to_is_an_ingredient(cell):
    prepared = prepare_vision([{**cell, "device": "auto"}])
    assert prepared["device"] == {"auto": "cuda" if torch.cuda.is_available() else "cpu"}
    with pytest.raises(LabError, match="unknown device 'tpu'; choose one of: auto, cpu, cuda"):
        prepare_vision([{**cell, "device": "tpu"}])


def test_rows_that_differ_in_training_alone_share_what_is_prepared(cell, made):
    prepare_vision([cell, {**cell, "projector": "mlp"}, {**cell, "steps": 9, "learning_rate": 1.0}])
    assert made == [1]
    prepare_vision([cell, {**cell, "curriculum": "direct"}])
    assert made == [1, 2]


def test_an_image_branch_prepares_images_for_a_curriculum_without_them(cell):
    changes = {"curriculum": "direct", "video_projector_start": "image_projector", "image_branch_steps": 2}
    prepare_vision([{**cell, **changes}])
    assert any(path.name.startswith("stills-") for path in (paths.cache_dir() / "features").iterdir())


def test_a_changed_package_gives_another_ingredient(cell, monkeypatch):
    before = prepare_vision([cell])
    changed = fetch.packages()
    changed = {**changed, "emojibase-data": replace(changed["emojibase-data"], sha256="0" * 64)}
    for module in (remembered, sources):
        monkeypatch.setattr(module, "packages", lambda: changed)
    after = prepare_vision([cell])
    assert after["images"] != before["images"]
    assert after["videos"] != before["videos"]
    assert after["vision_encoder"] == before["vision_encoder"]


def test_a_changed_encoder_of_the_same_name_gives_another_ingredient(cell):
    before = prepare_vision([cell])
    shutil.rmtree(cell["vision_encoder"])
    write_siglip(Path(cell["vision_encoder"]), seed=1)
    after = prepare_vision([cell])
    assert after["vision_encoder"].keys() == before["vision_encoder"].keys()
    assert after["vision_encoder"] != before["vision_encoder"]
    assert after["images"] == before["images"]


def test_a_data_set_of_ones_own_is_prepared_again_when_it_changes(cell, made, tmp_path):
    asked = {**cell, "curriculum": "direct", "test_source": f"image_choices@{write_image_set(tmp_path / 'set')}"}
    prepare_vision([asked])
    prepare_vision([asked])
    assert made == [1]
    (tmp_path / "set" / "more.txt").touch()
    prepare_vision([asked])
    assert made == [1, 1]


def test_what_of_a_source_cannot_be_used_is_counted_and_named(cell, tmp_path, capsys):
    name = write_image_set(tmp_path / "set", count=3)
    text = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "Text."}]
    turns = [{"from": "human", "value": "<image> What?"}, {"from": "gpt", "value": "Red."}]
    image = str(next(tmp_path.glob("set-pictures/red*")))
    rows = [{"id": "a", "conversations": text}, {"id": "b", "conversations": turns, "image": image}]
    asked = {
        **cell,
        "curriculum": "image",
        "videos": "",
        "images": f"conversation@{write_rows(tmp_path / 'turns', {'train': rows})}",
    }
    prepare_vision([{**asked, "test_source": f"image_choices@{name}"}])
    assert "left out: 1 neither picture nor video (a)" in capsys.readouterr().out


def test_the_state_of_a_folder_is_that_of_its_files(tmp_path):
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a.txt").write_text("one")
    names = [str(folder), "", "google/siglip", str(folder / "inner" / "a.txt")]
    before = folder_states(names)
    assert before.keys() == {str(folder)}
    assert [entry[:2] for entry in before[str(folder)]] == [("inner/a.txt", 3)]
    assert folder_states(names) == before
    (folder / "b.txt").touch()
    assert folder_states(names) != before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"projector": "mean_pol"}, r"unknown visual projector 'mean_pol' \(did you mean 'mean_pool'\?\)"),
        ({"pool_size": 0}, "pool_size is 0"),
        ({"padding": "rows"}, "unknown padding 'rows'"),
        ({"language_model": "charakter"}, r"unknown language model 'charakter' \(did you mean 'character'\?\)"),
        ({"curriculum": "mixd"}, r"unknown curriculum 'mixd' \(did you mean 'mixed'\?\)"),
        ({"first_share": 1.0}, "first_share is 1.0; expected a share above 0 and below 1"),
        ({"video_projector_start": "image"}, r"unknown video_projector_start 'image'.*image_projector"),
        ({"image_branch_steps": 3}, "video_projector_start is 'afresh' and image_branch_steps 3"),
        ({"fit": "crop"}, "unknown fit of an image 'crop'; choose one of: pad, stretch"),
        ({"images": "still"}, r"unknown source of pictures or video 'still' \(did you mean 'stills'\?\)"),
        ({"test_source": "scene:8-12"}, r"unknown source of pictures or video 'scene' \(did you mean 'scenes'\?\)"),
        ({"videos": "nextqa@hub:lmms-lab/NExTQA"}, r"unknown form .* 'nextqa' \(did you mean 'next_qa'\?\)"),
        ({"vision_encoder": "efficientnet_lite"}, r"unknown vision encoder 'efficientnet_lite'.*'efficientnet_lite0'"),
        ({"vision_encoder": "timm:test_vitt"}, r"timm has no model 'test_vitt' \(did you mean 'test_vit'\?\)"),
        ({"vision_encoder": "own:siglip_tin"}, r"unknown image tower 'siglip_tin' \(did you mean 'siglip_tiny'\?\)"),
        ({"vision_encoder": "untrained:timm:vit_tin"}, "timm has no model 'vit_tin'"),
        ({"vision_encoder": "own:"}, "unknown image tower ''; choose one of: .*siglip_tiny, timm:NAME"),
    ],
)
def test_what_is_unknown_is_refused_before_anything_is_fetched(cell, monkeypatch, changes, message):
    for module, name in ((preparation, "_with_language_models"), (packaged_efficientnet, "fetch")):
        monkeypatch.setattr(module, name, lambda *arguments: pytest.fail("something was fetched"))
    monkeypatch.setattr(vision_pretraining, "train_pair", lambda *a, **o: pytest.fail("a tower was trained"))
    with pytest.raises(LabError, match=message):
        prepare_vision([cell, {**cell, **changes}])


@pytest.mark.parametrize("name", ["image_branch_steps", "max_tiles", "learning_rate"])
def test_a_parameter_that_a_cell_lacks_is_named(cell, name):
    del cell[name]
    with pytest.raises(LabError, match=f"need the parameter '{name}'; add it to the ablation's `base`"):
        prepare_vision([cell])


def test_what_is_prepared_is_what_a_cell_then_opens(cell, monkeypatch):
    """Every parameter that opening the data looks at is among those that are prepared."""

    class Noted(dict):
        def __getitem__(self, name):
            asked.add(name)
            return super().__getitem__(name)

    from lab.training.vision_cell import cell_stages, vision_cell_data

    asked: set[str] = set()
    data = vision_cell_data(Noted(cell), vision.open_vision_encoder(cell["vision_encoder"]))
    assert all(isinstance(split, SampleExamples) for split in data.values())
    assert asked <= set(PREPARED_PARAMETERS)
    asked.clear()
    cell_stages(Noted({**cell, "train_encoder": True}))
    assert asked <= set(CHECKED_PARAMETERS)
