"""What a video's packets tell without being decoded: how many frames, when each is shown, where decoding can begin."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from lab.errors import LabError


@dataclass(frozen=True, kw_only=True)
class Packets:
    """The packets of a stream, in the order in which they are decoded; frames are counted as they are shown.

    `position` is the packet of each frame; `starts` and `duration` are in seconds from the first frame on.
    Where time stamps are missing or meet (`stamped` is false), frames are spaced evenly and `position` is only a count.
    """

    pts: Int[ndarray, " packets"]
    is_key: Bool[ndarray, " packets"]
    position: Int[ndarray, " frames"]
    starts: Float[ndarray, " frames"]
    duration: float
    stamped: bool


def scan(container: InputContainer, stream: VideoStream) -> Packets:
    """Read the packets without decoding; what headers say of the duration, or do not say, plays no part."""
    pts: list[int | None] = []
    lengths, keys, shown = [], [], []
    for packet in container.demux(stream):
        if packet.size:
            pts.append(packet.pts)
            lengths.append(packet.duration or 0)
            keys.append(packet.is_keyframe)
            shown.append(not packet.is_discard)  # an edit list may cut frames off that others refer to
    visible = np.flatnonzero(np.array(shown, dtype=bool))
    unit = float(stream.time_base or 0)
    stamps = [pts[place] for place in visible]
    stamped = None not in pts and len(set(stamps)) == len(stamps)
    values = np.array(pts, dtype=np.int64) if stamped else np.arange(len(pts), dtype=np.int64)
    if stamped:
        position = visible[np.argsort(values[visible], kind="stable")]
        starts = (values[position] - values[position[:1]]) * unit
        ends = starts + np.array(lengths, dtype=np.int64)[position] * unit
        duration = float(ends.max(initial=0.0))
        if len(starts) > 1 and duration <= starts[-1]:  # the last packet does not say how long it is shown
            duration = float(starts[-1] + np.median(np.diff(starts)))
    else:
        step = float(np.median(lengths)) * unit or 1.0 / float(stream.guessed_rate or stream.average_rate or 25)
        position = visible
        starts = np.arange(len(visible)) * step
        duration = len(visible) * step
    return Packets(
        pts=values,
        is_key=np.array(keys, dtype=bool),
        position=position,
        starts=starts,
        duration=duration,
        stamped=stamped,
    )


def declared_seconds(stream: VideoStream) -> float:
    """How long the stream is by its header or its tags; 0 where neither says."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    parts = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))  # Matroska's
    return sum(float(part) * unit for part, unit in zip(parts.groups(), (3600, 60, 1), strict=True)) if parts else 0.0


@contextmanager
def open_video(path: Path, *, threads: int = 1) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the file and its first stream of moving pictures; the cover of a piece of music is none.

    Raises:
        LabError: no such stream, or of an unknown codec.
        FFmpegError: missing, or nothing that FFmpeg reads.
    """
    with av.open(f"file:{path}", metadata_errors="replace") as container:
        pictures = Disposition.attached_pic | Disposition.timed_thumbnails
        stream = next((stream for stream in container.streams.video if not stream.disposition & pictures), None)
        if stream is None or container.format.name == "tty":  # to FFmpeg, text is a picture of a terminal
            raise LabError(f"{path} holds no moving picture; expected a video file")
        if stream.codec_context is None:
            raise LabError(f"{path} is coded in a way that FFmpeg does not know; expected a video file")
        stream.codec_context.thread_count = threads
        stream.thread_type = "FRAME" if threads > 1 else "NONE"
        yield container, stream
