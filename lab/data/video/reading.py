"""Videos as the paper takes them (section 2): 1 frame a second, at most 48, at most 384 x 768 pixels; and their sound.

Files of any container and codec that FFmpeg reads, animated pictures, and folders of single frames.
"""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from jaxtyping import Float, UInt8
from numpy import ndarray

from lab.data.images import MAX_PIXELS, WHITE, Colour, fit_within
from lab.data.speech.audio import decode_audio
from lab.data.video.animations import Choose, Frames, is_animation, read_animation, read_folder, stacked
from lab.data.video.decoding import decode
from lab.data.video.moments import chosen_seconds, shown_at
from lab.data.video.packets import declared_seconds, open_video, scan
from lab.errors import LabError

__all__ = ["VideoFrames", "chosen_seconds", "read_sound", "read_video"]

MAX_THREADS = 4
VIDEO_FRAME = (384, 768)
"""The most pixels of a frame, high and wide (section 2)."""


@dataclass(frozen=True, kw_only=True)
class VideoFrames:
    """The chosen frames, RGB; `seconds` is when each began to be shown, counted from the file's first frame.

    A frame that is still shown at the next moment stands there again, with the same time stamp.
    """

    frames: UInt8[ndarray, "frames height width 3"]
    seconds: Float[ndarray, " frames"]
    duration_seconds: float


def read_video(
    source: Path,
    *,
    frames_per_second: float = 1.0,
    max_frames: int = 48,
    max_height: int = VIDEO_FRAME[0],
    max_width: int = VIDEO_FRAME[1],
    background: Colour = WHITE,
    folder_frames_per_second: float | None = None,
    threads: int = 0,
) -> VideoFrames:
    """Read the frames shown at `chosen_seconds`, shrunk to fit with their aspect kept, turned as the file says.

    `background` shows where an animated picture is transparent. A folder of frames has `folder_frames_per_second`, or,
    where that is `None`, as many as are asked for. `threads` decode (0: cores + 1, at most 4). Memory grows with the
    chosen frames, never with the length of the video.

    Raises:
        LabError: missing, not a video, without frames, without a moving picture (sound or text only), truncated or
            broken, of more than `MAX_PIXELS` pixels a frame, or an option out of its range.
    """
    choose = partial(chosen_seconds, frames_per_second=frames_per_second, max_frames=max_frames)
    choose(0.0)
    fit_within(1, 1, max_height, max_width)
    path = Path(source)
    size = {"max_height": max_height, "max_width": max_width}
    if path.is_dir():
        rate = frames_per_second if folder_frames_per_second is None else folder_frames_per_second
        return _video(*read_folder(path, choose, rate=rate, background=background, **size))
    if _begins_like_an_animation(path):
        return _video(*read_animation(path, choose, background=background, **size))
    try:
        return _video(*_read_stream(path, choose, threads=threads or _default_threads(), **size))
    except (av.error.FFmpegError, OSError) as error:
        raise LabError(f"{path} is not a video that can be read ({error.strerror or error})") from error


def _video(frames: Frames, seconds: Float[ndarray, " frames"], duration: float) -> VideoFrames:
    return VideoFrames(frames=frames, seconds=seconds, duration_seconds=duration)


def _begins_like_an_animation(path: Path) -> bool:
    try:
        if not path.stat().st_size:
            raise LabError(f"{path} is empty; expected a video file")
        return is_animation(path)
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror}; expected a video file") from error


def _read_stream(
    path: Path, choose: Choose, *, max_height: int, max_width: int, threads: int
) -> tuple[Frames, Float[ndarray, " frames"], float]:
    with open_video(path) as (container, stream):
        height, width = stream.height, stream.width
        if height * width > MAX_PIXELS:
            raise LabError(
                f"{path} is too large to be decoded safely: {width} x {height} = {width * height} pixels a frame, "
                f"at most {MAX_PIXELS} are allowed"
            )
        pixel_aspect = float(stream.sample_aspect_ratio or 1)
        declared = declared_seconds(stream)
        packets = scan(container, stream)
    if not len(packets.starts):
        raise LabError(f"{path} holds no video frames")
    if packets.duration < 0.9 * declared:
        raise LabError(f"{path} is truncated: {packets.duration:.2f} of {declared:.2f} seconds are there")
    chosen = shown_at(packets.starts, choose(packets.duration))
    convert = partial(_convert, pixel_aspect=pixel_aspect, max_height=max_height, max_width=max_width)
    found = decode(path, packets, chosen, convert, threads=threads)
    for number in chosen.tolist():
        if number not in found:
            raise LabError(f"{path} is broken: its frame at {packets.starts[number]:.2f} seconds cannot be decoded")
        if found[number].shape != found[int(chosen[0])].shape:
            raise LabError(f"{path} changes the size of its picture at {packets.starts[number]:.2f} seconds")
    return stacked(found, chosen), packets.starts[chosen], packets.duration


def _convert(
    frame: VideoFrame, *, pixel_aspect: float, max_height: int, max_width: int
) -> UInt8[ndarray, "height width 3"]:
    """RGB at its final size: pixels made square first, then fitted, then turned."""
    matrix = _display_matrix(frame)
    across = abs(matrix[0, 1]) > abs(matrix[0, 0])  # a quarter turn: what was wide is high
    width = max(1, round(frame.width * pixel_aspect))
    if across:
        width, height = fit_within(width, frame.height, max_height, max_width)
    else:
        height, width = fit_within(frame.height, width, max_height, max_width)
    pixels = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA").to_ndarray()
    if across:
        pixels = pixels.transpose(1, 0, 2)
    rightwards = matrix[1, 0] if across else matrix[0, 0]
    downwards = matrix[0, 1] if across else matrix[1, 1]
    return np.ascontiguousarray(pixels[:: -1 if downwards < 0 else 1, :: -1 if rightwards < 0 else 1])


def _display_matrix(frame: VideoFrame) -> ndarray:
    """How (right, down) of the coded picture lie in the shown one: a row vector times this 2 x 2 matrix."""
    side: Any = frame.side_data.get("DISPLAYMATRIX")
    return np.eye(2) if side is None else np.frombuffer(bytes(side), dtype=np.int32).reshape(3, 3)[:2, :2]


def _default_threads() -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available + 1, MAX_THREADS)  # one more, as FFmpeg itself takes


def read_sound(path: Path) -> Float[ndarray, " samples"] | None:
    """The first sound track, from its own first sample on: 16 kHz, mono, float32 in [-1, 1]; `None` if there is none.

    Folders of frames and animated pictures have none.

    Raises:
        LabError: missing, neither a video nor a sound, or a track that is truncated, broken or without samples.
    """
    path = Path(path)
    if path.is_dir() or _begins_like_an_animation(path):
        return None
    try:
        with av.open(f"file:{path}", metadata_errors="replace") as container:
            return (
                decode_audio(container, container.streams.audio[0], name=str(path)) if container.streams.audio else None
            )
    except (av.error.FFmpegError, OSError) as error:
        raise LabError(f"{path} is neither a video nor a sound that can be read ({error.strerror or error})") from error
