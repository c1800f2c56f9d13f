"""Single frames out of a video file at the price of few others: its packets are counted, then only some are decoded.

A frame can be decoded from the key frame before it on. So decoding jumps to that key frame, leaves out what no other
frame refers to, and stops at the last frame that is wanted before the next key frame that is.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from lab.errors import LabError

T = TypeVar("T")
# Decoders that know from a packet's head whether any frame refers to it, so that leaving it out changes no other pixel;
# HEVC's mark holds for one temporal layer only.
_SKIPPING = frozenset({"h264", "mpeg1video", "mpeg2video", "mpeg4"})


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


def decode(
    path: Path, packets: Packets, wanted: Int[ndarray, " wanted"], convert: Callable[[VideoFrame], T], *, threads: int
) -> dict[int, T]:
    """Decode the frames of the given numbers and convert each at once, so that no other frame outlives its decoding.

    A packet that gives no frame of its own (some VP8 streams have such) gives the frame shown before it. A frame that a
    jump does not bring is looked for again from the start of the file, so jumps can cost time but no frame; what does
    not come even then is not in the result.

    Raises:
        FFmpegError: broken.
    """
    numbers = np.unique(wanted)
    groups = _groups(packets, packets.position[numbers]) if packets.stamped else []
    by_pts = {int(packets.pts[packets.position[number]]): int(number) for number in numbers}
    found: dict[int, T] = {}

    def work(todo: SimpleQueue[tuple[int, int]], frame_threads: int) -> None:
        with open_video(path, threads=frame_threads) as (container, stream), suppress(Empty):
            while True:
                key, last = todo.get_nowait()
                with suppress(av.error.FFmpegError, OSError):  # what is missing then is looked for from the start
                    for frame in _decode_group(container, stream, packets, key, last, by_pts):
                        if frame.pts in by_pts and not frame.is_corrupt:
                            found[by_pts[frame.pts]] = convert(frame)

    todo: SimpleQueue[tuple[int, int]] = SimpleQueue()
    for group in groups:
        todo.put(group)
    if len(groups) > threads > 1:  # a thread a group wastes less than threads that wait for one another in a group
        with ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(work, todo, 1) for _ in range(threads)]:
                done.result()
    elif groups:
        work(todo, threads)
    missing = sorted(set(numbers.tolist()) - set(found))
    if missing:
        with open_video(path, threads=threads) as (container, stream):
            for number, frame in _from_the_start(container, stream, packets, missing):
                found[number] = convert(frame)
    return found


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


def _groups(packets: Packets, positions: Int[ndarray, " wanted"]) -> list[tuple[int, int]]:
    """By the key frame from which they decode, the last packet that is wanted, both as places in decoding order.

    Frames that are shown before a key frame and decoded after it may refer to what lies before it.
    """
    keys = np.flatnonzero(packets.is_key)
    last: dict[int, int] = {}
    for place in np.sort(positions).tolist():
        before = keys[(keys <= place) & (packets.pts[keys] <= packets.pts[place])]
        last[int(before[-1]) if before.size else 0] = place
    return sorted(last.items())


def _decode_group(
    container: InputContainer, stream: VideoStream, packets: Packets, key: int, last: int, by_pts: Mapping[int, int]
) -> Iterator[VideoFrame]:
    context = stream.codec_context
    skips = context.name in _SKIPPING
    first, place = int(packets.pts[key]), None
    container.seek(first, stream=stream)
    for packet in container.demux(stream):
        if not packet.size:  # the end, or AVI's sign that the frame before goes on
            continue
        if place is None:
            if packet.pts != first:
                continue
            place = key
        if skips:
            context.skip_frame = "DEFAULT" if packet.pts in by_pts else "NONREF"
        yield from context.decode(packet)
        if place == last:
            break
        place += 1
    if skips:
        context.skip_frame = "DEFAULT"
    yield from context.decode(None)


def _from_the_start(
    container: InputContainer, stream: VideoStream, packets: Packets, numbers: list[int]
) -> Iterator[tuple[int, VideoFrame]]:
    """Decode everything up to the last frame that is wanted; the frame shown last stands for one that does not come."""
    awaited = deque((int(packets.pts[packets.position[number]]), number) for number in numbers)
    shown: VideoFrame | None = None
    for count, frame in enumerate(container.decode(stream)):
        moment = frame.pts if packets.stamped else count
        if moment is None:
            continue
        while awaited and shown is not None and awaited[0][0] < moment:
            yield awaited.popleft()[1], shown
        if not awaited:
            return
        shown = frame
    while awaited and shown is not None:
        yield awaited.popleft()[1], shown
