import numpy as np
import pytest
from PIL import Image

from lab.data.sample import Sample, Text, Video
from lab.errors import LabError
from lab.explore.vision import any_resolution_panel, example_pictures, frames_panel
from tests.data.films import film
from tests.vision import draw_stand_ins

WIDE = np.zeros((40, 80, 3), dtype=np.uint8)
WIDE[:, 40:] = 255


def test_views_and_tokens_follow_the_settings():
    panel = any_resolution_panel({"wide": WIDE, "square": WIDE[:, :40]}, image_size=48, patch_grid=3, max_tiles=2)
    said, picture, whole, tiles = panel.shown
    # Two tiles of 48 hold 80 x 40 at 96 x 48; the whole view is one more.
    assert "80 x 40 pixels: 1 x 2 tiles of 48, 3 views, <b>27 tokens</b>" in said
    assert [one.count("<img") for one in (picture, whole, tiles)] == [1, 1, 2]
    assert "the picture" in picture
    assert "whole view" in whole
    panel.controls["newline"].value = True
    assert "<b>30 tokens</b>" in panel.shown[0]
    panel.controls["max_tiles"].value = 1
    assert "1 views, <b>9 tokens</b>" in panel.shown[0]
    assert len(panel.shown) == 3
    panel.controls["picture"].value = "square"
    panel.controls["max_tiles"].value = 4
    assert "40 x 40 pixels: 1 x 1 tiles" in panel.shown[0]


def test_frames_follow_the_settings(tmp_path):
    # 60 frames at 10 a second.
    content = (Video(film(tmp_path / "film.mp4", 60)), Text("what <moves>"))
    panel = frames_panel(Sample(id="a", content=content, answer="it", choices=("it", "that")))
    assert "6.0 s, 6 frames" in panel.shown[0]
    assert "what &lt;moves&gt; (it, that): it" in panel.shown[0]
    assert panel.shown[1].count("<img") == 6
    assert "0.00 s" in panel.shown[1]
    assert "1.00 s" in panel.shown[1]
    panel.controls["max_frames"].value = 3
    assert "3 frames" in panel.shown[0]
    panel.controls["max_frames"].value = 48
    panel.controls["frames_per_second"].value = 8.0
    assert "48 frames, of which the first 24 are shown" in panel.shown[0]


def test_a_video_that_cannot_be_read_is_named_in_the_panel(tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"no film")
    assert (
        "film.mp4 is not a video that can be read"
        in frames_panel(Sample(id="a", content=(Video(tmp_path / "film.mp4"),))).error
    )
    with pytest.raises(LabError, match="sample 'a' has 0 videos to look at; expected one"):
        frames_panel(Sample(id="a", content=(Text("what"),)))


def test_nothing_to_look_at_is_refused():
    with pytest.raises(LabError, match="there is no picture to look at"):
        any_resolution_panel({})


def test_example_pictures_are_the_projects_own_and_those_of_a_folder(tmp_path, monkeypatch):
    draw_stand_ins(tmp_path / "things", monkeypatch)
    (tmp_path / "mine").mkdir()
    Image.fromarray(WIDE).save(tmp_path / "mine" / "wide.png")
    found = example_pictures(tmp_path / "mine")
    np.testing.assert_array_equal(found["wide.png"], WIDE)
    assert list(found) == ["pages", "charts", "stills", "wide.png"]
    (tmp_path / "mine" / "broken.png").write_bytes(b"x")
    with pytest.raises(LabError, match=r"broken\.png"):
        example_pictures(tmp_path / "mine")
