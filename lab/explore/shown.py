"""Objects of `lab` in a notebook, as HTML whose words are escaped: what the last line of a cell shows, and panels.

It stands here and not in the classes (`_repr_html_`), because what a run is, and so whether it has to be made again, is
decided by the modules that those stand in, and must not be by how they look. Classes are named, not imported: a
notebook that never shows a corpus never imports one. `lab` registers all this by itself where IPython runs.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

from markupsafe import Markup
from markupsafe import escape as text

SHOWN: dict[str, tuple[str, ...]] = {
    "lab.study.ablation.Ablation": ("name", "paper", "claim", "seeds", "rows"),
    "lab.study.ablation.Cell": ("ablation", "title", "rung", "parameters"),
    "lab.training.stages.Stage": (
        *("name", "paper", "learning_rates", "frozen", "data", "steps", "tokens", "schedule", "starts_from"),
    ),
    "lab.training.checkpoints.TrainingRecord": ("losses", "seconds", "peak_memory_bytes"),
    "lab.training.memory.Memory": ("parts", "batch_size", "tokens", "total", "flops"),
    "lab.training.packing_certificate.PackingCertificate": ("passed", "attention", "precision", "checks", "failed"),
    "lab.data.sample.Sample": ("content", "task", "choices", "answer"),
    "lab.data.video.VideoFrames": (),
    "lab.data.speech.corpora.Corpus": ("manifest",),
    "lab.data.packing.Packs": ("statistics",),
    "lab.data.filters.filtering.Filtered": ("name", "parameters", "num_kept", "dropped", "examples"),
    "lab.evaluation.statistics.Interval": ("estimate", "low", "high", "confidence", "num_seeds", "num_utterances"),
    "lab.evaluation.verdict.Verdict": ("outcome", "sentence"),
}
"""What is shown of an object, by its class: fields, properties and what methods give; of a video its frames."""

MAX_PICTURES = 8  # every frame is a picture in the notebook
_LEFT = "style='text-align:left;vertical-align:top;white-space:pre-wrap'"
_WIDTH, _HEIGHT = 240, 60  # of a curve, in pixels


def register(shell: Any) -> None:
    """Teach an IPython shell to show them."""
    formatter = shell.display_formatter.formatters["text/html"]
    for name in SHOWN:
        module, _, kind = name.rpartition(".")
        formatter.for_type_by_name(module, kind, html_of)


def html_of(value: Any) -> str:
    """Any value as HTML: an object by its fields, records as a table, fractions as a curve, media to see and hear."""
    kinds = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(value).__mro__)
    if fields := next((SHOWN[name] for name in kinds if name in SHOWN), ()):
        found = {name: getattr(value, name) for name in fields}
        return facts({name: made() if callable(made) else made for name, made in found.items()})
    if getattr(value, "type", "") in ("text", "image", "audio", "video"):
        return text(value.text) if value.type == "text" else media([value])
    if isinstance(value, Mapping):
        if value and all(isinstance(own, Mapping) for own in value.values()):
            return table({"": name, **own} for name, own in value.items())
        return text(", ".join(f"{name} = {own}" for name, own in value.items()))
    if hasattr(value, "frames") and hasattr(value, "seconds"):
        return video(value)
    if isinstance(value, list | tuple):
        if len(value) > 1 and all(isinstance(own, float) for own in value):
            return curve(value)
        if value and all(is_dataclass(own) and not hasattr(own, "type") for own in value):
            return table(map(vars, value))
        return "<br>".join(map(html_of, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return text(f"{value:,}" if type(value) is int else value)


def facts(values: Mapping[str, object]) -> str:
    """One line a fact; what is empty is left out."""
    told = ((name, html_of(value)) for name, value in values.items())
    lines = "".join(f"<tr><th {_LEFT}>{text(name)}</th><td {_LEFT}>{value}</td></tr>" for name, value in told if value)
    return f"<table><tbody>{lines}</tbody></table>"


def table(rows: Iterable[Mapping[str, object]]) -> str:
    """Rows as an HTML table whose columns are the first row's keys."""
    listed = list(rows)
    if not listed:
        return "<p>none</p>"
    head = "".join(f"<th style='text-align:left'>{text(name)}</th>" for name in listed[0])
    lines = ("".join(f"<td {_LEFT}>{html_of(value)}</td>" for value in row.values()) for row in listed)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def curve(values: Sequence[float]) -> str:
    """A curve without axes, with its first and last value; a mean stands for values that share a pixel."""
    size = -(-len(values) // _WIDTH)
    points = [sum(group) / len(group) for group in (values[at : at + size] for at in range(0, len(values), size))]
    low, high = min(points), max(points)
    across, up = _WIDTH / max(1, len(points) - 1), (_HEIGHT - 4) / ((high - low) or 1)
    line = " ".join(f"{at * across:.1f},{2 + (high - value) * up:.1f}" for at, value in enumerate(points))
    return (
        f"<svg width='{_WIDTH}' height='{_HEIGHT}'><polyline points='{line}' fill='none' stroke='#0072B2' "
        f"stroke-width='1.5'/></svg><br>{values[0]:.3g} to {values[-1]:.3g} in {len(values):,} steps"
    )


def sound(waveform: Any, caption: str = "") -> Markup:
    """A player of a waveform (16 kHz, mono, -1 to 1), under a caption where it has one."""
    import soundfile

    from lab.data.speech.audio import SAMPLING_RATE

    written = io.BytesIO()
    soundfile.write(written, waveform, SAMPLING_RATE, format="WAV")
    told = f"<p>{text(caption)}</p>" if caption else ""
    return Markup(f"{told}<audio controls src='data:audio/wav;base64,{_base64(written)}'></audio>")


def pictures(frames: Any, captions: Sequence[str] = (), *, height: int = 96) -> Markup:
    """Pictures in a row, RGB in 8 bits (frames, height, width, 3), so many pixels high, with what stands under each."""
    from PIL import Image

    row, look = "", f"height:{height}px;image-rendering:pixelated"
    for at, frame in enumerate(frames):
        written = io.BytesIO()
        Image.fromarray(frame).save(written, format="PNG")
        picture = f"<img src='data:image/png;base64,{_base64(written)}' alt='picture' style='{look}'>"
        told = f"<br>{text(captions[at])}" if captions else ""
        row += f"<figure style='display:inline-block;margin:0 4px'>{picture}{told}</figure>"
    return Markup(f"<div>{row}</div>")


def video(seen: Any) -> Markup:
    """The frames of a video with their times, evenly chosen where there are more than `MAX_PICTURES`."""
    import numpy as np

    chosen = np.unique(np.linspace(0, len(seen.frames) - 1, MAX_PICTURES).round().astype(int))
    return pictures(seen.frames[chosen], [f"{seconds:.2f} s" for seconds in seen.seconds[chosen]])


def media(content: Iterable[Any], sight: Any = None) -> Markup:
    """The pictures, videos and sounds of a sample's content; what is drawn, for `sight`: the paper's if None."""
    from lab.data.video import PAPER_SIGHT

    told = ""
    for part in content:
        if part.type == "audio":
            told += f"{sound(part.read())}"
        elif part.type == "image":
            told += f"{pictures(part.read(sight or PAPER_SIGHT)[None])}"
        elif part.type == "video":
            told += f"{video(part.read(sight or PAPER_SIGHT))}"
    return Markup(told)


def _base64(written: io.BytesIO) -> str:
    return base64.b64encode(written.getvalue()).decode()
