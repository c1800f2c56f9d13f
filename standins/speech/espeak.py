"""Synthetic speech and phonemes from eSpeak NG: any English text, 48 timbres, about a thousand times real time.

The library comes in the wheel of espeakng-loader. It keeps one global state, so a lock serialises it in a process.
"""

import ctypes
import re
import shutil
import tempfile
import threading
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import espeakng_loader
import numpy as np
from jaxtyping import Float
from numpy import ndarray

from lab.data.fetch import sha256_of
from lab.data.sample import Drawn
from lab.data.speech.audio import SAMPLING_RATE, resample
from lab.data.speech.corpora import Reading
from lab.errors import LabError, choose
from standins.speech.read_aloud import read_aloud
from standins.texts import sentences

# Timbres that sound like people; the robots, whispers and croaks of the library are left out. Each speaks with one
# accent (`en` is the British one), so that a voice is a speaker.
_AMERICAN = (
    "f1", "f3", "f5", "m1", "m3", "m5", "m7", "adam", "Alex", "Andrea", "Andy", "Annie", "belinda", "Denis", "ed",
    "Gene", "grandma", "gustave", "Jacky", "klatt", "klatt3", "linda", "Marco", "Michael", "victor",
)  # fmt: skip
_BRITISH = (
    "f2", "f4", "m2", "m4", "m6", "m8", "Alicia", "anika", "antonio", "aunty", "benjamin", "boris", "david",
    "edward", "Gene2", "grandpa", "Hugo", "ian", "iven", "john", "klatt2", "klatt4", "Lee", "Mario", "max",
    "michel", "Mike", "miguel", "norbert", "paul", "quincy", "rob", "robert", "sandro", "shelby", "steph",
    "travis",
)  # fmt: skip
VOICES: tuple[str, ...] = (*(f"en-us+{v}" for v in _AMERICAN), *(f"en+{v}" for v in _BRITISH))
WORD_BOUNDARY = "_"

# eSpeak's mnemonics for General American name allophones and r-coloured vowels one by one. The alphabet here is
# smaller: 24 consonants, 16 vowels and the word boundary.
VOWELS = ("I", "i:", "E", "a", "V", "@", "u:", "U", "O:", "A:", "3", "aI", "aU", "eI", "oU", "OI")
_CONSONANTS = (
    "p", "b", "t", "d", "k", "g", "f", "v", "T", "D", "s", "z", "S", "Z", "h", "m", "n", "N", "l", "r", "w", "j",
    "tS", "dZ",
)  # fmt: skip
PHONEMES: tuple[str, ...] = (WORD_BOUNDARY, *VOWELS, *_CONSONANTS)
_SPELLED: dict[str, tuple[str, ...]] = {
    **{phoneme: (phoneme,) for phoneme in PHONEMES},
    **dict.fromkeys(("@2", "@5", "@-", "a#", "e#"), ("@",)),
    **{"I2": ("I",), "I#": ("I",), "i": ("i:",), "i2": ("i:",), "u": ("u:",), "e": ("eI",), "o": ("oU",), "y": ("u:",)},
    **{"aa": ("a",), "a2": ("a",), "0": ("A:",), "a:": ("A:",), "O2": ("O:",), "O": ("O:",), "V2": ("V",)},
    **{"3:": ("3",), "E2": ("E",), "e:": ("eI",), "o:": ("oU",), "E:": ("E",), "W": ("3",), "VR": ("3",)},
    **{"t#": ("t",), "t2": ("t",), "?": ("t",), "d#": ("d",), "r-": ("r",), "z2": ("z",), "x": ("k",), "C": ("h",)},
    **{"@L": ("@", "l"), "n-": ("@", "n"), "m-": ("@", "m"), "l#": ("l",), "l^": ("l",), "n^": ("n",), "R": ("r",)},
    **{"i@": ("I", "@"), "i@3": ("I", "r"), "A@": ("A:", "r"), "O@": ("O:", "r"), "o@": ("O:", "r"), "U@": ("U", "r")},
    **{"e@": ("E", "r"), "aI@": ("aI", "@"), "aI3": ("aI", "3"), "aU@": ("aU", "@"), "ts": ("t", "s"), "w#": ("w",)},
}
Samples = Float[ndarray, " samples"]
_LANGUAGE_SWITCH = re.compile(r"\([a-z-]+\)")

_CHARS_UTF8 = 1
_SYNCHRONOUS = 2
_IPA = 2
_RATE, _PITCH = 1, 3


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class _Library:
    """The loaded library and what its callback has collected."""

    def __init__(self, *, path: str) -> None:
        try:
            self.lib = ctypes.CDLL(path)
        except OSError as error:
            raise LabError(f"the eSpeak NG library {path} cannot be loaded ({error}); reinstall it") from error
        self.lib.espeak_TextToPhonemes.restype = ctypes.c_char_p
        data = espeakng_loader.get_data_path()
        self.rate = self.lib.espeak_Initialize(_SYNCHRONOUS, 0, str(data).encode(), 0)
        if self.rate <= 0:
            raise LabError(f"eSpeak NG finds no voice data in {data}; reinstall espeakng-loader")
        self.lock = threading.Lock()
        self.voice = ""
        self.blocks: list[bytes] = []
        # ctypes frees a callback that nobody holds.
        self._callback = _Callback(self._collect)
        self.lib.espeak_SetSynthCallback(self._callback)

    def _collect(self, wave: Any, count: int, _: Any) -> int:
        if wave and count > 0:
            self.blocks.append(ctypes.string_at(wave, 2 * count))
        return 0

    def set_voice(self, voice: str) -> None:
        if voice != self.voice:
            if self.lib.espeak_SetVoiceByName(voice.encode()) != 0:
                raise LabError(f"eSpeak NG does not know voice {voice!r}")
            self.voice = voice


