"""The little HTML that objects and panels are shown in: tables, facts, strips of pictures, curves; all text escaped."""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

_LEFT = "style='text-align:left;vertical-align:top;white-space:pre-wrap'"
_WIDTH, _HEIGHT = 240, 60  # of a curve, in pixels
# A longer strip of frames tells no more, and every frame is a picture in the notebook.
MAX_PICTURES = 8
_PICTURE_HEIGHT = 96


class Markup(str):
    """HTML already, such as a picture in a table's cell."""


def text(value: object) -> str:
    """A value as HTML that says just that; `Markup` as it is."""
    return str(value) if isinstance(value, Markup) else html.escape(str(value))


def table(rows: Iterable[Mapping[str, object]]) -> str:
    """Rows as an HTML table whose columns are the first row's keys; cells are text, and may break lines."""
    listed = list(rows)
    if not listed:
        return "<p>none</p>"
    head = "".join(f"<th style='text-align:left'>{text(name)}</th>" for name in listed[0])
    body = "".join(
        "<tr>" + "".join(f"<td {_LEFT}>{text(value)}</td>" for value in row.values()) + "</tr>" for row in listed
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def facts(title: str, values: Mapping[str, object]) -> str:
    """A title, and one line a fact."""
    lines = "".join(
        f"<tr><th style='text-align:left'>{text(name)}</th><td {_LEFT}>{text(value)}</td></tr>"
        for name, value in values.items()
    )
    return f"<p><b>{text(title)}</b></p><table><tbody>{lines}</tbody></table>"


def curve(values: Sequence[float], label: str) -> str:
    """A curve without axes, with its first and last value; a mean stands for steps that share a pixel."""
    if not values:
        return f"<p>{text(label)}: none</p>"
    size = -(-len(values) // _WIDTH)
    groups = [values[at : at + size] for at in range(0, len(values), size)]
    points = [sum(group) / len(group) for group in groups]
    low, high = min(points), max(points)
    across, up = _WIDTH / max(1, len(points) - 1), (_HEIGHT - 4) / ((high - low) or 1)
    line = " ".join(f"{at * across:.1f},{2 + (high - value) * up:.1f}" for at, value in enumerate(points))
    said = f"{label}: {values[0]:.3g} to {values[-1]:.3g} in {len(values):,} steps"
    return (
        f"<svg width='{_WIDTH}' height='{_HEIGHT}' role='img' aria-label='{text(said)}'><polyline points='{line}' "
        f"fill='none' stroke='#0072B2' stroke-width='1.5'/></svg><br>{text(said)}"
    )


def sound(waveform: Float[ndarray, " samples"], sampling_rate: int) -> Markup:
    """A player of a mono waveform, -1 to 1."""
    import soundfile

    written = io.BytesIO()
    soundfile.write(written, np.asarray(waveform, dtype=np.float32), sampling_rate, format="WAV")
    address = f"data:audio/wav;base64,{base64.b64encode(written.getvalue()).decode()}"
    return Markup(f"<audio controls src='{address}'></audio>")


def pictures(frames: UInt8[ndarray, "frames height width 3"], seconds: Sequence[float] = ()) -> Markup:
    """Frames in a row, evenly chosen where there are more than `MAX_PICTURES`, with their time where they have one."""
    from PIL import Image

    count = min(len(frames), MAX_PICTURES)
    chosen = [round(at * (len(frames) - 1) / max(1, count - 1)) for at in range(count)]
    shown = []
    for index in chosen:
        written = io.BytesIO()
        Image.fromarray(frames[index]).save(written, format="PNG")
        told = f"{seconds[index]:.2f} s" if len(seconds) else ""
        address = f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
        picture = f"<img src='{address}' alt='{told or 'picture'}' style='height:{_PICTURE_HEIGHT}px'>"
        shown.append(f"<figure style='display:inline-block;margin:0 4px'>{picture}<br>{told}</figure>")
    left_out = len(frames) - count
    return Markup(f"<div>{''.join(shown)}</div>" + (f"<p>and {left_out} more</p>" if left_out else ""))


def media(sample: Any, sight: Any) -> Markup:
    """The pictures, videos and sounds of a sample, read with a `Sight` to be looked at and heard."""
    from lab.data.speech.audio import SAMPLING_RATE

    told = ""
    for part in sample.content:
        if part.type == "image":
            told += pictures(part.read(sight)[None])
        elif part.type == "video":
            video = part.read(sight)
            told += pictures(video.frames, video.seconds.tolist())
        elif part.type == "audio":
            told += sound(part.read(), SAMPLING_RATE)
    return Markup(told)
