import numpy as np
import pytest

from lab.data.video import chosen_seconds, shown_at


@pytest.mark.parametrize(
    ("duration", "rate", "expected"),
    [
        (0.0, 1.0, [0.0]),
        (0.4, 1.0, [0.0]),
        (1.0, 1.0, [0.0]),
        (1.0002, 1.0, [0.0]),  # a container's rounding is no further second
        (1.04, 1.0, [0.0, 1.0]),
        (3.0, 2.0, [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]),
        (5.0, 0.5, [0.0, 2.0, 4.0]),
    ],
)
def test_a_short_video_is_looked_at_at_every_beat_before_its_end(duration, rate, expected):
    assert chosen_seconds(duration, frames_per_second=rate, max_frames=48).tolist() == expected


@pytest.mark.parametrize("duration", [48.5, 61.0, 300.0, 7203.3])
def test_of_a_long_video_as_many_as_allowed_lie_at_equal_distances(duration):
    moments = chosen_seconds(duration, frames_per_second=1.0, max_frames=48)
    assert len(moments) == 48
    assert moments[0] == 0
    assert duration - 1 <= moments[-1] < duration
    np.testing.assert_allclose(np.diff(moments), moments[-1] / 47)


def test_one_frame_is_the_first():
    assert chosen_seconds(300.0, frames_per_second=1.0, max_frames=1).tolist() == [0.0]


def test_the_frame_shown_is_the_last_that_has_begun():
    starts = np.array([0.1, 1.0, 1.0334, 5.0])
    moments = np.array([0.0, 0.1, 0.9998, 1.02, 1.033, 4.9, 5.0, 99.0])
    assert shown_at(starts, moments).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
