"""Prompts spoken by named voices, each clip kept on disk under a hash of its text, voice and speed (section 3).

The paper speaks its prompts with 44 timbres; a voice here is named as in "espeak:en-us+f1" or "kokoro:af_heart". A run
that is killed goes on where it stopped, because every clip is written whole or not at all.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import soundfile
from jaxtyping import Float
from numpy import ndarray

from lab.data.fetch import packages
from lab.data.sample import Audio, Drawn
from lab.data.speech.audio import SAMPLING_RATE, read_audio
from lab.errors import LabError, choose
from lab.paths import cache_dir, write_whole

FORMAT_VERSION = 1
_WORDS_PER_MINUTE = 165
_MIN_SPEED, _MAX_SPEED = 0.5, 2.0


@dataclass(frozen=True, kw_only=True)
class SpeechEngine:
    """A way to speak: its voices by language, `speak(text, voice, speed)` at 16 kHz, and its version.

    `check` is a LabError where something that it speaks with is not installed.
    """

    voices: Mapping[str, tuple[str, ...]]
    speak: Callable[[str, str, float], Float[ndarray, " samples"]]
    version: str
    check: Callable[[], None] = lambda: None


def timbres(language: str, engines: Sequence[str] = ("espeak",)) -> tuple[str, ...]:
    """Every voice of these engines in a language, as "ENGINE:VOICE".

    English has 62 of `espeak` and 28 of `kokoro`. Differs from the paper: Mandarin has the 8 of `kokoro` only, because
    eSpeak NG's Mandarin is not understood by a recogniser.
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


@dataclass(frozen=True)
class Speakers:
    """Voices and speeds, of which a hash of a sample's id draws one each: the same in whatever order samples come."""

    voices: Sequence[str]
    speeds: Sequence[float] = (0.9, 1.0, 1.1)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.voices or not self.speeds:
            raise LabError(
                f"{len(self.voices)} voices and {len(self.speeds)} speeds to choose from; expected at least one each"
            )
        for voice in self.voices:
            _engine_of(voice)
        for speed in self.speeds:
            if not _MIN_SPEED <= speed <= _MAX_SPEED:
                raise LabError(f"speed is {speed}, expected {_MIN_SPEED} to {_MAX_SPEED} times the voice's own")

    def say(self, sample: str, text: str) -> Audio:
        """The sound of a text for the sample of that id; it is spoken when it is read."""
        voice = self.voices[self._drawn("voice", sample) % len(self.voices)]
        speed = self.speeds[self._drawn("speed", sample) % len(self.speeds)]
        return Audio(Drawn(spoken_clip, (text, voice, speed)), speaker=voice, text=text)

    def _drawn(self, what: str, sample: str) -> int:
        digest = hashlib.sha256(json.dumps([what, self.seed, sample]).encode()).digest()
        return int.from_bytes(digest[:8], "big")


def clip_path(text: str, voice: str, speed: float) -> Path:
    """Where a clip is, or will be."""
    name, engine, own = _engine_of(voice)
    identity = json.dumps([FORMAT_VERSION, name, engine.version, own, float(speed), text])
    key = hashlib.sha256(identity.encode()).hexdigest()
    return cache_dir() / "spoken_prompts" / key[:2] / f"{key}.flac"


def spoken_clip(text: str, voice: str, speed: float = 1.0) -> Float[ndarray, " samples"]:
    """Return a clip: float32, 16 kHz, mono, in [-1, 1], as 16 bits keep it; it is synthesised if it is not there yet.

    eSpeak NG never says the same thing twice in quite the same samples; the first telling is kept.

    Raises:
        LabError: unknown engine or voice, nothing in the text that can be spoken, or a file that is broken.
    """
    path = clip_path(text, voice, speed)
    if not path.exists():
        _, engine, own = _engine_of(voice)
        # Through a buffer: on a full disk a file that is written in pieces would stay.
        buffer = io.BytesIO()
        soundfile.write(buffer, engine.speak(text, own, speed), SAMPLING_RATE, format="FLAC", subtype="PCM_16")
        try:
            write_whole(path, buffer.getvalue())
        except OSError as error:
            raise LabError(f"the clip {path} cannot be written: {error.strerror or error}") from error
    return read_audio(path)


def _engine_of(voice: str) -> tuple[str, SpeechEngine, str]:
    name, _, own = voice.partition(":")
    engine = choose(ENGINES, name, "engine")()
    choose({v: v for voices in engine.voices.values() for v in voices}, own, f"voice of {name}")
    return name, engine, own


@cache
def espeak() -> SpeechEngine:
    """eSpeak NG: 62 timbres of English, a thousand times real time."""
    from standins.speech import espeak

    def speak(text: str, voice: str, speed: float) -> Float[ndarray, " samples"]:
        return espeak.synthesize(text, voice, words_per_minute=round(_WORDS_PER_MINUTE * speed))

    return SpeechEngine(voices={"en": espeak.VOICES}, speak=speak, version=version("espeakng-loader"))


@cache
def kokoro() -> SpeechEngine:
    """Kokoro, a neural model: 28 timbres of English and 8 of Mandarin, about twice real time."""
    from standins.speech import kokoro

    def speak(text: str, voice: str, speed: float) -> Float[ndarray, " samples"]:
        return kokoro.synthesize(text, voice, speed=speed)

    pinned = "".join(packages()[source].sha256 for source in kokoro.SOURCES)
    state = hashlib.sha256(pinned.encode()).hexdigest()[:16]
    return SpeechEngine(voices=kokoro.VOICES, speak=speak, version=state, check=kokoro.check_installed)


ENGINES: Mapping[str, Callable[[], SpeechEngine]] = {"espeak": espeak, "kokoro": kokoro}