@cache
def _library() -> _Library:
    return _Library(path=espeakng_loader.get_library_path())


def _fresh_library() -> _Library:
    """Load a copy of the library: what it spoke before changes its noise and flutter, and only loading resets them."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        fresh = _Library(path=shutil.copy(espeakng_loader.get_library_path(), folder))
    fresh.lib.espeak_ng_SetRandSeed(ctypes.c_long(1))
    return fresh


def phonemes(text: str) -> list[str]:
    """Return the General American phonemes of a text, words apart by `WORD_BOUNDARY`; only symbols of `PHONEMES`.

    >>> phonemes("The fire.")
    ['D', '@', '_', 'f', 'aI', '3']
    """
    found: list[str] = []
    for word in _transcribe(text, "en-us", ord("_") << 8).split():
        spelled = [phoneme for mnemonic in word.split("_") for phoneme in _spell(mnemonic)]
        if spelled:
            found += [WORD_BOUNDARY, *spelled] if found else spelled
    return found


def ipa(text: str, accent: str = "en-us") -> str:
    """Return the IPA of a text, `accent` being `en-us` or `en` (British); punctuation is lost."""
    return _transcribe(text, accent, _IPA)


def _transcribe(text: str, accent: str, mode: int) -> str:
    library = _library()
    with library.lock:
        library.set_voice(accent)
        pointer = ctypes.pointer(ctypes.cast(ctypes.c_char_p(text.encode()), ctypes.c_void_p))
        clauses: list[str] = []
        while pointer.contents.value:
            clause = library.lib.espeak_TextToPhonemes(pointer, _CHARS_UTF8, mode)
            clauses.append((clause or b"").decode("utf-8", "replace"))
    return _LANGUAGE_SWITCH.sub(" ", " ".join(clauses))


@cache
def _spell(mnemonic: str) -> tuple[str, ...]:
    """Spell one mnemonic in `PHONEMES`: without stress and length marks, then without its allophone's number."""
    bare = re.sub(r"^[',%=|:;!*]+", "", mnemonic)
    for candidate in (bare, re.sub(r"[;|~!*]+$", "", bare), re.sub(r"[^A-Za-z@]+$", "", bare)):
        if candidate in _SPELLED:
            return _SPELLED[candidate]
    return ()


def synthesize(text: str, voice: str = VOICES[0], *, words_per_minute: int = 165) -> Samples:
    """Speak a text with one of `VOICES`, at 16 kHz; `words_per_minute` from 80 to 450.

    Two calls never give quite the same samples (see `_fresh_library`); the corpus `espeak` repeats exactly.
    """
    choose({name: name for name in VOICES}, voice, "voice")
    return _speak(_library(), text, voice, words_per_minute, 50)


def _speak(library: _Library, text: str, voice: str, words_per_minute: int, pitch: int) -> Samples:
    """Speak; a `pitch` of 50, of 0 to 100, is the voice's own."""
    data = text.encode()
    with library.lock:
        library.set_voice(voice)
        library.lib.espeak_SetParameter(_RATE, words_per_minute, 0)
        library.lib.espeak_SetParameter(_PITCH, pitch, 0)
        library.blocks.clear()
        library.lib.espeak_Synth(data, len(data) + 1, 0, 1, 0, _CHARS_UTF8, None, None)
        pcm = np.frombuffer(b"".join(library.blocks), np.int16)
    if not pcm.any():  # a text without words is silence
        raise LabError(f"eSpeak NG says nothing for {text!r}")
    return resample(pcm.astype(np.float32) / 32768.0, library.rate, SAMPLING_RATE)


def read(*, text_sources: Sequence[str], num_utterances: int = 4000, seed: int = 0, held_out: float = 0.2) -> Reading:
    """Speak real sentences of 2 to 14 words; a fifth of the voices speaks only, and alone, in dev and test.

    Speed and pitch are drawn for each. `text_sources` are names in `standins.texts.TEXT_SOURCES`.
    """
    library = _fresh_library()

    def say(text: str, voice: str, rng: np.random.Generator) -> Drawn:
        rate, pitch = int(rng.integers(130, 191)), int(rng.integers(35, 66))
        return Drawn(_speak, (library, text, voice, rate, pitch))

    return read_aloud(
        sentences(text_sources),
        VOICES,
        say,
        prefix="espeak",
        num_utterances=num_utterances,
        seed=seed,
        held_out=held_out,
        language="en",
        licence="speech: eSpeak NG's output, free of its GPL-3.0",
        sources={f"espeakng-loader {version('espeakng-loader')}": sha256_of(Path(espeakng_loader.get_library_path()))},
        text_sources=text_sources,
    )
