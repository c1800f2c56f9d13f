"""Videos as the paper takes them (section 2): 1 frame a second, at most 48, at most 384 x 768 pixels; and their sound.

Files of any container and codec that FFmpeg reads, animated pictures (GIF, PNG, WebP), and folders of single frames.
A frame of a file can be decoded from the key frame before it on. So decoding jumps to that key frame, leaves out what
no other frame refers to, and stops at the last frame that is wanted before the next key frame that is.
"""

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from PIL.Image import Image

from lab.data.images import MAX_PIXELS, as_rgba, fit_within, on_white, open_image, png, read_image
from lab.data.speech.audio import decode_audio
from lab.errors import LabError, reason

VIDEO_FRAME = (384, 768)
"""The most pixels of a frame, high and wide (section 2)."""
_MAX_THREADS = 4
# Containers round time stamps, mostly to whole milliseconds.
_ROUNDING_SECONDS = 6e-4
# What browsers show for an animation's duration that is zero or missing.
_DEFAULT_SECONDS = 0.1
_FRAME_SUFFIXES = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_MOMENTS = "moments.json"
# Decoders that know from a packet's head whether any frame refers to it, so that leaving it out changes no other pixel;
# HEVC's mark holds for one temporal layer only.
_SKIPPING = frozenset({"h264", "mpeg1video", "mpeg2video", "mpeg4"})


def chosen_seconds(duration: float, *, frames_per_second: float, max_frames: int) -> Float[ndarray, " moments"]:
    """The moments, in seconds from the start: one every 1 / `frames_per_second`, from 0 on and before `duration`.

    Where those are more than `max_frames`, so many at equal distances from the first of them to the last. Always at
    least one.

    >>> chosen_seconds(3.2, frames_per_second=1.0, max_frames=48).tolist()
    [0.0, 1.0, 2.0, 3.0]
    >>> chosen_seconds(9.5, frames_per_second=1.0, max_frames=4).tolist()
    [0.0, 3.0, 6.0, 9.0]
    """
    count = max(1, math.ceil((duration - _ROUNDING_SECONDS) * frames_per_second))
    return np.linspace(0.0, (count - 1) / frames_per_second, min(count, max_frames))


@dataclass(frozen=True, kw_only=True)
class Sight:
    """How much is seen of pictures and videos; the paper's are one frame a second, at most 48 (section 2)."""

    frame_size: int = 128
    """Pixels, height and width of a frame or still that is drawn for it."""
    frames_per_second: float = 1.0
    max_frames: int = 48
    """Of a video; 0: nothing is seen, 1: the frame in the middle."""

    def __post_init__(self) -> None:
        if self.frame_size < 8 or self.max_frames < 0 or not 0 < self.frames_per_second < math.inf:
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


@dataclass(frozen=True, kw_only=True)
class VideoFrames:
    """The chosen frames, RGB; `seconds` is when each began to be shown, counted from the file's first frame.

    A frame that is still shown at the next moment stands there again, with the same time stamp.
    """

    frames: UInt8[ndarray, "frames height width 3"]
    seconds: Float[ndarray, " frames"]
    duration_seconds: float


def read_video(path: Path, sight: Sight = PAPER_SIGHT) -> VideoFrames:
    """Read the frames shown at a sight's moments, shrunk to fit with their aspect kept, turned as the file says.

    Where an animation is transparent, white shows. A folder's frames come in the order of the numbers in their
    names, at the rate at which they are looked at unless its `moments.json` says when they begin. Memory grows with the
    chosen frames, not with the length of the video.

    Raises:
        LabError: missing, not a video, without frames, without a moving picture (sound or text only), truncated or
            broken, or of more than `MAX_PIXELS` pixels a frame.
    """
    if sight.max_frames == 0:
        return VideoFrames(frames=np.zeros((0, 1, 1, 3), dtype=np.uint8), seconds=np.zeros(0), duration_seconds=0.0)

    try:
        if path.is_dir():
            return _read_folder(path, sight)
        return _read_animation(path, sight) if _is_animation(path) else _read_stream(path, sight)
    except LabError:
        raise
    except Exception as error:  # of broken bytes PyAV raises more than FFmpeg's errors
        raise LabError(f"{path} is not a video that can be read ({reason(error)})") from error


