"""Encoder features of a corpus, computed once and memory-mapped: what a frozen encoder gives is never computed twice.

Section 3.1 of the paper. Axes: `frames` (encoder frames, 50 Hz for Whisper), `hidden_size` (encoder width). Features
are stored in half precision, all utterances one behind the other.
"""

import errno
import hashlib
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float16
from numpy import ndarray

from lab.data.speech.audio import SAMPLING_RATE
from lab.data.speech.corpora import Corpus, Utterance
from lab.errors import LabError
from lab.paths import cache_dir, make_folder

Encode = Callable[[list[Float[ndarray, " samples"]]], list[Float[ndarray, "frames hidden_size"]]]

FORMAT_VERSION = 1
_CHUNK = 512


class FeatureStore:
    """The features of one corpus under one encoder, opened as a memory map.

    `speed` is the factor by which the audio was made faster before it was encoded (1.0: as recorded).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        self.hidden_size: int = self.manifest["hidden_size"]
        self._offsets = np.load(folder / "offsets.npy")
        self._index = {name: i for i, name in enumerate(self.manifest["utterances"])}
        shape = (int(self._offsets[-1]), self.hidden_size)
        self._frames = np.memmap(folder / "features.f16", dtype="<f2", mode="r", shape=shape)

    def num_frames(self, utterance: Utterance) -> int:
        """Encoder frames of one utterance."""
        i = self._index[utterance.id]
        return int(self._offsets[i + 1] - self._offsets[i])

    def features(self, utterance: Utterance) -> Float16[ndarray, "frames hidden_size"]:
        """The features of one utterance; a view of the file, read-only."""
        i = self._index[utterance.id]
        return self._frames[self._offsets[i] : self._offsets[i + 1]]


def change_speed(samples: Float[ndarray, " samples"], speed: float) -> Float[ndarray, " faster"]:
    """Play faster (speed > 1) or slower, pitch with it, by linear interpolation: the usual speed perturbation.

    Ko et al. 2015, "Audio augmentation for speech recognition", is where factors of 0.9 and 1.1 come from.
    """
    if speed == 1.0:
        return samples
    positions = np.arange(0, len(samples) - 1, speed)
    return np.interp(positions, np.arange(len(samples)), samples).astype(np.float32)


def store_features(
    corpus: Corpus,
    encode: Encode,
    *,
    encoder_key: str,
    utterances: Sequence[Utterance] | None = None,
    speed: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureStore:
    """Open the features of `utterances` (default: all of the corpus), computing them first where they are not there.

    `encoder_key` names weights, front end and window of the encoder; with the corpus's hash, the utterances and the
    speed it is the key of the store. Utterances are handed to `encode` in order of length, so it sees similar ones.

    Raises:
        LabError: no utterances, a speed that is not positive, or a full disk.
    """
    chosen = list(corpus.utterances if utterances is None else utterances)
    if not chosen or not 0 < speed < math.inf:
        raise LabError(
            f"features need utterances and a positive speed, not {len(chosen)} of corpus {corpus.name!r} and {speed}"
        )
    ids = hashlib.sha256("\n".join(u.id for u in chosen).encode()).hexdigest()
    identity = json.dumps([FORMAT_VERSION, corpus.sha256, encoder_key, ids, speed])
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder = cache_dir() / "features" / f"{corpus.name.replace(':', '_').replace('/', '_')}-{key}"
    try:
        make_folder(folder, lambda made: _write(made, corpus, chosen, encode, encoder_key, speed, progress))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise LabError(f"no space is left for the features of corpus {corpus.name!r} in {folder.parent}") from error
        raise
    return FeatureStore(folder)


def _write(
    folder: Path,
    corpus: Corpus,
    utterances: list[Utterance],
    encode: Encode,
    encoder_key: str,
    speed: float,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Encode in order of length, so that batches waste little, and write in the order of the utterances."""
    order = sorted(range(len(utterances)), key=lambda i: utterances[i].num_samples)
    lengths = np.zeros(len(utterances), dtype=np.int64)
    hidden_size = 0
    shortest_first: list[tuple[int, Path]] = []
    for start in range(0, len(order), _CHUNK):
        chunk = order[start : start + _CHUNK]
        encoded = encode([change_speed(corpus.audio(utterances[i]), speed) for i in chunk])
        for i, frames in zip(chunk, encoded, strict=True):
            lengths[i] = len(frames)
        # Plain writes throughout: on a full disk np.save gives no errno and a writable memory map kills the process.
        rows = np.concatenate(encoded).astype("<f2")
        hidden_size = rows.shape[1]
        part = folder / f"part-{start}.f16"
        part.write_bytes(rows.data)
        shortest_first.append((start, part))
        if progress:
            progress(min(start + _CHUNK, len(order)), len(order))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    with (folder / "features.f16").open("wb") as features:
        for start, part in shortest_first:
            rows = np.fromfile(part, dtype="<f2").reshape(-1, hidden_size)
            position = 0
            for i in order[start : start + _CHUNK]:
                features.seek(int(offsets[i]) * hidden_size * rows.itemsize)
                features.write(rows[position : position + lengths[i]].data)
                position += lengths[i]
            part.unlink()
    table = io.BytesIO()
    np.save(table, offsets)
    (folder / "offsets.npy").write_bytes(table.getvalue())
    manifest = {
        "corpus": corpus.name,
        "corpus_sha256": corpus.sha256,
        "encoder": encoder_key,
        "speed": speed,
        "hidden_size": hidden_size,
        "frames": int(offsets[-1]),
        "seconds": sum(u.num_samples for u in utterances) / SAMPLING_RATE,
        "utterances": [u.id for u in utterances],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest) + "\n", encoding="utf-8")


def mean_and_std(
    store: FeatureStore, utterances: Iterable[Utterance], *, max_frames: int = 200_000
) -> tuple[Float[ndarray, " hidden_size"], Float[ndarray, " hidden_size"]]:
    """Per-channel mean and standard deviation over the first `max_frames` frames of `utterances`."""
    count, total, squares = 0, np.zeros(store.hidden_size), np.zeros(store.hidden_size)
    for utterance in utterances:
        frames = store.features(utterance).astype(np.float64)
        count, total, squares = count + len(frames), total + frames.sum(0), squares + (frames**2).sum(0)
        if count >= max_frames:
            break
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-8))
    return mean.astype(np.float32), std.astype(np.float32)
