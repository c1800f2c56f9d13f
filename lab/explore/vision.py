"""What a model is shown of a picture or a video: AnyRes tiles and their tokens, and the frames that are chosen.

Section 2 of the paper. Axes: `views`, `frames`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ipywidgets
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from lab.data.sample import Image, Sample, Video
from lab.data.sources import open_samples
from lab.data.video import Sight
from lab.errors import LabError
from lab.explore.html import text
from lab.explore.panel import Panel, Shown, slider
from lab.parts.any_resolution import Fit, best_grid, image_views, num_tokens

Pictures = Mapping[str, UInt8[ndarray, "height width 3"]]
MAX_SHOWN = 24
FRAME_SIZE = 256
"""Pixels a side of what is drawn for the panels."""


def example_pictures(folder: Path | None = None) -> Pictures:
    """A page of small text, a chart and a still of the project's own, and the pictures of a folder.

    Raises:
        LabError: a file of the folder that cannot be read as a picture.
    """
    found: dict[str, UInt8[ndarray, "height width 3"]] = {}
    for source in ("pages", "charts", "stills"):
        (sample,), _ = open_samples(source, "test", 1)
        (picture,) = (part for part in sample.content if isinstance(part, Image))
        found[source] = picture.read(Sight(frame_size=FRAME_SIZE))
    for path in sorted(path for path in folder.iterdir() if path.is_file()) if folder else ():
        found[path.name] = Image(path).read()
    return found


def any_resolution_panel(pictures: Pictures, *, image_size: int = 96, patch_grid: int = 6, max_tiles: int = 4) -> Panel:
    """Choose a picture and see its whole view, its tiles and how many tokens they are.

    Args:
        pictures: RGB, by name.
        image_size: pixels a side of a view to begin with.
        patch_grid: tokens a side that a projector makes of one view.
        max_tiles: to begin with.

    Raises:
        LabError: no pictures.
    """
    if not pictures:
        raise LabError("there is no picture to look at; expected one or more, by name")

    def show(picture: str, image_size: int, max_tiles: int, fit: Fit, unpad: bool, newline: bool) -> list[Shown]:
        pixels = pictures[picture]
        height, width = pixels.shape[:2]
        cut = image_views(pixels, image_size=image_size, max_tiles=max_tiles, fit=fit)
        tokens = num_tokens(
            height,
            width,
            image_size=image_size,
            max_tiles=max_tiles,
            view_grid=(patch_grid, patch_grid),
            fit=fit,
            unpad=unpad,
            newline=newline,
        )
        return [
            f"<p>{width} x {height} pixels: {cut.grid[0]} x {cut.grid[1]} tiles of {image_size}, {len(cut.pixels)} "
            f"views, <b>{tokens} tokens</b> ({patch_grid * patch_grid} a view)</p>",
            _draw_views(pixels, cut.pixels, best_grid(height, width, image_size=image_size, max_tiles=max_tiles)),
        ]

    return Panel(
        {
            "picture": ipywidgets.Dropdown(options=list(pictures), description="picture"),
            "image_size": slider("view (px)", image_size, 16, 384, 16),
            "max_tiles": slider("tiles", max_tiles, 1, 12),
            "fit": ipywidgets.Dropdown(options=["pad", "stretch"], description="fit"),
            "unpad": ipywidgets.Checkbox(value=False, description="leave out padding"),
            "newline": ipywidgets.Checkbox(value=False, description="newline tokens"),
        },
        show,
    )


def _draw_views(
    pixels: UInt8[ndarray, "height width 3"], views: UInt8[ndarray, "views size size 3"], grid: tuple[int, int]
) -> Figure:
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    panes: Any = figure.subfigures(1, 2, width_ratios=(2, grid[1] / grid[0] if len(views) > 1 else 0.5))
    left, right = panes
    shown, whole = left.subplots(1, 2)
    _picture(shown, pixels, "the picture")
    _picture(whole, views[0], "whole view")
    if len(views) > 1:
        tiles = right.subplots(*grid, squeeze=False)
        for number, (axes, tile) in enumerate(zip(tiles.flat, views[1:], strict=True), 1):
            _picture(axes, tile, f"tile {number}")
    return figure


def _picture(axes: Axes, pixels: UInt8[ndarray, "height width 3"], title: str) -> None:
    axes.imshow(pixels, interpolation="nearest")
    axes.set_title(title, fontsize="small")
    axes.grid(False)
    axes.set(xticks=[], yticks=[])


def frames_panel(sample: Sample, *, max_frames: int = 8) -> Panel:
    """Choose how many frames of a sample's video are seen, and how often, and look at those that are chosen.

    Raises:
        LabError: the sample has no video, or several.
    """
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
        return [f"<p>{text(told)}</p><p>{text(asked)}</p>", _draw_frames(seen.frames, seen.seconds)]

    return Panel(
        {
            "frames_per_second": slider("a second", 1.0, 0.25, 8.0, 0.25),
            "max_frames": slider("at most", max_frames, 1, 48),
        },
        show,
    )


def _draw_frames(frames: UInt8[ndarray, "frames height width 3"], seconds: ndarray) -> Figure:
    shown = min(len(frames), MAX_SHOWN)
    columns = min(shown, 8)
    rows = -(-shown // columns)
    figure = Figure(figsize=(9.5, 1.35 * rows + 0.2), layout="constrained")
    for number, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        if number < shown:
            _picture(axes, frames[number], f"{seconds[number]:.2f} s")
        else:
            axes.set_axis_off()
    return figure
