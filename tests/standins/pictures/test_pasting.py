import numpy as np
import pytest
from PIL import Image

from lab.errors import LabError
from standins.models.contrastive import cut_out, ground, paste
from standins.pictures.pictures import Picture
from tests.data.fakes import drawing

MARK = (255, 0, 0)


def picture(path) -> Picture:
    return Picture("stamps/x", path, "x", "x", "stamps")


def test_the_whole_picture_is_in_sight_in_every_paste():
    opaque = Image.new("RGBA", (40, 20), (*MARK, 255))
    for seed in range(30):
        image = paste(opaque, image_size=64, rng=np.random.default_rng(seed))
        assert (image.shape, image.dtype) == ((64, 64, 3), np.uint8)
        marked = np.abs(image.astype(int) - MARK).sum(axis=-1) < 30
        columns = np.flatnonzero(marked.any(axis=0))
        # Turned by at most 20 degrees, 40 x 20 is widest, and its width 45 to 100% of the image.
        width = columns[-1] - columns[0] + 1
        assert 0.45 * 64 - 3 <= width <= 64
        assert marked.sum() == pytest.approx(marked.sum(axis=1).max() ** 2 * 0.5, rel=0.5)


def test_one_seed_pastes_alike_and_another_otherwise():
    opaque = Image.new("RGBA", (8, 8), (*MARK, 255))
    first, again, other = (paste(opaque, image_size=32, rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_grounds_are_plain_or_shaded():
    grounds = [ground(16, np.random.default_rng(seed)) for seed in range(40)]
    plain = sum(bool((image == image[0, 0]).all()) for image in grounds)
    assert 10 <= plain <= 30


def test_a_black_drawing_seldom_stands_on_a_black_ground():
    black = Image.new("RGBA", (8, 8), (0, 0, 0, 255))
    means = [paste(black, image_size=32, rng=np.random.default_rng(seed))[0].mean() for seed in range(60)]
    alone = [ground(32, np.random.default_rng(seed))[0].mean() for seed in range(60)]
    assert sum(mean < 45 for mean in means) < 0.5 * sum(mean < 60 for mean in alone)


def test_cutouts_lose_their_empty_border_and_are_made_no_larger_than_asked(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(drawing(size=16))
    assert cut_out(picture(path), longest_side=64).size == (8, 8)
    assert cut_out(picture(path), longest_side=4).size == (4, 4)


def test_a_picture_without_a_visible_pixel_stays_whole(tmp_path):
    Image.new("RGBA", (6, 4)).save(tmp_path / "x.png")
    assert cut_out(picture(tmp_path / "x.png"), longest_side=64).size == (6, 4)


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"no picture")
    with pytest.raises(LabError, match=r"x.png is not an image that can be read"):
        cut_out(picture(path), longest_side=64)
