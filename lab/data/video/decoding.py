"""Single frames out of a video file at the price of few others.

A frame can be decoded from the key frame before it on. So decoding jumps to that key frame, leaves out what no other
frame refers to, and stops at the last frame that is wanted before the next key frame that is.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import Int
from numpy import ndarray

from lab.data.video.packets import Packets, open_video

T = TypeVar("T")
# Decoders that know from a packet's head whether any frame refers to it, so that leaving it out changes no other pixel;
# HEVC's mark holds for one temporal layer only.
_SKIPPING = frozenset({"h264", "mpeg1video", "mpeg2video", "mpeg4"})


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
