from dataclasses import replace

import numpy as np
import pytest
import torch

from lab.errors import LabError
from lab.parts.visual_projectors import VISUAL_PROJECTORS
from lab.study.ablation import load_ablation
from lab.training.cell import IMAGE, VIDEO, cell_branch, cell_stages, seeing_model, seen_data
from lab.training.named_parts import open_language_model, open_vision_encoder
from standins.scenes.questions import STILL_KINDS
from tests.vision import IMAGE_SIZE, PATCH_SIZE, draw_stand_ins, tiny_cell, write_image_set

BRANCH = {"video_projector_start": "image_projector", "image_branch_steps": 3}


@pytest.fixture
def cell(tmp_path, monkeypatch):
    draw_stand_ins(tmp_path / "things", monkeypatch)
    return tiny_cell(tmp_path)


def opened(cell):
    """Encoder, language model and data of a cell."""
    encoder = open_vision_encoder(cell.vision_encoder)
    return encoder, open_language_model(cell.language_model), seen_data(cell, encoder)


def built(cell):
    encoder, language_model, data = opened(cell)
    torch.manual_seed(cell.seed)
    return seeing_model(cell, encoder, language_model, data), data


def test_a_staged_cell_trains_the_video_projector_on_images_and_then_on_both(cell):
    first, second = cell_stages(replace(cell, steps=10, first_share=0.3, image_share=0.25))
    assert (first.steps, second.steps) == (3, 7)
    assert first.mixing_shares == {IMAGE: 1.0}
    assert second.mixing_shares == {IMAGE: 0.25, VIDEO: 0.75}
    assert second.starts_from == (first.name,)
    for stage in (first, second):
        rates = {"video_projector": 1e-3, "language_model": 5e-4}
        assert dict(stage.learning_rates) == rates
        assert set(stage.trained) == rates.keys()
        assert set(stage.frozen) == {"visual_projector", "vision_encoder"}


def test_what_a_cell_does_not_train_is_frozen(cell):
    (stage,) = cell_stages(replace(cell, curriculum="direct", train_language_model=False, train_encoder=True))
    assert dict(stage.learning_rates) == {"video_projector": 1e-3, "vision_encoder": cell.encoder_learning_rate}
    assert set(stage.frozen) == {"visual_projector", "language_model"}


def test_a_cell_without_videos_trains_the_visual_projector(cell):
    images = replace(load_ablation("visual_projector").base, vision_encoder=cell.vision_encoder)
    (stage,) = cell_stages(images)
    assert cell_branch(images) == "visual_projector"
    assert "video_projector" in stage.frozen
    assert stage.mixing_shares == {IMAGE: 1.0}


def test_an_image_branch_comes_before_the_curriculum_and_costs_steps_of_its_own(cell):
    alone = cell_stages(cell)
    before, *rest = cell_stages(replace(cell, **BRANCH))
    assert (before.name, before.steps, before.mixing_shares) == ("image_branch", 3, {IMAGE: 1.0})
    assert set(before.trained) == {"visual_projector", "language_model"}
    assert "video_projector" in before.frozen
    assert [stage.name for stage in rest] == [stage.name for stage in alone]
    assert sum(stage.steps for stage in rest) == cell.steps
    assert rest[0].starts_from == ("image_branch",)
    assert [stage.name for stage in rest] == ["staged_1", "staged_2"]


@pytest.mark.parametrize(
    "changes",
    [
        {"image_branch_steps": 3},
        {"video_projector_start": "image_projector"},
        {**BRANCH, "images": ""},
        {**BRANCH, "videos": "", "curriculum": "image"},
        {**BRANCH, "image_branch_steps": -1},
    ],
)
def test_an_image_branch_needs_its_steps_images_and_videos(cell, changes):
    with pytest.raises(LabError, match=r"video_projector_start is '\w+' and image_branch_steps -?\d; expected a cell"):
        cell_stages(replace(cell, **changes))


def test_unknown_names_of_a_cell_are_refused(cell):
    with pytest.raises(LabError, match=r"unknown video_projector_start 'imageprojector' \(did you mean 'image_proj"):
        cell_stages(replace(cell, video_projector_start="imageprojector"))
    with pytest.raises(LabError, match=r"unknown curriculum 'stage' \(did you mean 'staged'\?\)"):
        cell_stages(replace(cell, curriculum="stage"))
    encoder = open_vision_encoder(cell.vision_encoder)
    with pytest.raises(LabError, match=r"unknown source of samples 'still'.*did you mean 'stills'"):
        seen_data(replace(cell, images="still"), encoder)


def test_a_cell_opens_the_data_that_its_curriculum_needs_and_no_other(cell):
    encoder = open_vision_encoder(cell.vision_encoder)
    data = seen_data(replace(cell, measure_dev=True), encoder)
    assert {name: len(split) for name, split in data.items()} == {IMAGE: 24, VIDEO: 18, "test": 9, "dev": 9}
    assert set(seen_data(replace(cell, curriculum="direct"), encoder)) == {VIDEO, "test"}
    with_branch = seen_data(replace(cell, **BRANCH, curriculum="direct"), encoder)
    assert set(with_branch) == {IMAGE, VIDEO, "test"}
    ids = [{sample.id for sample in data[name].samples} for name in (VIDEO, "test", "dev")]
    assert not ids[0] & ids[1]
    assert not ids[1] & ids[2]
    assert {split.branch for split in data.values()} == {"video_projector"}


