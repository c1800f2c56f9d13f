"""How much is seen of the largest sample of a source, known from its name alone, before any of it is there.

Section 2 of the paper for video of the hub: frames of at most 384 x 768 pixels.
"""

from dataclasses import dataclass

from lab.data.pages.chart_tables import ChartSettings
from lab.data.pages.page_settings import PAGES
from lab.errors import choose
from lab.training.vision_example import Sight
from lab.training.vision_examples import EXAMPLES, HUB, PAGE_KIND, SCENE_SECONDS, seconds_range

CHARTS = ChartSettings()
# As `read_video` shrinks them.
VIDEO_FRAME = (384, 768)


@dataclass(frozen=True)
class Largest:
    """Frames of the largest sample, and their height and width in pixels."""

    frames: int
    frame_size: tuple[int, int]


def largest_sample(source: str, sight: Sight, *, is_video: bool, image_size: int, max_tiles: int) -> Largest:
    """The most that `open_examples` gives of a sample of that source.

    Images of the hub have any size, so they are taken to fill `max_tiles` tiles of `image_size` pixels, one below the
    other; a video is taken to be long enough for all frames that `sight` allows.

    Raises:
        LabError: an unknown source or kind of page, or a range of seconds that is none.
    """
    if HUB in source:
        if is_video:
            return Largest(sight.max_frames, VIDEO_FRAME)
        return Largest(min(1, sight.max_frames), (max_tiles * image_size, image_size))
    name, *options = source.split(":")
    choose(EXAMPLES, name, "source of pictures or video")
    if name == "pages":
        settings = choose(PAGES, options[0] if options else PAGE_KIND, "kind of page")
        return Largest(1, (settings.height[1], settings.width[1]))
    if name == "charts":
        return Largest(1, (CHARTS.height[1], CHARTS.width[1]))
    frames = 1
    if name == "scenes":
        frames = len(sight.moments(seconds_range(options[0] if options else SCENE_SECONDS)[1]))
    return Largest(frames, (sight.frame_size, sight.frame_size))
