import itertools
from dataclasses import replace

import numpy as np
import pytest

from lab.errors import LabError
from standins.models import vision_pretraining
from standins.models.contrastive import VisionPretrainingOptions, train_pair
from standins.models.tower_quality import (
    caption_accuracy,
    commonest_topic_accuracy,
    one_a_thing,
    score_tower,
    topic_accuracy,
    tower_quality,
)
from tests.standins.coloured_pictures import coloured_pictures

NAME = "timm:test_convnext"


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    found = coloured_pictures(tmp_path)
    monkeypatch.setattr(vision_pretraining, "stamps", lambda: [])
    monkeypatch.setattr(vision_pretraining, "emoji", lambda: found)
    return found


def test_caption_accuracy_is_the_mean_over_all_draws_of_others():
    similarities = np.random.default_rng(0).normal(size=(6, 6))
    similarities[3, 1] = similarities[3, 3]  # a tie is no win
    for choices in (2, 3, 6):
        wins = [
            all(similarities[image, image] > similarities[image, other] for other in others)
            for image in range(6)
            for others in itertools.combinations([c for c in range(6) if c != image], choices - 1)
        ]
        assert caption_accuracy(similarities, choices=choices) == pytest.approx(np.mean(wins))


def test_topics_are_told_where_the_features_tell_them_and_not_where_they_are_noise(pictures):
    training, held_out = pictures[::2], pictures[1::2]
    colours = sorted({picture.topic for picture in pictures})
    told = [np.eye(4)[[colours.index(p.topic) for p in side]] for side in (training, held_out)]
    assert topic_accuracy(*told, training, held_out) == 1.0
    assert topic_accuracy(np.zeros((16, 4)), np.zeros((16, 4)), training, held_out) == pytest.approx(0.25)


def test_chance_tells_the_commonest_topic_of_each_source(pictures):
    stamps = [replace(picture, source="stamps") for picture in pictures]
    training = [*pictures[:10], *stamps[8:24], *stamps[8:10]]  # emoji: 8 red, 2 green; stamps: 10 green, 8 blue
    held_out = [*pictures[:6], pictures[9], stamps[0], stamps[9]]  # 6 of 7 emoji red, 1 of 2 stamps green
    assert commonest_topic_accuracy(training, held_out) == pytest.approx(7 / 9)


def test_one_picture_stands_for_a_thing(pictures):
    again = replace(pictures[0], id="stamps/again", captions={"en": "The red doors."})
    assert sorted(p.id for p in one_a_thing([*pictures, again])) == sorted(p.id for p in pictures)


def test_a_trained_tower_tells_more_than_an_untrained_one(pictures):
    options = VisionPretrainingOptions(image_size=16, steps=60, batch_size=16, learning_rate=3e-3, warmup_steps=5)
    training, held_out = pictures[::2], pictures[1::2]
    trained, untrained = (
        score_tower(
            train_pair("siglip_tiny", training, replace(options, steps=steps))[0], training, held_out, choices=4
        )
        for steps in (60, 0)
    )
    # Told by its colour alone, the right one of 4 captions is first in about half of the draws.
    assert trained.caption_accuracy > 0.4 > untrained.caption_accuracy
    assert trained.topic_accuracy > 0.9


def test_quality_stands_beside_chance_and_repeats(pictures):
    first, again = (tower_quality(NAME, steps=1, image_size=32, split="train", choices=4) for _ in range(2))
    assert first == again
    assert first.chance.caption_accuracy == 0.25
    training = vision_pretraining.tower_pictures("train")
    assert first.caption_pictures == first.topic_pictures == len(training)


@pytest.mark.parametrize("choices", [1, 17])
def test_too_many_or_too_few_choices_are_refused(pictures, choices):
    pair, _ = train_pair(NAME, pictures, VisionPretrainingOptions(image_size=32, steps=0))
    with pytest.raises(LabError, match=f"{choices} captions to choose from; expected 2 to 16"):
        score_tower(pair, pictures[::2], pictures[1::2], choices=choices)


def test_a_source_without_training_pictures_or_topics_is_named(pictures):
    stamps = [replace(picture, source="stamps") for picture in pictures]
    features = np.zeros((len(pictures), 2))
    with pytest.raises(LabError, match="no training pictures of stamps"):
        commonest_topic_accuracy(pictures, stamps)
    with pytest.raises(LabError, match="all training pictures of emoji are of topic 'red'"):
        topic_accuracy(features[:8], features, pictures[:8], pictures)