def write_frames(video: VideoFrames, folder: Path) -> None:
    """Write a video into a folder: its frames as PNG, and in `moments.json` when each begins and the last one ends."""
    for number, frame in enumerate(video.frames):
        (folder / f"frame_{number}.png").write_bytes(png(frame))
    moments = [*video.seconds.tolist(), video.duration_seconds]
    (folder / _MOMENTS).write_text(json.dumps(moments), encoding="utf-8")


def read_sound(path: Path) -> Float[ndarray, " samples"] | None:
    """The first sound track, from its own first sample on: 16 kHz, mono, float32 in [-1, 1]; `None` if there is none.

    Folders of frames and animated pictures have none.

    Raises:
        LabError: missing, neither a video nor a sound, or a track that is truncated, broken or without samples.
    """
    try:
        if path.is_dir() or _is_animation(path):
            return None
        with av.open(f"file:{path}", metadata_errors="replace") as container:
            tracks = container.streams.audio
            return decode_audio(container, tracks[0], name=str(path)) if tracks else None
    except LabError:
        raise
    except Exception as error:  # as above
        raise LabError(f"{path} is neither a video nor a sound that can be read ({reason(error)})") from error


def _is_animation(path: Path) -> bool:
    """Whether the file begins like a GIF, WebP or PNG; any of them may hold one frame or many."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror}; expected a video file") from error
    if not head:
        raise LabError(f"{path} is empty; expected a video file")
    return head.startswith((b"GIF8", b"\x89PNG")) or (head.startswith(b"RIFF") and head.endswith(b"WEBP"))


def _read_folder(folder: Path, sight: Sight) -> VideoFrames:
    files = [path for path in folder.iterdir() if path.suffix.lower() in _FRAME_SUFFIXES and path.name[0] != "."]
    # frame_2 before frame_10
    files.sort(key=lambda path: [(int(digits or 0), text) for digits, text in re.findall(r"(\d+)|(\D+)", path.name)])
    if not files:
        raise LabError(f"{folder} holds no video frames; expected files that end in {', '.join(_FRAME_SUFFIXES)}")
    starts = np.arange(len(files) + 1) / sight.frames_per_second
    if (moments := folder / _MOMENTS).exists():
        starts = np.array(json.loads(moments.read_text(encoding="utf-8")), dtype=np.float64)
        if len(starts) != len(files) + 1:
            raise LabError(f"{folder} holds {len(files)} frames; expected {len(starts) - 1}, as its {_MOMENTS} says")
    return _shown(
        folder, sight, starts, lambda numbers: {place: _fitted(read_image(files[place])) for place in numbers}
    )


def _read_animation(path: Path, sight: Sight) -> VideoFrames:
    """Two passes, so that no more than the chosen frames are ever kept: the durations come only with the frames."""
    lengths = []
    with open_image(path) as image:
        # A PNG's picture for readers without animation is no frame.
        first = 1 if getattr(image, "default_image", False) else 0
        for number in range(first, max(getattr(image, "n_frames", 1), first + 1)):
            image.seek(number)
            image.load()
            lengths.append(float(image.info.get("duration") or 0) / 1000.0 or _DEFAULT_SECONDS)

    def read(numbers: Sequence[int]) -> dict[int, ndarray]:
        found = {}
        with open_image(path) as image:
            for number in numbers:
                image.seek(first + number)
                found[number] = _fitted(on_white(as_rgba(image, str(path))))
        return found

    return _shown(path, sight, np.cumsum([0.0, *lengths]), read)


def _fitted(picture: Image) -> UInt8[ndarray, "height width 3"]:
    height, width = fit_within(picture.height, picture.width, *VIDEO_FRAME)
    return np.asarray(picture if (width, height) == picture.size else picture.resize((width, height)))


def _shown(
    path: Path,
    sight: Sight,
    starts: Float[ndarray, " frames_and_end"],
    read: Callable[[list[int]], Mapping[int, ndarray]],
) -> VideoFrames:
    """The frames that a sight sees, of those that start at these seconds; the last is the end."""
    chosen = shown_at(starts[:-1], np.array(sight.moments(float(starts[-1]))))
    kept = read(np.unique(chosen).tolist())
    for number in chosen.tolist():
        if number not in kept:
            raise LabError(f"{path} is broken: its frame at {starts[number]:.2f} seconds cannot be decoded")
        if kept[number].shape != kept[int(chosen[0])].shape:
            raise LabError(f"{path} changes the size of its picture at {starts[number]:.2f} seconds")
    frames = np.stack([kept[number] for number in chosen])
    return VideoFrames(frames=frames, seconds=starts[chosen], duration_seconds=float(starts[-1]))


def shown_at(starts: Float[ndarray, " frames"], moments: Float[ndarray, " moments"]) -> Int[ndarray, " moments"]:
    """The index of the frame that is shown at each moment: the last one that has begun, else the first.

    `starts` ascends, in seconds.
    """
    return np.maximum(np.searchsorted(starts, moments + _ROUNDING_SECONDS, side="right") - 1, 0)


def _read_stream(path: Path, sight: Sight) -> VideoFrames:
    with _opened(path) as (container, stream):
        height, width = stream.height, stream.width
        if height * width > MAX_PIXELS:
            raise LabError(
                f"{path} is too large to be decoded safely: {width} x {height} = {width * height} pixels a frame, "
                f"at most {MAX_PIXELS} are allowed"
            )
        declared = _declared_seconds(stream)
        packets = _scan(path, container, stream)
    if packets.starts[-1] < 0.9 * declared:
        raise LabError(f"{path} is truncated: {packets.starts[-1]:.2f} of {declared:.2f} seconds are there")
    return _shown(path, sight, packets.starts, lambda numbers: _decode(path, packets, numbers))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the file and its first stream of moving pictures; the cover of a piece of music is none."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with av.open(f"file:{path}", metadata_errors="replace") as container:
        pictures = Disposition.attached_pic | Disposition.timed_thumbnails
        stream = next((stream for stream in container.streams.video if not stream.disposition & pictures), None)
        if stream is None or container.format.name == "tty":  # to FFmpeg, text is a picture of a terminal
            raise LabError(f"{path} holds no moving picture; expected a video file")
        if stream.codec_context is None:
            raise LabError(f"{path} is coded in a way that FFmpeg does not know; expected a video file")
        stream.codec_context.thread_count = min(cores + 1, _MAX_THREADS)  # one more, as FFmpeg itself takes
        stream.thread_type = "FRAME"
        yield container, stream


def _declared_seconds(stream: VideoStream) -> float:
    """How long the stream is by its header or its tags; 0 where neither says."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    parts = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))  # Matroska's
    return sum(float(part) * unit for part, unit in zip(parts.groups(), (3600, 60, 1), strict=True)) if parts else 0.0