@pytest.mark.parametrize(("curriculum", "missing"), [("staged", "image_text"), ("direct", "video_text")])
def test_a_curriculum_without_its_data_is_refused(cell, curriculum, missing):
    encoder = open_vision_encoder(cell.vision_encoder)
    source = {"image_text": "images", "video_text": "videos"}[missing]
    with pytest.raises(LabError, match=f"curriculum '{curriculum}' needs {missing}, but this cell names no such"):
        seen_data(replace(cell, curriculum=curriculum, **{source: ""}), encoder)


def test_another_source_may_be_tested_on_and_dev_stays_with_the_training_source(cell, tmp_path):
    encoder = open_vision_encoder(cell.vision_encoder)
    asked = f"image_choices@{write_image_set(tmp_path / 'set')}"
    data = seen_data(replace(cell, test_source=asked, num_test=3, measure_dev=True), encoder)
    assert [sample.task for sample in data["test"].samples] == ["image_choices"] * 3
    assert not {sample.task for sample in data["dev"].samples} & {"image_choices", *STILL_KINDS}


def test_a_character_model_reads_its_own_alphabet(cell):
    model, data = built(replace(cell, curriculum="direct"))
    written = data[VIDEO].written("Which one, then? 3 Cats!", model)
    assert written == written.lower()
    assert not set(written) & set(",?!")


def test_features_are_standardised_by_those_of_the_training_video(cell):
    model, data = built(cell)
    encoder = open_vision_encoder(cell.vision_encoder)
    seen = np.concatenate([sample.content[0].read(data[VIDEO].sight).frames for sample in data[VIDEO].samples])
    assert seen.shape[1:] == (IMAGE_SIZE, IMAGE_SIZE, 3)
    features = encoder.encode(seen).reshape(-1, encoder.hidden_size)
    for projector in (model.visual_projector, model.video_projector):
        # Features are kept in half precision.
        assert np.allclose(projector.feature_mean, features.mean(0), atol=2e-3)
        assert np.allclose(projector.feature_std, features.std(0), atol=2e-3)


def test_a_frozen_encoder_stays_outside_and_one_that_trains_is_in_the_model(cell):
    model, data = built(cell)
    assert "vision_encoder" not in model.parts()
    assert data[VIDEO].store.row_shape == (IMAGE_SIZE // PATCH_SIZE, IMAGE_SIZE // PATCH_SIZE, 8)
    trained, pixels = built(replace(cell, train_encoder=True))
    assert set(trained.parts()) == {"visual_projector", "video_projector", "language_model", "vision_encoder"}
    assert pixels[VIDEO].store.row_shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
    assert torch.equal(trained.video_projector.feature_std, torch.ones(8))


@pytest.mark.parametrize("name", sorted(VISUAL_PROJECTORS))
def test_every_projector_is_built_for_both_branches_and_pools_as_asked(cell, name):
    model, data = built(replace(cell, projector=name, curriculum="direct", pool_size=4, newline=True))
    side = IMAGE_SIZE // PATCH_SIZE // (1 if name == "mlp" else 4)
    for branch in ("visual_projector", "video_projector"):
        assert model.view_grid(branch, torch.empty(1, *data[VIDEO].store.row_shape)) == (side, side)
        assert getattr(model, branch).newline is not None
        assert getattr(model, branch).marks is not None
    weights = [dict(model.parts()[part].named_parameters()) for part in ("visual_projector", "video_projector")]
    assert weights[0].keys() == weights[1].keys()
    # Two projectors, drawn one after the other, and not one twice.
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_what_a_cell_stores_lies_in_the_cache_and_is_not_made_again(cell, monkeypatch):
    encoder = open_vision_encoder(cell.vision_encoder)
    first = seen_data(cell, encoder)
    monkeypatch.setattr(type(encoder), "forward", lambda *arguments: pytest.fail("features were computed again"))
    again = seen_data(cell, encoder)
    for name, split in first.items():
        assert split.store.folder == again[name].store.folder
        assert [folder.parent for folder in split.store.folders] == [split.store.folder]
    assert len({split.store.folder for split in first.values()}) == 3


def test_a_picture_beside_a_data_sets_folder_that_was_corrected_is_encoded_again(cell, tmp_path):
    source = f"image_choices@{write_image_set(tmp_path / 'set')}"
    asked = replace(cell, curriculum="direct", test_source=source)
    encoder = open_vision_encoder(cell.vision_encoder)
    before = seen_data(asked, encoder)["test"].store
    picture = tmp_path / "set-pictures" / "red-40.png"
    picture.write_bytes((tmp_path / "set-pictures" / "blue-40.png").read_bytes())
    assert seen_data(asked, encoder)["test"].store.sha256 != before.sha256
