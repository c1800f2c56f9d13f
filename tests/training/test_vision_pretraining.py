import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lab.errors import LabError
from lab.paths import cache_dir
from lab.training import vision_pretraining as module
from lab.training.vision_pretraining import (
    VisionPretrainingOptions,
    describe_tower,
    load_pair,
    pretrained_vision_tower,
    sigmoid_loss,
    tower_pictures,
    train_pair,
    training_text,
    vision_tower_folder,
)
from tests.training.pictures import COLOURS, coloured_pictures

TINY = VisionPretrainingOptions(image_size=32, steps=3, batch_size=4, warmup_steps=1)
NAME = "timm:test_convnext"


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    found = coloured_pictures(tmp_path)
    monkeypatch.setattr(module, "stamps", lambda: [])
    monkeypatch.setattr(module, "emoji", lambda: found)
    return found


def test_the_loss_asks_of_every_pair_on_its_own():
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, -3.0], [-2.0, 0.3, -0.7]])
    total = 0.0
    for image in range(3):
        for caption in range(3):
            probability = 1 / (1 + math.exp(-float(logits[image, caption])))
            total -= math.log(probability if image == caption else 1 - probability)
    assert float(sigmoid_loss(logits)) == pytest.approx(total / 3, rel=1e-6)


def test_no_batch_holds_a_thing_twice_and_an_epoch_draws_every_thing(pictures):
    twice = [*pictures, *(replace(p, id=f"{p.id}-again") for p in pictures)]
    batches = module._batches(twice, 8, np.random.default_rng(0))
    epoch = [[twice[index].captions["en"] for index in next(batches)] for _ in range(4)]
    assert all(len(set(batch)) == 8 for batch in epoch)
    assert {name for batch in epoch for name in batch} == {p.captions["en"] for p in pictures}


def test_fewer_things_than_a_batch_are_one_batch(pictures):
    assert sorted(next(module._batches(pictures[:3], 8, np.random.default_rng(0)))) == [0, 1, 2]


def test_the_topic_is_added_to_a_text_only_where_asked_for(pictures):
    picture = replace(pictures[0], captions={"en": "A red door."}, topic="animals-nature/animal-mammal")
    assert training_text(picture) == "red door"
    assert training_text(picture, with_topic=True) == "red door animals nature animal mammal"


def test_the_loss_falls_and_the_right_colour_is_found(pictures):
    losses = []
    options = replace(TINY, image_size=16, steps=60, batch_size=16, learning_rate=3e-3, warmup_steps=5)
    _, last = train_pair(
        "siglip_tiny", pictures, options, progress=lambda done, steps, loss: losses.append((done, steps, loss))
    )
    assert [done for done, _, _ in losses] == [10, 20, 30, 40, 50, 60]
    assert losses[-1] == (60, 60, last)
    # Of nothing but how often a caption fits, a batch of 16 has 16 x H(1/16) = 3.74 nats.
    assert last < 3.74 < losses[0][2]


@pytest.mark.parametrize("name", ["siglip_tiny", NAME])
def test_one_seed_repeats_and_another_does_not_and_global_state_stays(pictures, name):
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    first, again, other = (train_pair(name, pictures, replace(TINY, seed=seed))[0] for seed in (1, 1, 2))
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    assert torch.get_num_threads() == threads
    states = [pair.state_dict() for pair in (first, again, other)]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert any(not torch.equal(value, states[2][key]) for key, value in states[0].items())


def test_a_tower_is_trained_once_on_the_training_side_and_described(pictures):
    calls = []
    folder = pretrained_vision_tower(NAME, steps=2, image_size=32, progress=lambda *call: calls.append(call))
    assert folder == vision_tower_folder(NAME, steps=2, image_size=32)
    assert pretrained_vision_tower(NAME, steps=2, image_size=32, progress=lambda *call: calls.append(call)) == folder
    assert len(calls) == 1
    described = describe_tower(folder)
    training = tower_pictures("train")
    assert 0 < len(training) < len(pictures)
    assert described["training_pictures"] == {"emoji": len(training)}
    assert described["training_things"] == len(training)
    assert described["options"]["steps"] == 2
    assert described["parameters"] == sum(p.numel() for p in load_pair(folder).image_tower.parameters())
    assert [path.name for path in folder.parent.iterdir() if path.suffix != ".lock"] == [folder.name]


def test_what_a_tower_depends_on_is_in_its_folders_name(monkeypatch):
    folders = {
        vision_tower_folder(),
        vision_tower_folder(steps=1),
        vision_tower_folder(seed=1),
        vision_tower_folder(image_size=64),
        vision_tower_folder("siglip_small"),
    }
    monkeypatch.setattr(module, "RECIPE_VERSION", 99)
    assert len(folders | {vision_tower_folder()}) == 6
    assert vision_tower_folder("timm:a/b").name.startswith("timm-a-b-")


def test_both_towers_come_back_with_the_same_logits(pictures, monkeypatch):
    trained = {}
    real = train_pair

    def keep(*arguments, **options):
        trained["pair"], loss = real(*arguments, **options)
        return trained["pair"], loss

    monkeypatch.setattr(module, "train_pair", keep)
    pair = load_pair(pretrained_vision_tower("siglip_tiny", steps=2, image_size=32))
    pixels, captions = torch.zeros(2, 32, 32, 3, dtype=torch.uint8), ["red", "blue sock"]
    assert torch.equal(pair(pixels, captions), trained["pair"](pixels, captions))


def test_no_step_is_the_untrained_tower(pictures):
    folder = pretrained_vision_tower(NAME, steps=0, image_size=32)
    assert describe_tower(folder)["training_loss"] is None


def test_one_picture_is_refused(pictures):
    with pytest.raises(LabError, match="at least two pictures, got 1"):
        train_pair(NAME, pictures[:1], TINY)


def test_a_loss_that_is_not_finite_stops_before_anything_is_written(pictures, monkeypatch):
    monkeypatch.setattr(module, "sigmoid_loss", lambda logits: logits.sum() * math.nan)
    with pytest.raises(LabError, match=r"the loss is nan at step 0 of the image tower, learning rate"):
        pretrained_vision_tower(NAME, steps=2, image_size=32)
    assert not vision_tower_folder(NAME, steps=2, image_size=32).exists()


def test_a_full_disk_is_one_sentence_and_leaves_nothing(pictures, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(LabError, match=r"the image tower cannot be written to .*No space left"):
        pretrained_vision_tower(NAME, steps=1, image_size=32)
    assert [path for path in (cache_dir() / "vision_towers").iterdir() if path.suffix != ".lock"] == []


def test_a_folder_that_is_no_tower_or_a_damaged_one_is_named(pictures, tmp_path):
    with pytest.raises(LabError, match=r"holds no image tower \(.*`pretrained_vision_tower` makes one"):
        describe_tower(tmp_path)
    folder = pretrained_vision_tower(NAME, steps=1, image_size=32)
    (folder / "captions.safetensors").write_bytes(b"")
    with pytest.raises(LabError, match=r"captions.safetensors cannot be loaded \("):
        load_pair(folder)
    module.save_file({"bias": torch.zeros(())}, folder / "captions.safetensors")
    with pytest.raises(LabError, match=r"captions.safetensors lacks .*log_scale"):
        load_pair(folder)


def test_the_fake_pictures_have_one_caption_each(pictures):
    assert len({picture.captions["en"] for picture in pictures}) == len(pictures) == 8 * len(COLOURS)
