"""At which moments a video is looked at, and which of its frames is shown at each of them."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from lab.errors import LabError

# Containers round time stamps, mostly to whole milliseconds.
ROUNDING_SECONDS = 6e-4


def chosen_seconds(duration: float, *, frames_per_second: float, max_frames: int) -> Float[ndarray, " moments"]:
    """The moments, in seconds from the start: one every 1 / `frames_per_second`, from 0 on and before `duration`.

    Where those are more than `max_frames`, so many at equal distances from the first of them to the last (the paper's
    section 2: 1 frame a second, at most 48). Always at least one.

    >>> chosen_seconds(3.2, frames_per_second=1.0, max_frames=48).tolist()
    [0.0, 1.0, 2.0, 3.0]
    >>> chosen_seconds(9.5, frames_per_second=1.0, max_frames=4).tolist()
    [0.0, 3.0, 6.0, 9.0]

    Raises:
        LabError: a negative or unknown duration, no frames asked for, or a rate that is not positive.
    """
    if not (0 <= duration < math.inf):
        raise LabError(f"a video of {duration} seconds has no moments to choose; expected 0 or more")
    if not (0 < frames_per_second < math.inf):
        raise LabError(f"frames_per_second is {frames_per_second}; expected a positive number")
    if max_frames < 1:
        raise LabError(f"max_frames is {max_frames}; expected at least 1")
    count = max(1, math.ceil((duration - ROUNDING_SECONDS) * frames_per_second))
    return np.linspace(0.0, (count - 1) / frames_per_second, min(count, max_frames))


def shown_at(starts: Float[ndarray, " frames"], moments: Float[ndarray, " moments"]) -> Int[ndarray, " moments"]:
    """The index of the frame that is shown at each moment: the last one that has begun, else the first.

    `starts` ascends, in seconds.
    """
    return np.maximum(np.searchsorted(starts, moments + ROUNDING_SECONDS, side="right") - 1, 0)


@dataclass(frozen=True, kw_only=True)
class Sight:
    """How much is seen of pictures and videos; the paper's are one frame a second, at most 48 (section 2).

    Raises:
        LabError: a number out of range.
    """

    frame_size: int = 128
    """Pixels, height and width of a frame or still that is drawn for it."""
    frames_per_second: float = 1.0
    max_frames: int = 48
    """Of a video; 0: nothing is seen, 1: the frame in the middle."""

    def __post_init__(self) -> None:
        if self.frame_size < 8 or self.max_frames < 0 or not self.frames_per_second > 0:
            raise LabError(
                f"frame_size {self.frame_size}, frames_per_second {self.frames_per_second} and max_frames "
                f"{self.max_frames}: expected at least 8, above 0 and at least 0"
            )

    def moments(self, seconds: float) -> tuple[float, ...]:
        """When a video of that length is looked at."""
        if self.max_frames == 0:
            return ()
        if self.max_frames == 1:
            return (seconds / 2,)
        chosen = chosen_seconds(seconds, frames_per_second=self.frames_per_second, max_frames=self.max_frames)
        return tuple(float(moment) for moment in chosen)


PAPER_SIGHT = Sight()
