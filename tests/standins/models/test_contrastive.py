import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lab.errors import LabError
from standins.models import contrastive
from standins.models.contrastive import VisionPretrainingOptions, _batches, sigmoid_loss, train_pair, training_text
from tests.standins.coloured_pictures import COLOURS, coloured_pictures
from tests.training.runs import interrupt

TINY = VisionPretrainingOptions(image_size=32, steps=3, batch_size=4, warmup_steps=1)
NAME = "timm:test_convnext"


@pytest.fixture
def pictures(tmp_path):
    return coloured_pictures(tmp_path)


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
    batches = _batches(twice, 8, np.random.default_rng(0))
    epoch = [[twice[index].caption for index in next(batches)] for _ in range(4)]
    assert all(len(set(batch)) == 8 for batch in epoch)
    assert {name for batch in epoch for name in batch} == {p.caption for p in pictures}


def test_fewer_things_than_a_batch_are_one_batch(pictures):
    assert sorted(next(_batches(pictures[:3], 8, np.random.default_rng(0)))) == [0, 1, 2]


def test_the_topic_is_added_to_a_text_only_where_asked_for(pictures):
    picture = replace(pictures[0], caption="A red door.", topic="animals-nature/animal-mammal")
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


def test_a_training_that_was_interrupted_goes_on_to_the_same_weights(pictures, tmp_path, monkeypatch):
    whole, loss = train_pair(NAME, pictures, TINY)
    checkpoint = tmp_path / "tower.checkpoint"
    with monkeypatch.context() as patch:
        interrupt(contrastive, "sigmoid_loss", 3, patch)
        with pytest.raises(KeyboardInterrupt):
            train_pair(NAME, pictures, TINY, checkpoint=checkpoint)
    assert checkpoint.exists()
    resumed, last = train_pair(NAME, pictures, TINY, checkpoint=checkpoint)
    assert last == loss
    states = [pair.state_dict() for pair in (whole, resumed)]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_one_picture_is_refused(pictures):
    with pytest.raises(LabError, match="at least two pictures, got 1"):
        train_pair(NAME, pictures[:1], TINY)


def test_the_fake_pictures_have_one_caption_each(pictures):
    assert len({picture.caption for picture in pictures}) == len(pictures) == 8 * len(COLOURS)


@pytest.mark.parametrize(("share", "lowest", "highest"), [(0.0, 0, 0), (0.5, 10, 38), (1.0, 48, 48)])
def test_the_topic_is_added_to_the_share_of_captions_that_is_asked_for(pictures, monkeypatch, share, lowest, highest):
    asked = []
    monkeypatch.setattr(
        contrastive, "training_text", lambda picture, *, with_topic: asked.append(with_topic) or picture.caption
    )
    train_pair(NAME, pictures, replace(TINY, batch_size=16, topic_share=share))
    assert len(asked) == 3 * 16
    assert lowest <= sum(asked) <= highest
