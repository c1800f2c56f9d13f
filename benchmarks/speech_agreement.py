"""How much speech an ASR filter keeps at each threshold: good speech, and three kinds that are planted.

    python benchmarks/speech_agreement.py [--sentences 60] [--engine espeak] [--recognizer whisper_tiny_en]

The paper keeps synthetic prompts whose transcript agrees and does not say how closely. Sentences are spoken by voices
drawn by seed; the same clips are then spoiled: the words of another sentence (`wrong text`), white noise as loud as the
speech (`noise`, 0 dB), the second half cut off (`cut off`). Printed: the share kept at each error rate, of the good and
of each bad kind, the share of what is kept that is good (all four kinds being equally frequent), and clips a second.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lab.data.filters.speech_agreement import Heard, filter_speech, listen
from lab.data.normalizers import NORMALIZERS
from lab.data.sample import Drawn, Sample
from lab.data.speech.corpora import spoken
from lab.data.speech.spoken_prompts import ENGINES, Speakers, timbres
from lab.errors import LabError
from lab.parts.audio_encoders import load_speech_recognizer
from lab.training.sample_filters import KeptTranscripts
from standins.texts import chatterbot_sentences, sentences

THRESHOLDS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
NORMALIZER_OF = {"en": "whisper_english", "zh": "chinese_characters"}


def _noisy(recording: Sample, other: Sample) -> np.ndarray:
    samples = recording.sound.read()
    noise = np.random.default_rng(len(samples)).standard_normal(len(samples)).astype(np.float32)
    return np.clip(samples + noise * np.sqrt(np.mean(samples**2)), -1.0, 1.0)


def _cut(recording: Sample, other: Sample) -> np.ndarray:
    samples = recording.sound.read()
    return samples[: len(samples) // 2]


SPOILED: dict[str, Callable[[Sample, Sample], np.ndarray]] = {
    "good": lambda recording, other: recording.sound.read(),
    "wrong text": lambda recording, other: other.sound.read(),
    "noise": _noisy,
    "cut off": _cut,
}


def spoil(recordings: Sequence[Sample], kind: str) -> Iterator[Sample]:
    """The recordings with their text, and audio of that kind; the other sentence is the next one."""
    for place, recording in enumerate(recordings):
        other = recordings[(place + 1) % len(recordings)]
        sound = Drawn(SPOILED[kind], (recording, other))
        yield spoken(recording.id, recording.answer, sound, speaker=recording.sound.speaker)


def prompts(language: str, count: int, seed: int) -> list[tuple[str, str]]:
    """Sentences of three words or more (Chinese: five characters), drawn by seed, with their ids."""
    if language == "zh":
        normalize = NORMALIZERS["chinese_characters"]
        found = sorted({text for text in chatterbot_sentences("chinese") if len(normalize(text)) >= 5})
    else:
        found = sentences(("chatterbot",), min_words=3)
    order = np.random.default_rng(seed).permutation(len(found))[:count]
    return [(f"{language}-{place:05d}", found[place]) for place in order]


def table(heard: dict[str, list[Heard]], language: str) -> str:
    """One line a threshold."""
    normalizer = NORMALIZERS[NORMALIZER_OF[language]]
    shares = {
        kind: [filter_speech(found, normalizer, max_error_rate=most).keep.mean() for most in THRESHOLDS]
        for kind, found in heard.items()
    }
    lines = ["  at most " + "".join(f"{kind:>12}" for kind in shares) + "  good among kept"]
    for place, threshold in enumerate(THRESHOLDS):
        row = [share[place] for share in shares.values()]
        good = f"{row[0] / sum(row):17.3f}" if sum(row) else f"{'-':>17}"
        lines.append(f"{threshold:9.2f} " + "".join(f"{share:12.3f}" for share in row) + good)
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Speak, spoil, listen, print."""
    parser = argparse.ArgumentParser(description="Kept share of good and planted bad speech against the threshold.")
    parser.add_argument("--sentences", type=int, default=60, help="spoken, each in four kinds [60]")
    parser.add_argument("--language", choices=sorted(NORMALIZER_OF), default="en", help="[en]; zh needs kokoro")
    parser.add_argument("--engine", choices=sorted(ENGINES), default="espeak", help="[espeak]")
    parser.add_argument("--recognizer", default="whisper_tiny_en", help="a name or the hub's [whisper_tiny_en]")
    parser.add_argument("--seed", type=int, default=0, help="draws sentences, voices and speeds [0]")
    options = parser.parse_args(arguments)
    if options.sentences < 2:
        raise LabError(f"--sentences is {options.sentences}, expected at least 2: one is spoken with another's words")
    chosen = prompts(options.language, options.sentences, options.seed)
    voices = timbres(options.language, (options.engine,))
    speakers = Speakers(voices, seed=options.seed)
    recordings = [Sample(id=key, content=(speakers.say(key, text),), answer=text) for key, text in chosen]
    begun = time.perf_counter()
    seconds = sum(len(recording.sound.read()) for recording in recordings) / 16_000
    spoken = time.perf_counter() - begun
    recognizer = KeptTranscripts(
        load_speech_recognizer(options.recognizer, language=options.language), name=options.recognizer
    )
    begun = time.perf_counter()
    normalizer = NORMALIZERS[NORMALIZER_OF[options.language]]
    heard = {kind: list(listen(spoil(recordings, kind), recognizer.transcribe, normalizer)) for kind in SPOILED}
    listened = time.perf_counter() - begun
    print(f"{len(recordings)} sentences, {seconds:.0f} s of {options.engine} in {len(voices)} voices, ", end="")
    print(f"{options.recognizer}, normaliser {normalizer.name} {normalizer.version}")
    print(table(heard, options.language))
    for problem in [h.problem for found in heard.values() for h in found if h.problem][:5]:
        print(problem)
    print(f"spoken (or read back) {len(recordings) / spoken:.1f} clips a second; ", end="")
    print(f"heard (or read back) {len(SPOILED) * len(recordings) / listened:.2f} clips a second")


if __name__ == "__main__":
    main()
