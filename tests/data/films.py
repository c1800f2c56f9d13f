"""Small videos made on the spot, whose frames tell by their brightness which they are."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

STEP = 8  # of brightness, from one frame to the next; far more than a codec blurs


def brightness(number: int) -> int:
    """Of a whole frame; the same again every 30 frames."""
    return 10 + STEP * (number % 30)


def number_of(frame: np.ndarray) -> int:
    """Which frame that is, of the first 30."""
    return round((float(frame.mean()) - 10) / STEP)


def film(
    path: Path,
    num_frames: int = 30,
    *,
    codec: str = "libx264",
    container: str | None = None,
    rate: int = 10,
    height: int = 32,
    width: int = 48,
    key_distance: int = 12,
    stamps: Sequence[int] | None = None,
    rotation: int | None = None,
    mirrored: bool = False,
    pixel_aspect: Fraction | None = None,
    picture: np.ndarray | None = None,
    sound: np.ndarray | None = None,
    sound_rate: int = 22050,
    sound_layout: str = "mono",
    options: dict[str, str] | None = None,
) -> Path:
    """Write a video; `stamps` are the frames' times in milliseconds, `picture` one picture for all frames.

    Every channel of the `sound_layout` has the same sound.
    """
    channels = av.AudioLayout(sound_layout).nb_channels
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = key_distance
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation is not None or mirrored:
            stream.set_display_rotation(rotation or 0, hflip=mirrored)
        track = (
            None
            if sound is None
            else output.add_stream("aac" if channels <= 8 else "pcm_f32le", rate=sound_rate, layout=sound_layout)
        )
        for number in range(num_frames):
            pixels = np.full((height, width, 3), brightness(number), np.uint8) if picture is None else picture
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if stamps is not None:
                frame.pts, frame.time_base = stamps[number], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if track is not None and sound is not None:
            for begin in range(0, len(sound), 1024):
                samples = sound[begin : begin + 1024].repeat(channels)[None]
                block = av.AudioFrame.from_ndarray(samples, format="flt", layout=sound_layout)
                block.sample_rate, block.pts, block.time_base = sound_rate, begin, Fraction(1, sound_rate)
                output.mux(track.encode(block))
            output.mux(track.encode(None))
    return path


def animation(path: Path, milliseconds: Sequence[int], height: int = 16, width: int = 24, **options: object) -> Path:
    """Write an animated picture by Pillow, a frame for each duration."""
    frames = [Image.new("RGB", (width, height), (brightness(number),) * 3) for number in range(len(milliseconds))]
    if path.suffix == ".webp":
        options = {"lossless": True, **options}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=list(milliseconds), **options)
    return path
