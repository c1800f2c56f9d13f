"""Prompts spoken by named voices, each clip kept on disk under a hash of its text, voice and speed (section 3).

The paper speaks its prompts with 44 timbres; a voice here is named as in "espeak:en-us+f1" or "kokoro:af_heart". A run
that is killed goes on where it stopped, because every clip is written whole or not at all.
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import soundfile
from jaxtyping import Float
from numpy import ndarray

from lab.data.fetch import packages
from lab.data.media import Drawn
from lab.data.sample import Sample
from lab.data.speech.audio import SAMPLING_RATE, read_audio
from lab.data.speech.recordings import spoken
from lab.errors import LabError, choose
from lab.paths import cache_dir, write_whole

Choice = TypeVar("Choice")

FORMAT_VERSION = 1
WORDS_PER_MINUTE = 165
SPEEDS = (0.9, 1.0, 1.1)
MIN_SPEED, MAX_SPEED = 0.5, 2.0


@dataclass(frozen=True, kw_only=True)
class SpeechEngine:
    """A way to speak: its voices by language, `speak(text, voice, speed)` at 16 kHz, and its version."""

    voices: Mapping[str, tuple[str, ...]]
    speak: Callable[[str, str, float], Float[ndarray, " samples"]]
    version: str


def timbres(language: str, engines: Sequence[str] = ("espeak",)) -> tuple[str, ...]:
    """Every voice of these engines in a language, as "ENGINE:VOICE".

    English has 62 of `espeak` and 28 of `kokoro`. Differs from the paper: Mandarin has the 8 of `kokoro` only, because
    eSpeak NG's Mandarin is not understood by a recogniser.

    Raises:
        LabError: unknown engine, or none of them speaks the language.
    """
    found = tuple(
        f"{name}:{voice}" for name in engines for voice in choose(ENGINES, name, "engine")().voices.get(language, ())
    )
    if not found:
        speaking = [name for name, engine in ENGINES.items() if language in engine().voices]
        raise LabError(
            f"no voice for language {language!r} in {', '.join(engines) or 'no engine'}; "
            f"choose one of: {', '.join(speaking) or 'none speaks it'}"
        )
    return found


def drawn(choices: Sequence[Choice], sample: str, seed: int, what: str) -> Choice:
    """Choose one by a hash of the sample's id, the seed and the purpose: the same in whatever order samples come."""
    digest = hashlib.sha256(json.dumps([what, seed, sample]).encode()).digest()
    return choices[int.from_bytes(digest[:8], "big") % len(choices)]


class SpeechStore:
    """Clips by text, voice and speed in a folder; what is not there yet is synthesised, then read back as any file.

    eSpeak NG never says the same thing twice in quite the same samples; the first telling is kept.
    """

    def __init__(self, *, folder: Path | None = None) -> None:
        self.folder = folder or cache_dir() / "spoken_prompts"

    def path(self, text: str, voice: str, speed: float = 1.0) -> Path:
        """Where a clip is, or will be.

        Raises:
            LabError: unknown engine or voice, or a speed outside 0.5 to 2.
        """
        name, engine, own = _engine_of(voice)
        _check_speed(speed)
        identity = json.dumps([FORMAT_VERSION, name, engine.version, own, float(speed), text])
        key = hashlib.sha256(identity.encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.flac"

    def audio(self, text: str, voice: str, speed: float = 1.0) -> Float[ndarray, " samples"]:
        """Return the clip: float32, 16 kHz, mono, in [-1, 1], as 16 bits keep it.

        Raises:
            LabError: as `path`; nothing in the text that can be spoken; a file that is broken, by its name.
        """
        path = self.path(text, voice, speed)
        if not path.exists():
            _, engine, own = _engine_of(voice)
            _write_clip(path, engine.speak(text, own, speed))
        return read_audio(path)

    def recordings(
        self,
        prompts: Iterable[tuple[str, str]],
        *,
        voices: Sequence[str],
        seed: int = 0,
        speeds: Sequence[float] = SPEEDS,
    ) -> Iterator[Sample]:
        """Yield a sample for each (id, text), its voice and speed drawn; nothing is spoken before it is read.

        Raises:
            LabError: an unknown voice or impossible speed, before the first one.
        """
        draw = telling(voices, speeds, seed)

        def recordings() -> Iterator[Sample]:
            for sample, text in prompts:
                voice, speed = draw(sample)
                yield spoken(sample, text, Drawn(self.audio, (text, voice, speed)), speaker=voice)

        return recordings()


def telling(voices: Sequence[str], speeds: Sequence[float], seed: int) -> Callable[[str], tuple[str, float]]:
    """A function that draws voice and speed of a sample by its id.

    Raises:
        LabError: an unknown voice, an impossible speed, or none of either.
    """
    if not voices or not speeds:
        raise LabError(f"{len(voices)} voices and {len(speeds)} speeds to choose from; expected at least one each")
    for voice in voices:
        _engine_of(voice)
    for speed in speeds:
        _check_speed(speed)
    return lambda sample: (drawn(voices, sample, seed, "voice"), drawn(speeds, sample, seed, "speed"))


def _check_speed(speed: float) -> None:
    if not MIN_SPEED <= speed <= MAX_SPEED:
        raise LabError(f"speed is {speed}, expected {MIN_SPEED} to {MAX_SPEED} times the voice's own")


def _engine_of(voice: str) -> tuple[str, SpeechEngine, str]:
    name, _, own = voice.partition(":")
    engine = choose(ENGINES, name, "engine")()
    choose({v: v for voices in engine.voices.values() for v in voices}, own, f"voice of {name}")
    return name, engine, own


def _write_clip(path: Path, samples: Float[ndarray, " samples"]) -> None:
    """Through a buffer: on a full disk a file that is written in pieces would stay."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLING_RATE, format="FLAC", subtype="PCM_16")
    try:
        write_whole(path, buffer.getvalue())
    except OSError as error:
        raise LabError(f"the clip {path} cannot be written: {error.strerror or error}") from error


@cache
def espeak() -> SpeechEngine:
    """eSpeak NG: 62 timbres of English, a thousand times real time."""
    from standins.speech import espeak

    def speak(text: str, voice: str, speed: float) -> Float[ndarray, " samples"]:
        return espeak.synthesize(text, voice, words_per_minute=round(WORDS_PER_MINUTE * speed)).samples

    return SpeechEngine(voices={"en": espeak.VOICES}, speak=speak, version=version("espeakng-loader"))


@cache
def kokoro() -> SpeechEngine:
    """Kokoro, a neural model: 28 timbres of English and 8 of Mandarin, about twice real time."""
    from standins.speech import kokoro

    def speak(text: str, voice: str, speed: float) -> Float[ndarray, " samples"]:
        return kokoro.synthesize(text, voice, speed=speed)

    pinned = "".join(packages()[source].sha256 for source in kokoro.SOURCES)
    return SpeechEngine(voices=kokoro.VOICES, speak=speak, version=hashlib.sha256(pinned.encode()).hexdigest()[:16])


ENGINES: Mapping[str, Callable[[], SpeechEngine]] = {"espeak": espeak, "kokoro": kokoro}
