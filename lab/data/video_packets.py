"""Single frames out of a video stream at the price of few others: packets are counted first, then only what is needed is decoded.

A frame can be decoded from the key frame before it on. So decoding jumps to that key frame, leaves out what no other
frame refers to, and stops at the last frame that is wanted before the next key frame that is.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import Bool, Float, Int
from numpy import ndarray

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


def decode(
    container: InputContainer, stream: VideoStream, packets: Packets, wanted: Int[ndarray, " wanted"]
) -> Iterator[tuple[int, VideoFrame]]:
    """The frames of the given numbers, each once and with its number, in any order.

    A packet that gives no frame of its own (some VP8 streams have such) gives the frame shown before it. A frame that a
    jump does not bring is looked for again from the start of the file, so jumps can cost time but no frame.
    """
    numbers = np.unique(wanted)
    missing = set(numbers.tolist())
    if packets.stamped:
        for number, frame in _jumping(container, stream, packets, numbers):
            missing.discard(number)
            yield number, frame
    if missing:
        yield from _from_the_start(container, stream, packets, sorted(missing))


def _jumping(
    container: InputContainer, stream: VideoStream, packets: Packets, numbers: Int[ndarray, " wanted"]
) -> Iterator[tuple[int, VideoFrame]]:
    by_pts = {int(packets.pts[packets.position[number]]): int(number) for number in numbers}
    for key, last in _groups(packets, packets.position[numbers]):
        try:
            container.seek(int(packets.pts[key]), stream=stream)
            for frame in _decode_group(container, stream, packets, key, last, by_pts):
                if frame.pts in by_pts and not frame.is_corrupt:
                    yield by_pts[frame.pts], frame
        except (av.error.FFmpegError, OSError):
            continue  # what is missing then, or broken, is seen from the start


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
    container: InputContainer, stream: VideoStream, packets: Packets, key: int, last: int, by_pts: dict[int, int]
) -> Iterator[VideoFrame]:
    context = stream.codec_context
    skips = context.name in _SKIPPING
    first, place = int(packets.pts[key]), None
    for packet in container.demux(stream):
        if place is None:
            if packet.pts != first:
                continue
            place = key
        if skips:
            context.skip_frame = "DEFAULT" if packet.pts in by_pts else "NONREF"
        yield from context.decode(packet)
        if place == last or not packet.size:
            break
        place += 1
    if skips:
        context.skip_frame = "DEFAULT"
    yield from context.decode(None)


def _from_the_start(
    container: InputContainer, stream: VideoStream, packets: Packets, numbers: list[int]
) -> Iterator[tuple[int, VideoFrame]]:
    """Decode everything up to the last frame that is wanted; the frame shown last stands for one that does not come."""
    begin = int(packets.pts.min()) if packets.stamped else 0
    container.seek(begin, stream=stream)
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
