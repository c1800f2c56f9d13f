"""Pictures that move: animated WebP, GIF and PNG, and folders of single frames, read by Pillow one frame at a time."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from PIL import Image

from lab.data.images import Colour, as_rgba, broken, on_background, open_image, read_image, shrink
from lab.data.video.moments import shown_at
from lab.errors import LabError

FRAME_SUFFIXES = frozenset({".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
# What browsers show for a duration that is zero or missing.
DEFAULT_SECONDS = 0.1

Choose = Callable[[float], Float[ndarray, " moments"]]
Frames = UInt8[ndarray, "frames height width 3"]


def is_animation(path: Path) -> bool:
    """Whether the file begins like a GIF, WebP or PNG; any of them may hold one frame or many."""
    with path.open("rb") as file:
        head = file.read(12)
    return head.startswith((b"GIF8", b"\x89PNG")) or (head.startswith(b"RIFF") and head.endswith(b"WEBP"))


def read_animation(
    path: Path, choose: Choose, *, max_height: int, max_width: int, background: Colour
) -> tuple[Frames, Float[ndarray, " frames"], float]:
    """The frames shown at the moments that `choose` picks from the duration, when each begins, and the duration.

    Seconds from the first frame on. What is transparent lies on `background`. Two passes, so that no more than the
    chosen frames are ever kept: the durations come only with the frames.

    Raises:
        LabError: truncated or broken, or too large.
    """
    with _opened(path) as image:
        lengths = list(_lengths(image))
    starts = np.concatenate([[0.0], np.cumsum(lengths)])
    duration = float(starts[-1])
    chosen = shown_at(starts[:-1], choose(duration))
    first = 1 if getattr(image, "default_image", False) else 0
    kept: dict[int, ndarray] = {}
    with _opened(path) as image:
        for number in sorted(set(chosen.tolist())):
            image.seek(first + number)
            picture = on_background(as_rgba(image, str(path)), background)
            kept[number] = np.asarray(shrink(picture, max_height, max_width))
    return stacked(kept, chosen), starts[chosen], duration


def stacked(kept: dict[int, UInt8[ndarray, "height width 3"]], chosen: Int[ndarray, " frames"]) -> Frames:
    """The chosen frames in their order, some perhaps repeated; `kept` is emptied on the way, not held beside them."""
    numbers = chosen.tolist()
    frames = np.empty((len(numbers), *kept[numbers[0]].shape), np.uint8)
    for place, number in enumerate(numbers):
        last = place + 1 == len(numbers) or numbers[place + 1] != number
        frames[place] = kept.pop(number) if last else kept[number]
    return frames


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    with open_image(path, name=str(path)) as image:
        try:
            yield image
        except LabError:
            raise
        except Exception as error:
            raise broken(str(path), error) from error


def _lengths(image: Image.Image) -> Iterator[float]:
    """Seconds that each frame is shown; a PNG's picture for readers without animation is no frame."""
    first = 1 if getattr(image, "default_image", False) else 0
    for number in range(first, max(getattr(image, "n_frames", 1), first + 1)):
        image.seek(number)
        image.load()
        yield float(image.info.get("duration") or 0) / 1000.0 or DEFAULT_SECONDS


def read_folder(
    folder: Path, choose: Choose, *, rate: float, max_height: int, max_width: int, background: Colour
) -> tuple[Frames, Float[ndarray, " frames"], float]:
    """As `read_animation`, of a folder's image files: one frame each, `rate` a second, `frame_2` before `frame_10`.

    Raises:
        LabError: no image file there, a rate that is not positive, one that cannot be read, or frames of unlike sizes.
    """
    if not rate > 0:
        raise LabError(f"the frames in {folder} come at {rate} a second; expected a positive number")
    files = [path for path in folder.iterdir() if path.suffix.lower() in FRAME_SUFFIXES and path.name[0] != "."]
    files.sort(key=lambda path: [(int(digits or 0), text) for digits, text in _PARTS.findall(path.name)])
    if not files:
        raise LabError(
            f"{folder} holds no video frames; expected files that end in {', '.join(sorted(FRAME_SUFFIXES))}"
        )
    starts = np.arange(len(files)) / rate
    duration = len(files) / rate
    chosen = shown_at(starts, choose(duration))
    size: tuple[int, int] | None = None
    kept: dict[int, ndarray] = {}
    for number in sorted(set(chosen.tolist())):
        picture = read_image(files[number], background=background)
        size = size or picture.size
        if picture.size != size:
            raise LabError(
                f"{files[number]} has {picture.width} x {picture.height} pixels, "
                f"expected {size[0]} x {size[1]} as the frames before it"
            )
        kept[number] = np.asarray(shrink(picture, max_height, max_width))
    return stacked(kept, chosen), starts[chosen], duration


_PARTS = re.compile(r"(\d+)|(\D+)")