@dataclass(frozen=True, kw_only=True)
class _Packets:
    """The packets of a stream, in the order in which they are decoded; frames are counted as they are shown.

    `position` is the packet of each frame; `starts` are in seconds from the first frame on, with the last one's end.
    Where time stamps are missing or meet (`stamped` is false), frames are spaced evenly and `position` is only a count.
    """

    pts: Int[ndarray, " packets"]
    is_key: Bool[ndarray, " packets"]
    position: Int[ndarray, " frames"]
    starts: Float[ndarray, " frames_and_end"]
    stamped: bool


def _scan(path: Path, container: InputContainer, stream: VideoStream) -> _Packets:
    """Read the packets without decoding; what headers say of the duration, or do not say, plays no part."""
    # An edit list may cut frames off that others refer to: those are not shown.
    heads = [(p.pts, p.duration or 0, p.is_keyframe, not p.is_discard) for p in container.demux(stream) if p.size]
    pts, lengths, keys, shown = zip(*heads, strict=True) if heads else ((), (), (), ())
    visible = np.flatnonzero(shown)
    if not len(visible):
        raise LabError(f"{path} holds no video frames")
    unit = float(stream.time_base or 0)
    stamped = None not in pts and len({pts[place] for place in visible}) == len(visible)
    values = np.array(pts if stamped else range(len(pts)), dtype=np.int64)
    position = visible[np.argsort(values[visible], kind="stable")]
    if stamped:
        starts = (values[position] - values[position[0]]) * unit
        end = float((starts + np.array(lengths)[position] * unit).max())
        if len(starts) > 1 and end <= starts[-1]:  # the last packet does not say how long it is shown
            end = float(starts[-1] + np.median(np.diff(starts)))
        starts = np.append(starts, end)
    else:
        step = float(np.median(lengths)) * unit or 1.0 / float(stream.guessed_rate or stream.average_rate or 25)
        starts = np.arange(len(visible) + 1) * step
    return _Packets(pts=values, is_key=np.array(keys, dtype=bool), position=position, starts=starts, stamped=stamped)


