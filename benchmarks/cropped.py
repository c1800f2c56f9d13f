"""How far the features of a cropped window are from those of the clip padded to 30 s, as the paper has it.

    python benchmarks/cropped.py [--utterances 50]

Test utterances of each recorded corpus through each packaged Whisper encoder, both ways. Two numbers a frame, of which
the median over all frames stands in the table, and over the clips the least and the most of their medians:

- difference: |cropped - padded| / |padded - mean|, where `mean` is the mean padded feature of the clip's frames;
- cosine: of cropped and padded, both less that mean.
"""

import argparse
import random

import numpy as np

from lab.data.speech.corpora import load_corpus
from lab.parts.audio_encoders import AUDIO_ENCODERS
from lab.training.named_parts import open_audio_encoder

CORPORA = ("amazon_queen", "asterisk")


def compare(cropped: np.ndarray, padded: np.ndarray) -> tuple[float, float]:
    """The medians over the frames of a clip, [frames, hidden_size] each, of difference and cosine."""
    mean = padded.mean(axis=0)
    own, other = cropped - mean, padded - mean
    sizes = np.linalg.norm(own, axis=1), np.linalg.norm(other, axis=1)
    difference = np.linalg.norm(cropped - padded, axis=1) / sizes[1]
    return float(np.median(difference)), float(np.median((own * other).sum(axis=1) / (sizes[0] * sizes[1])))


def main() -> None:
    """Print a line for each corpus and encoder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--utterances", type=int, default=50, help="drawn from each corpus's test split")
    count = parser.parse_args().utterances
    print(f"{'corpus':14}{'encoder':18}{'difference':>11}{'(clips)':>17}{'cosine':>8}{'(clips)':>17}")
    for corpus in CORPORA:
        samples = load_corpus(corpus).split("test")
        drawn = random.Random(0).sample(samples, min(count, len(samples)))
        waveforms = [sample.sound.read() for sample in drawn]
        for name in AUDIO_ENCODERS:
            cropped, padded = (open_audio_encoder(name, window=window) for window in ("cropped", "padded"))
            found = np.array([compare(cropped.encode(one), padded.encode(one)) for one in waveforms])
            line = f"{corpus:14}{name:18}"
            for (median, least, most), width in zip(
                zip(np.median(found, axis=0), found.min(axis=0), found.max(axis=0), strict=True), (11, 8), strict=True
            ):
                line += f"{median:{width}.2f}{f'({least:.2f} to {most:.2f})':>17}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
