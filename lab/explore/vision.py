"""What a model is shown of a picture or a video: AnyRes tiles and their tokens, and the frames that are chosen.

Section 2 of the paper. Axes: `views`, `frames`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ipywidgets
from jaxtyping import UInt8
from numpy import ndarray

from lab.data.sample import Image, Sample, Video
from lab.data.sources import open_samples
from lab.data.video import Sight
from lab.errors import LabError
from lab.explore.panel import Panel, Shown, slider
from lab.explore.shown import pictures, text
from lab.parts.any_resolution import Fit, image_views, token_order

Pictures = Mapping[str, UInt8[ndarray, "height width 3"]]
MAX_SHOWN = 24
HEIGHT = 288  # on the screen
FRAME_SIZE = 256
"""Pixels a side of what is drawn for the panels."""


def example_pictures(folder: Path | None = None) -> Pictures:
    """A page of small text, a chart and a still of the project's own, and the pictures of a folder."""
    found: dict[str, UInt8[ndarray, "height width 3"]] = {}
    for source in ("pages", "charts", "stills"):
        (sample,), _ = open_samples(source, "test", 1)
        (picture,) = (part for part in sample.content if isinstance(part, Image))
        found[source] = picture.read(Sight(frame_size=FRAME_SIZE))
    for path in sorted(path for path in folder.iterdir() if path.is_file()) if folder else ():
        found[path.name] = Image(path).read()
    return found


def any_resolution_panel(chosen: Pictures, *, image_size: int = 96, patch_grid: int = 6, max_tiles: int = 4) -> Panel:
    """Choose a picture and see its whole view, its tiles and how many tokens they are.

    `image_size` and `max_tiles` are where the controls begin; `patch_grid` is how many tokens a side a projector makes
    of one view.
    """
    if not chosen:
        raise LabError("there is no picture to look at; expected one or more, by name")

    def show(picture: str, image_size: int, max_tiles: int, fit: Fit, unpad: bool, newline: bool) -> list[Shown]:
        pixels = chosen[picture]
        height, width = pixels.shape[:2]
        views: Any = {"image_size": image_size, "max_tiles": max_tiles, "fit": fit}
        cut = image_views(pixels, **views)
        tiles = cut.pixels[1:].reshape(-1, cut.grid[1], *cut.pixels.shape[1:])  # row by row
        order = token_order(height, width, view_grid=(patch_grid, patch_grid), unpad=unpad, newline=newline, **views)
        return [
            f"<p>{width} x {height} pixels: {cut.grid[0]} x {cut.grid[1]} tiles of {image_size}, {len(cut.pixels)} "
            f"views, <b>{len(order)} tokens</b> ({patch_grid * patch_grid} a view)</p>",
            pictures(pixels[None], ["the picture"], height=HEIGHT),
            pictures(cut.pixels[:1], ["whole view"], height=HEIGHT),
            *(pictures(row, height=HEIGHT) for row in tiles),
        ]

    controls = {
        "picture": ipywidgets.Dropdown(options=list(chosen), description="picture"),
        "image_size": slider("view (px)", image_size, 16, 384, 16),
        "max_tiles": slider("tiles", max_tiles, 1, 12),
        "fit": ipywidgets.Dropdown(options=["pad", "stretch"], description="fit"),
        "unpad": ipywidgets.Checkbox(value=False, description="leave out padding"),
        "newline": ipywidgets.Checkbox(value=False, description="newline tokens"),
    }
    return Panel(controls, show)


def frames_panel(sample: Sample, *, max_frames: int = 8) -> Panel:
    """Choose how many frames of a sample's video are seen, at most and a second, and look at them."""
    videos = [part for part in sample.content if isinstance(part, Video)]
    if len(videos) != 1:
        raise LabError(f"sample {sample.id!r} has {len(videos)} videos to look at; expected one")
    choices = f" ({', '.join(sample.choices)})" if sample.choices else ""

    def show(frames_per_second: float, max_frames: int) -> list[Shown]:
        sight = Sight(frame_size=FRAME_SIZE, frames_per_second=frames_per_second, max_frames=max_frames)
        seen = videos[0].read(sight)
        told = f"{seen.duration_seconds:.1f} s, {len(seen.frames)} frames"
        if len(seen.frames) > MAX_SHOWN:
            told += f", of which the first {MAX_SHOWN} are shown"
        asked = f"{sample.question}{choices}: {sample.answer}" if sample.answer else sample.question
        times = [f"{seconds:.2f} s" for seconds in seen.seconds[:MAX_SHOWN]]
        return [f"<p>{text(told)}</p><p>{text(asked)}</p>", pictures(seen.frames[:MAX_SHOWN], times)]

    controls = {
        "frames_per_second": slider("a second", 1.0, 0.25, 8.0, 0.25),
        "max_frames": slider("at most", max_frames, 1, 48),
    }
    return Panel(controls, show)