def _decode(path: Path, packets: _Packets, numbers: list[int]) -> dict[int, ndarray]:
    """Decode the frames of these numbers and convert each at once, so that no other frame outlives its decoding.

    A packet that gives no frame of its own (some VP8 streams have such) gives the frame shown before it. A frame that a
    jump does not bring is looked for again from the start of the file, so jumps can cost time but no frame; what does
    not come even then is not in the result.
    """
    wanted = {int(packets.pts[packets.position[number]]): number for number in numbers}
    found: dict[int, ndarray] = {}
    with _opened(path) as (container, stream):
        for key, last in _groups(packets, packets.position[numbers]) if packets.stamped else ():
            with suppress(av.error.FFmpegError, OSError):  # what is missing then is looked for from the start
                for frame in _decode_group(container, stream, key, last, wanted):
                    if frame.pts in wanted and not frame.is_corrupt:
                        found[wanted[frame.pts]] = _converted(frame, stream)
    missing = [(stamp, number) for stamp, number in wanted.items() if number not in found]
    if missing:
        with _opened(path) as (container, stream):
            for number, frame in _from_the_start(container, stream, missing, stamped=packets.stamped):
                found[number] = _converted(frame, stream)
    return found


def _groups(packets: _Packets, positions: Int[ndarray, " wanted"]) -> list[tuple[int, int]]:
    """By the key frame from which they decode, the packet decoded last of those wanted, both as time stamps.

    Frames that are shown before a key frame and decoded after it may refer to what lies before it.
    """
    keys = np.flatnonzero(packets.is_key)
    last: dict[int, int] = {}
    for place in np.sort(positions):
        before = keys[(keys <= place) & (packets.pts[keys] <= packets.pts[place])]
        last[int(packets.pts[before[-1] if before.size else 0])] = int(packets.pts[place])
    return list(last.items())


def _decode_group(
    container: InputContainer, stream: VideoStream, key: int, last: int, wanted: Mapping[int, int]
) -> Iterator[VideoFrame]:
    context = stream.codec_context
    container.seek(key, stream=stream)
    for packet in dropwhile(lambda packet: packet.pts != key, container.demux(stream)):
        if not packet.size:  # the end, or AVI's sign that the frame before goes on
            continue
        if context.name in _SKIPPING:
            context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        yield from context.decode(packet)
        if packet.pts == last:
            break
    context.skip_frame = "DEFAULT"
    yield from context.decode(None)


def _from_the_start(
    container: InputContainer, stream: VideoStream, awaited: list[tuple[int, int]], *, stamped: bool
) -> Iterator[tuple[int, VideoFrame]]:
    """Decode everything up to the last frame that is wanted; the frame shown last stands for one that does not come."""
    shown: VideoFrame | None = None
    for count, frame in enumerate(container.decode(stream)):
        moment = frame.pts if stamped else count
        if moment is None:
            continue
        while awaited and shown is not None and awaited[0][0] < moment:
            yield awaited.pop(0)[1], shown
        if not awaited:
            return
        shown = frame
    if shown is not None:
        for _, number in awaited:
            yield number, shown


def _converted(frame: VideoFrame, stream: VideoStream) -> UInt8[ndarray, "height width 3"]:
    """RGB at its final size: pixels made square first, then fitted, then turned."""
    side: Any = frame.side_data.get("DISPLAYMATRIX")
    # How (right, down) of the coded picture lie in the shown one: a row vector times this matrix.
    matrix = np.eye(2) if side is None else np.frombuffer(bytes(side), dtype=np.int32).reshape(3, 3)[:2, :2]
    across = abs(matrix[0, 1]) > abs(matrix[0, 0])  # a quarter turn: what was wide is high
    width = max(1, round(frame.width * float(stream.sample_aspect_ratio or 1)))
    if across:
        width, height = fit_within(width, frame.height, *VIDEO_FRAME)
    else:
        height, width = fit_within(frame.height, width, *VIDEO_FRAME)
    pixels = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA").to_ndarray()
    if across:
        pixels = pixels.transpose(1, 0, 2)
    rightwards = matrix[1, 0] if across else matrix[0, 0]
    downwards = matrix[0, 1] if across else matrix[1, 1]
    return np.ascontiguousarray(pixels[:: -1 if downwards < 0 else 1, :: -1 if rightwards < 0 else 1])
