"""Samples a second of everything that is made up for training: speech, transcripts, cross-modal samples, pictures.

    python benchmarks/synthetic_data.py [--samples 30] [--recognizer whisper_tiny_en]

One thread, one process; what is imported or loaded once does not count. Printed beside each rate: processor seconds a
sample, which a busy machine hardly changes.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from itertools import islice
from unittest.mock import patch

import torch

from lab.data.cross_modal import spoken_quarters
from lab.data.filters.filtering import LeftOut
from lab.data.filters.speech_agreement import listen
from lab.data.normalizers import NORMALIZERS
from lab.data.sample import Image, Sample, Text
from lab.data.sources import open_samples
from lab.data.speech.spoken_prompts import Speakers, timbres
from lab.errors import LabError
from lab.parts.audio_encoders import load_speech_recognizer
from standins.pages.rendered_prompts import prompt_samples
from standins.texts import sentences


def rate(name: str, samples: Iterable[object], count: int) -> None:
    """Take so many, the first apart: it loads fonts and libraries."""
    source = iter(samples)
    next(source)
    wall, processor = time.perf_counter(), time.process_time()
    made = sum(1 for _ in islice(source, count - 1))
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    print(f"{name:32} {made / wall:10.1f} a second, {1000 * processor / made:9.2f} ms of processor time each")


def main(arguments: Sequence[str] | None = None) -> None:
    """Make some of each and print the rates."""
    parser = argparse.ArgumentParser(description="Samples a second of synthetic data.")
    parser.add_argument("--samples", type=int, default=30, help="of each kind [30]")
    parser.add_argument("--recognizer", default="whisper_tiny_en", help="a name or the hub's; '' leaves it out")
    options = parser.parse_args(arguments)
    if options.samples < 2:
        raise LabError(f"--samples is {options.samples}, expected at least 2: the first does not count")
    torch.set_num_threads(1)
    count, voices = options.samples, timbres("en")
    texts = sentences(("chatterbot",), min_words=4)[:count]
    if len(texts) < count:
        raise LabError(f"--samples is {count}, and chatterbot has {len(texts)} sentences of at least 4 words")
    numbered = [(str(number), text) for number, text in enumerate(texts)]
    describe = (Image(b""), Text("Describe the image."))
    asked = [Sample(id=key, content=(Text(text),)) for key, text in numbered]
    pictured = [Sample(id=key, content=describe, answer=text) for key, text in numbered]
    recognizer = load_speech_recognizer(options.recognizer) if options.recognizer else None
    # A cache of its own, so that nothing has been spoken before.
    with tempfile.TemporaryDirectory() as scratch, patch.dict(os.environ, OMNI_LAB_CACHE=scratch):
        speakers = Speakers(voices)
        recordings = [Sample(id=key, content=(speakers.say(key, text),), answer=text) for key, text in numbered]
        rate("speech, spoken by espeak", (r.sound.read() for r in recordings), count)
        rate("speech, read back", (r.sound.read() for r in recordings), count)
        rate("cross-modal, split", spoken_quarters(pictured, speakers, LeftOut()), count)
        rate(
            "cross-modal, spoken", (s.content[-1].read() for s in spoken_quarters(pictured, speakers, LeftOut())), count
        )
        if recognizer:
            # One clip a batch, or the first would take all of them.
            heard = listen(recordings, recognizer.transcribe, NORMALIZERS["whisper_english"], batch_size=1)
            rate(f"heard by {options.recognizer}", heard, count)
    for source in ("pages", "transcripts", "charts"):
        samples, _ = open_samples(source, "train", count)
        rate(f"{source}, drawn", (sample.content[0].read() for sample in samples), count)
    rate("prompts drawn", prompt_samples(asked, LeftOut()), count)


if __name__ == "__main__":
    main()
