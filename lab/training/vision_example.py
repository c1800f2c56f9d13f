"""One question about a picture or a video, and how much of the video is looked at."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import UInt8
from numpy import ndarray

from lab.data.video.moments import chosen_seconds
from lab.errors import LabError


@dataclass(frozen=True, kw_only=True)
class VisionExample:
    """One question, its choices where it has some, and how to see what it is about.

    Examples of one `group` are no independent witnesses: twins of a scene, questions of a page.
    """

    id: str
    group: str
    kind: str
    question: str
    choices: tuple[str, ...]
    answer: str
    see: Callable[[], tuple[UInt8[ndarray, "frames height width 3"], tuple[float, ...]]]


@dataclass(frozen=True, kw_only=True)
class Sight:
    """How much is seen of a source.

    Raises:
        LabError: a number out of range.
    """

    frame_size: int = 128
    """Pixels, height and width of a rendered frame or still."""
    frames_per_second: float = 1.0
    max_frames: int = 8
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
