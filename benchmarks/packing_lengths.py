"""Lengths of the project's own samples as histograms, committed so that nothing has to be fetched to pack them.

    python benchmarks/packing_lengths.py

writes `packing_lengths.json` anew from the corpora: tokens of each joined sequence, one a character. `speech` is the
recorded corpus (audio tokens at downsample rate 4, start, transcript); `chat_english` and `chat_chinese` are
conversations of chatterbot-corpus (all turns but the last as the prompt, start, the last as the answer).
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import yaml

from lab.data.fetch import fetch
from lab.data.speech.corpora import load_corpus
from lab.paths import write_whole
from lab.training.cell import MIN_FRAMES
from standins.models.character_model import spoken_text

FILE = Path(__file__).with_name("packing_lengths.json")
DOWNSAMPLE_RATE = 4
SAMPLES_PER_FRAME = 320


def speech_lengths() -> Iterator[int]:
    """Of the recorded corpus's training utterances."""
    for utterance in load_corpus("amazon_queen").split("train"):
        frames, text = -(-utterance.sound.num_samples // SAMPLES_PER_FRAME), spoken_text(utterance.answer)
        if frames >= MIN_FRAMES and text:
            yield -(-frames // DOWNSAMPLE_RATE) + 1 + len(text)


def chat_lengths(language: str) -> Iterator[int]:
    """Of the conversations of one language that have an answer."""
    for path in sorted((fetch("chatterbot-corpus") / "chatterbot_corpus/data" / language).glob("*.yml")):
        for turns in yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)["conversations"]:
            if len(turns) > 1:
                yield sum(len(str(turn)) for turn in turns) + 1


def read_lengths() -> dict[str, np.ndarray]:
    """The committed histograms, spread out: every sample's length by corpus."""
    kept: Mapping[str, Mapping[str, int]] = json.loads(FILE.read_text(encoding="utf-8"))
    return {
        name: np.repeat([int(length) for length in histogram], list(histogram.values()))
        for name, histogram in kept.items()
    }


def main() -> None:
    """Read the corpora and write the file."""
    found = {
        "speech": speech_lengths(),
        "chat_english": chat_lengths("english"),
        "chat_chinese": chat_lengths("chinese"),
    }
    lines = [f'  "{name}": {json.dumps(dict(sorted(Counter(lengths).items())))}' for name, lengths in found.items()]
    write_whole(FILE, "{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
