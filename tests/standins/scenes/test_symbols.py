import numpy as np

from standins.drawn import Question
from standins.models.world_pretraining import NUM_SYMBOLS, scene_symbols
from standins.scenes.casts import THING_CLASSES, cast_of
from standins.scenes.scene import Actor, Background, Key, Scene
from tests.standins.scene_pictures import stand_ins

CAST = cast_of(stand_ins(), "train")
ANIMAL, FOOD = (list(THING_CLASSES).index(word) for word in ("animal", "food"))


def scene(*actors: Actor, milliseconds: int = 4000) -> Scene:
    question = Question("moves", "What moves?", ("animal", "food"), "animal")
    return Scene("s", "train", milliseconds, Background("plain", (0, 0, 0), (0, 0, 0)), actors, question)


def thing(word: str, *keys: Key) -> Actor:
    return Actor(CAST[word][0], word, keys)


def test_a_thing_that_fills_a_cell_is_told_there_alone() -> None:
    told = scene_symbols(scene(thing("animal", Key(0, 750, 250, 500))), np.zeros(1, np.float32), 2)
    assert told.shape == (1, 2, 2, NUM_SYMBOLS)
    assert np.allclose(told[0, ..., ANIMAL], [[0, 1], [0, 0]])
    assert np.allclose(told[0, ..., [i for i in range(len(THING_CLASSES)) if i != ANIMAL]], 0)


def test_shares_add_up_to_the_area_of_what_is_seen() -> None:
    told = scene_symbols(scene(thing("food", Key(0, 430, 610, 300))), np.zeros(1, np.float32), 3)
    assert np.isclose(told[0, ..., FOOD].sum() / 9, 0.3**2, atol=1e-6)


def test_a_thing_that_left_the_frame_or_is_invisible_is_not_told() -> None:
    gone = thing("food", Key(0, 500, 500, 200), Key(2000, 500, 500, 200, visible=False))
    told = scene_symbols(scene(gone), np.array([0.0, 3.0], np.float32), 3)
    assert told[0].any()
    assert not told[1].any()


def test_a_later_thing_hides_an_earlier_one() -> None:
    both = scene(thing("animal", Key(0, 500, 500, 400)), thing("food", Key(0, 500, 500, 1000)))
    told = scene_symbols(both, np.zeros(1, np.float32), 1)
    assert np.isclose(told[0, 0, 0, FOOD], 1)
    assert np.isclose(told[0, 0, 0, ANIMAL], 0)


def test_angle_and_size_are_told_by_the_share_that_is_covered() -> None:
    turned = scene(thing("animal", Key(0, 500, 500, 300, angle=90)))
    told = scene_symbols(turned, np.zeros(1, np.float32), 1)
    sine, cosine, size = told[0, 0, 0, len(THING_CLASSES) : len(THING_CLASSES) + 3]
    assert np.allclose([sine, cosine, size], [0.09, 0, 0.09], atol=1e-6)


def test_where_a_thing_moves_its_centre_is_told_at_each_moment() -> None:
    moving = scene(thing("animal", Key(0, 250, 500, 200), Key(4000, 750, 500, 200)))
    told = scene_symbols(moving, np.array([0.0, 2.0, 4.0], np.float32), 1)
    off = told[:, 0, 0, -2] / told[:, 0, 0, ANIMAL]
    assert np.allclose(off, [-0.5, 0.0, 0.5], atol=1e-6)
