import numpy as np
import pytest
from PIL import Image

from lab.errors import LabError
from standins.examples import example_pictures

WIDE = np.zeros((40, 80, 3), dtype=np.uint8)


def test_pictures_are_the_projects_own_and_those_of_a_folder(tmp_path):
    Image.fromarray(WIDE).save(tmp_path / "mine.png")
    found = example_pictures(folder=tmp_path)
    np.testing.assert_array_equal(found["mine.png"], WIDE)
    assert [name.partition(":")[0] for name in found] == ["page of small text", "stamps", "emoji", "mine.png"]
    (tmp_path / "broken.png").write_bytes(b"x")
    with pytest.raises(LabError, match=r"broken\.png"):
        example_pictures(folder=tmp_path)
