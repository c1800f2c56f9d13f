"""A turn as OpenAI's chat completions take it: text, and pictures, frames of a video or sound beside it.

Section 4 of the paper for videos: one frame a second, at most 48, each at most 384 x 768 pixels.
"""

import base64
import io
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.evaluation.benchmarks.conversations import Medium, Turn

FRAMES = "1 frame a second, at most 48, within 384 x 768"
_JPEG_QUALITY = 90
_SIGNATURES = {b"\x89PNG": "png", b"\xff\xd8": "jpeg", b"GIF8": "gif"}


def message_of(turn: Turn) -> dict[str, Any]:
    """The message of a request; media stand before the text.

    Raises:
        LabError: a file that cannot be read, or is of no kind that endpoints take.
    """
    if not turn.media:
        return {"role": turn.role, "content": turn.text}
    parts = [part for medium in turn.media for part in _parts(medium)]
    return {"role": turn.role, "content": [*parts, {"type": "text", "text": turn.text}]}


def _parts(medium: Medium) -> list[dict[str, Any]]:
    if medium.kind == "video":
        if isinstance(medium.content, bytes):
            raise LabError("a video is asked about as a file, and its bytes were given")
        return [_picture(frame, "jpeg") for frame in _frames(medium.content)]
    content = medium.read()
    if medium.kind == "audio":
        return [{"type": "input_audio", "input_audio": {"data": _base64(_wave(content)), "format": "wav"}}]
    return [_picture(content, _suffix_of(content))]


def _suffix_of(content: bytes) -> str:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":  # sounds and films are RIFF too
        return "webp"
    suffix = next((name for start, name in _SIGNATURES.items() if content.startswith(start)), None)
    if suffix is None:
        raise LabError(f"a picture begins with {content[:12]!r}; expected PNG, JPEG, GIF or WebP")
    return suffix


def _picture(content: bytes, suffix: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/{suffix};base64,{_base64(content)}"}}


def _frames(path: Path) -> list[bytes]:
    from PIL import Image

    from lab.data.video.reading import read_video

    written = []
    for frame in read_video(path).frames:
        kept = io.BytesIO()
        Image.fromarray(frame).save(kept, "JPEG", quality=_JPEG_QUALITY)
        written.append(kept.getvalue())
    return written


def _wave(content: bytes) -> bytes:
    """Any sound file as 16 kHz mono WAV, which is what all servers read."""
    import soundfile

    from lab.data.speech.audio import read_audio

    samples = read_audio(content, name="sound")
    kept = io.BytesIO()
    soundfile.write(kept, samples, 16_000, format="WAV", subtype="PCM_16")
    return kept.getvalue()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
