import numpy as np
import pytest
from PIL import Image

from lab.errors import LabError
from standins.drawn import Question
from standins.scenes.casts import cast_of
from standins.scenes.questions import video_scene
from standins.scenes.scene import PATTERNS, Actor, Background, Key, Scene, frame, frames
from tests.standins.scene_pictures import picture, stand_ins

BLUE, WHITE, RED = (0, 0, 255), (255, 255, 255), (255, 0, 0)


def square(folder, colour=RED, border=0):
    """A cut-out of 20 pixels in one colour, with a transparent border."""
    image = Image.new("RGBA", (20 + 2 * border, 20 + 2 * border))
    image.paste((*colour, 255), (border, border, 20 + border, 20 + border))
    path = folder / f"{colour}-{border}.png"
    image.save(path)
    return picture("square", "stamps/animals", path)


def scene_of(*actors, milliseconds=1000, background=None):
    question = Question("turns", "?", ("yes", "no"), "no")
    return Scene("s", "train", milliseconds, background or Background("plain", BLUE, WHITE), actors, question)


def painted(image, colour):
    """The rows and columns (first, last + 1) that hold a colour."""
    rows, columns = np.nonzero((image == np.array(colour)).all(axis=-1))
    return (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1)


@pytest.mark.parametrize("border", [0, 7])
def test_a_thing_stands_where_its_key_says_whatever_its_border(tmp_path, border):
    actor = Actor(square(tmp_path, border=border), "animal", (Key(0, 500, 250, 200),))
    image = frame(scene_of(actor), 0.0, 100)
    assert image.shape == (100, 100, 3)
    assert image.dtype == np.uint8
    assert painted(image, RED) == (15, 35, 40, 60)
    assert tuple(image[0, 0]) == BLUE


def test_the_same_scene_is_drawn_at_any_size(tmp_path):
    actor = Actor(square(tmp_path), "animal", (Key(0, 500, 250, 200),))
    assert painted(frame(scene_of(actor), 0.0, 300), RED) == (45, 105, 120, 180)


def test_a_thing_moves_evenly_and_wraps_round(tmp_path):
    actor = Actor(square(tmp_path), "animal", (Key(0, 500, 500, 200), Key(1000, 1700, 500, 200)))
    scene = scene_of(actor)
    assert painted(frame(scene, 0.25, 100), RED) == (40, 60, 70, 90)
    assert (frame(scene, 0.5, 100) == np.array(BLUE)).all()  # wholly out
    assert painted(frame(scene, 0.6, 100), RED) == (40, 60, 0, 12)
    assert painted(frame(scene, 1.0, 100), RED) == (40, 60, 40, 60)


def test_later_actors_hide_earlier_ones_and_unseen_ones_are_not_drawn(tmp_path):
    green = (0, 255, 0)
    behind = Actor(square(tmp_path), "animal", (Key(0, 500, 500, 200),))
    before = Actor(square(tmp_path, green), "food", (Key(0, 500, 500, 400), Key(600, 500, 500, 400, visible=False)))
    scene = scene_of(behind, before)
    assert not (frame(scene, 0.0, 100) == np.array(RED)).all(axis=-1).any()
    assert painted(frame(scene, 0.6, 100), RED) == (40, 60, 40, 60)


def test_a_turned_thing_is_turned_anticlockwise(tmp_path):
    image = Image.new("RGBA", (20, 20), (*RED, 255))
    image.paste((0, 255, 0, 255), (10, 0, 20, 20))  # the right half is green
    image.save(tmp_path / "halves.png")
    actor = Actor(picture("halves", "stamps/animals", tmp_path / "halves.png"), "animal", (Key(0, 500, 500, 200, 90),))
    assert painted(frame(scene_of(actor), 0.0, 100), (0, 255, 0)) == (40, 50, 40, 60)  # now the upper one


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_shows_its_colours(pattern):
    image = frame(scene_of(background=Background(pattern, BLUE, WHITE, 250)), 0.0, 96)
    colours = {tuple(pixel) for pixel in image.reshape(-1, 3).tolist()}
    if pattern == "gradient":
        assert tuple(image[0, 0]) == BLUE
        assert image[-1, 0, 0] > 240
        assert (np.diff(image[:, 0, 0].astype(int)) >= 0).all()
    else:
        assert colours == ({BLUE} if pattern == "plain" else {BLUE, WHITE})


def test_frames_of_twins_differ_only_while_something_happens(tmp_path):
    cast = cast_of(stand_ins(tmp_path), "train")
    one, other = (video_scene(i, seed=2, split="train", kinds=("direction",), cast=cast) for i in (0, 1))
    ends = [0.0, one.seconds]
    assert (frames(one, np.array(ends), 64) == frames(other, np.array(ends), 64)).all()
    times = np.arange(0, one.seconds, 0.5)
    assert (frames(one, times, 64) != frames(other, times, 64)).any()


@pytest.mark.parametrize(
    ("seconds", "size", "message"),
    [
        (-0.1, 64, r"scene s lasts 1.0 seconds and has no moment -0.1"),
        (1.1, 64, r"no moment 1.1"),
        (0.0, 7, r"a frame of 7 pixels is too small"),
    ],
)
def test_moments_and_sizes_that_cannot_be_drawn_are_refused(seconds, size, message):
    with pytest.raises(LabError, match=message):
        frame(scene_of(), seconds, size)


def test_pictures_and_patterns_that_cannot_be_drawn_are_named(tmp_path):
    with pytest.raises(LabError, match=r"unknown background pattern 'dot' \(did you mean 'dots'\?\)"):
        frame(scene_of(background=Background("dot", BLUE, WHITE)), 0.0, 64)
    missing = picture("x", "stamps/animals", tmp_path / "missing.png")
    with pytest.raises(LabError, match=r"missing.png"):
        frame(scene_of(Actor(missing, "animal", (Key(0, 500, 500, 200),))), 0.0, 64)
    Image.new("RGBA", (9, 9)).save(tmp_path / "empty.png")
    empty = picture("x", "stamps/animals", tmp_path / "empty.png")
    with pytest.raises(LabError, match=r"empty.png is wholly transparent"):
        frame(scene_of(Actor(empty, "animal", (Key(0, 500, 500, 200),))), 0.0, 64)
