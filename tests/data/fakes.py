"""Small packages and audio of the same form as the real ones, so that no test needs a network."""

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from PIL import Image

from lab.data.fetch import packages
from lab.data.sample import Drawn
from lab.data.speech.corpora import Reading, Recording, spoken
from lab.data.splits import Split
from lab.paths import cache_dir


def tone(seconds: float = 0.5, rate: int = 16000, hertz: float = 440.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def encoded(samples: np.ndarray, rate: int, codec: str, container: str) -> bytes:
    """Samples ("samples" or "samples channels") in a container, through FFmpeg for what soundfile cannot write."""
    buffer = io.BytesIO()
    if container in ("wav", "flac", "ogg"):
        soundfile.write(buffer, samples, rate, format=container)
        return buffer.getvalue()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        fifo = av.AudioFifo()
        resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=rate)
        for part in (frame, None):
            for block in resampler.resample(part):
                block.pts = None
                fifo.write(block)
        size = stream.codec_context.frame_size or 1024
        while (block := fifo.read(size, partial=True)) is not None:
            output.mux(stream.encode(block))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def installed(name: str, files: dict[str, bytes]) -> Path:
    """Put an unpacked package into the test's cache, where `fetch` finds it without any client."""
    folder = cache_dir() / "packages" / f"{name}-{packages()[name].version.replace(':', '_')}"
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def wheel(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return buffer.getvalue()


def game_file(entries: dict[str, bytes]) -> bytes:
    """`queen.1c`: 13 bytes, the count, the directory, the contents."""
    start = 15 + 21 * len(entries)
    head, body = b"\0" * 13 + struct.pack(">H", len(entries)), b""
    for name, data in entries.items():
        head += struct.pack(">12sBII", name.encode(), 0, start + len(body), len(data))
        body += data
    return head + body


def dialogue_file(
    key: int, joe: dict[int, str], other: dict[int, str], openings: tuple[str, str], levels: int = 1
) -> bytes:
    def string(text: str, align: int, position: int) -> bytes:
        data = bytes([len(text)]) + text.encode("latin-1")
        return data + b"\0" * (-(position + len(data)) % align)

    def lines(texts: dict[int, str], position: int) -> bytes:
        data = b""
        for number, text in texts.items():
            data += b"\0\0" + struct.pack(">H", number)
            data += string(text, 4, position + len(data))
        return data

    first = 32 + 96 * abs(levels)
    joes = lines(joe, first)
    others = lines(other, first + len(joes))
    end = first + len(joes) + len(others)
    last = string(openings[0], 2, end)
    last += string(openings[1], 2, end + len(last))
    words = [levels, key, key, len(joe), len(other), 0, 0, 0, 0, 0, 0, first + len(joes), 0, end, 0, 0]
    return b"\0" * 20 + struct.pack(">16h", *words) + b"\0" * (96 * abs(levels)) + joes + others + last


def cutscene_file(strings: list[str]) -> bytes:
    start = 12
    data = b""
    for text in strings:
        data += bytes([len(text)]) + text.encode("latin-1")
        if text and (start + len(data)) % 2:
            data += b"\0"
    return b"\0" * 20 + struct.pack(">6H", 2, 1, 0, 0, start, start + len(data)) + data + b"\0\x01*\0"


def asterisk_packages(prompts: dict[str, str], sounds: dict[str, np.ndarray]) -> None:
    text = "; a comment\n\n" + "\n".join(f"{name}: {words}" for name, words in prompts.items())
    installed(
        "asterisk-core-sounds-en",
        {"usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz": gzip.compress(text.encode())},
    )
    folder = "usr/share/asterisk/sounds/en_US_f_Allison"
    installed(
        "asterisk-core-sounds-en-g722",
        {f"{folder}/{name}.g722": encoded(audio, 16000, "g722", "g722") for name, audio in sounds.items()},
    )


def chatterbot_package(turns: Iterable[str], language: str = "english") -> None:
    lines = "".join(f'- - "{turn}"\n' for turn in turns)
    installed(
        "chatterbot-corpus",
        {f"chatterbot_corpus/data/{language}/talk.yml": f"categories:\n- talk\nconversations:\n{lines}".encode()},
    )


def fortunes_package(text: str) -> None:
    installed(
        "fortunes", {"usr/share/games/fortunes/wisdom": text.encode(), "usr/share/games/fortunes/wisdom.dat": b"\0"}
    )


def recording(
    id: str, text: str, audio: Callable[[], np.ndarray], *, speaker: str = "s", split: Split | None = None
) -> Recording:
    """A sentence with a sound that is made when it is read."""
    return spoken(id, text, Drawn(audio, ()), speaker=speaker), split


def reading(recordings: Iterable[Recording], **options: object) -> Reading:
    return Reading(language="en", licence="none", sources={"fake": "0"}, recordings=iter(recordings), **options)  # type: ignore[arg-type]


def drawing(colour: tuple[int, int, int, int] = (255, 0, 0, 255), size: int = 16) -> bytes:
    """A PNG: a square of one colour on a transparent ground."""
    image = Image.new("RGBA", (size, size))
    image.paste(colour, (size // 4, size // 4, size - size // 4, size - size // 4))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def animation(frames: int = 3) -> bytes:
    """A WebP of 16 x 16 pixels; one frame stands still."""
    images = [Image.new("RGB", (16, 16), (80 * index, 0, 0)) for index in range(frames)]
    buffer = io.BytesIO()
    images[0].save(buffer, "WEBP", save_all=frames > 1, append_images=images[1:], duration=100)
    return buffer.getvalue()


def stamps_package(stamps: dict[str, str], others: dict[str, bytes] | None = None) -> None:
    """Stamps with a PNG, by place and caption text, and other files as they are."""
    files = dict(others or {})
    for place, text in stamps.items():
        files[f"{place}.txt"] = text.encode()
        files.setdefault(f"{place}.png", drawing())
    installed("tuxpaint-stamps-default", {f"usr/share/tuxpaint/stamps/{path}": data for path, data in files.items()})


def emoji_packages(names: list[dict[str, Any]], chinese: dict[str, str], stills: dict[str, bytes]) -> None:
    """Emojibase's entries (`names`), Chinese labels by hexcode, and the pictures by stem."""
    zh = [{"hexcode": code, "label": label} for code, label in chinese.items()]
    groups = {"groups": {"3": "animals-nature"}, "subgroups": {"36": "animal-mammal"}}
    tables = {"en/data.json": names, "zh/data.json": zh, "meta/groups.json": groups}
    installed("emojibase-data", {f"package/{path}": json.dumps(table).encode() for path, table in tables.items()})
    installed("emoji-datasource-google", {f"package/img/google/64/{stem}.png": data for stem, data in stills.items()})
