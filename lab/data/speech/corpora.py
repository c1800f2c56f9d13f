"""Corpora by name, prepared once: 16 kHz mono samples in one file, utterances in a table, a manifest beside them.

A prepared corpus is `cache_dir()/corpora/NAME-KEY/`, the key a hash of the name, the resolved options and the pinned
sources; `audio.i16` holds the samples of all utterances one after the other, read through a memory map.
"""

import errno
import hashlib
import inspect
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray

from lab.data import hub
from lab.data.fetch import available, packages
from lab.data.speech.audio import SAMPLING_RATE
from lab.data.speech.recordings import Reading, Recording
from lab.data.splits import SPLITS, Split, assign_split, normalize_sentence
from lab.errors import LabError, choose
from lab.paths import cache_dir, make_folder

# Raise it when preparing changes, so that corpora prepared by older code are prepared again.
FORMAT_VERSION = 1
MIN_SECONDS = 0.2
_SCALE = 32768.0


@dataclass(frozen=True)
class Utterance:
    """One spoken sentence; `start` and `num_samples` place it in the corpus's sample array."""

    id: str
    text: str
    speaker: str
    split: Split
    start: int
    num_samples: int

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.num_samples / SAMPLING_RATE


class Corpus:
    """A prepared corpus; `sha256` covers the utterances and the samples."""

    def __init__(self, *, folder: Path) -> None:
        self.folder = folder
        try:
            self._manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            table = pd.read_parquet(folder / "utterances.parquet")
            size = (folder / "audio.i16").stat().st_size
        except (OSError, ValueError) as error:
            raise LabError(
                f"the prepared corpus {folder} cannot be read ({error}); delete it to make it again"
            ) from error
        self.utterances = [Utterance(**row) for row in table.to_dict("records")]
        if size != 2 * sum(utterance.num_samples for utterance in self.utterances):
            raise LabError(f"the prepared corpus {folder} is damaged (audio.i16); delete it to make it again")
        self.name: str = self._manifest["name"]
        self.language: str = self._manifest["language"]
        self.licence: str = self._manifest["licence"]
        self.sources: dict[str, str] = self._manifest["sources"]
        self.sha256: str = self._manifest["sha256"]

    @cached_property
    def _samples(self) -> ndarray:
        return np.memmap(self.folder / "audio.i16", dtype="<i2", mode="r")

    def audio(self, utterance: Utterance) -> Float[ndarray, " samples"]:
        """Return the samples of one utterance: float32, 16 kHz, mono, in [-1, 1]."""
        samples = self._samples[utterance.start : utterance.start + utterance.num_samples]
        return samples.astype(np.float32) / np.float32(_SCALE)

    def split(self, name: Split) -> list[Utterance]:
        """Return the utterances of one split.

        Raises:
            LabError: `name` is not train, dev or test.
        """
        choose({split: split for split in SPLITS}, name, "split")
        return [utterance for utterance in self.utterances if utterance.split == name]

    def manifest(self) -> dict[str, Any]:
        """Return what the corpus is: counts, per split too, sources, licence, SHA-256, what was skipped and why."""
        return json.loads(json.dumps(self._manifest))


@dataclass(frozen=True)
class CorpusKind:
    """How a corpus is read; the hashes of `sources` and the versions of the `installed` packages are part of its key.

    `resolve_text_sources` turns the text sources asked for into those that this machine has, so that they are in the
    key too.
    """

    read: Callable[..., Reading]
    sources: tuple[str, ...] = ()
    resolve_text_sources: Callable[[Sequence[str] | None], tuple[str, ...]] | None = None
    installed: tuple[str, ...] = ()


def load_corpus(name: str, **options: Any) -> Corpus:
    """Open a corpus by name; the first call prepares it. `options` are those of its reader.

    Raises:
        LabError: unknown corpus or option, a source that cannot be fetched, no usable utterance, disk full.
    """
    base, _, dataset = name.partition(":")
    kind = choose(CORPORA, base, "corpus")()
    if dataset:
        options = {"dataset": dataset, **options}
    resolved = _resolve(kind.read, name, options)
    if kind.resolve_text_sources is not None:
        resolved["text_sources"] = kind.resolve_text_sources(resolved["text_sources"])
    root = cache_dir() / "corpora"
    folder = root / f"{re.sub(r'[^a-zA-Z0-9_.-]+', '_', name)}-{_key(name, kind, resolved)}"
    try:
        make_folder(folder, lambda made: prepare(name, kind.read(**resolved), made, options=resolved))
        return Corpus(folder=folder)
    except OSError as error:
        why = "no space is left on the disk" if error.errno == errno.ENOSPC else error.strerror or error
        raise LabError(f"corpus {name!r} cannot be prepared in {root}: {why}") from error


def default_corpus() -> tuple[str, str]:
    """Return the corpus a study takes when none is named, and why: recorded speech where it can be fetched."""
    (package,) = amazon_queen().sources
    found = available(package)
    if found:
        return "amazon_queen", f"recorded speech ({package}) can be fetched"
    return "espeak", f"recorded speech is out of reach: {found.reason}"


def prepare(name: str, reading: Reading, folder: Path, *, options: Mapping[str, Any] | None = None) -> None:
    """Write a corpus into a folder: splits given, audio decoded, unusable utterances left out and counted.

    Left out: a text that is empty after normalisation, audio that fails or is shorter than 0.2 seconds, and whatever
    `assign_split` keeps out of training. Where a source brings its own test split, its training also leaves out every
    sentence of that.
    """
    skipped = Counter(reading.skipped)
    kept: list[tuple[Recording, Split]] = []
    for recording in reading.recordings:
        if not normalize_sentence(recording.text):
            skipped["text empty after normalisation"] += 1
            continue
        split, reason = assign_split(
            recording.text,
            own_split=recording.split,
            held_out_speaker=recording.speaker in reading.held_out_speakers,
        )
        if split is None:
            skipped[reason] += 1
        else:
            kept.append((recording, split))
    kept = _without_own_test_sentences(kept, skipped)
    folder.mkdir(parents=True, exist_ok=True)
    utterances, audio_digest = _write_audio(folder / "audio.i16", kept, skipped)
    if not utterances:
        raise LabError(f"corpus {name!r} has no usable utterance; skipped: {_reasons(skipped)}")
    rows = [asdict(utterance) for utterance in utterances]
    pd.DataFrame(rows).to_parquet(folder / "utterances.parquet", index=False)
    manifest = _manifest(name, reading, utterances, skipped)
    manifest["options"] = dict(options or {})
    manifest["audio_sha256"] = audio_digest
    manifest["sha256"] = hashlib.sha256((json.dumps(rows) + audio_digest).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _without_own_test_sentences(
    kept: list[tuple[Recording, Split]], skipped: Counter[str]
) -> list[tuple[Recording, Split]]:
    tested = {normalize_sentence(recording.text) for recording, split in kept if split == "test"}
    clean = [
        (recording, split)
        for recording, split in kept
        if split == "test" or normalize_sentence(recording.text) not in tested
    ]
    skipped["sentence of this corpus's own test split"] += len(kept) - len(clean)
    return clean


def _write_audio(
    path: Path, kept: Iterable[tuple[Recording, Split]], skipped: Counter[str]
) -> tuple[list[Utterance], str]:
    utterances: list[Utterance] = []
    digest = hashlib.sha256()
    position = 0
    with path.open("wb") as file:
        for recording, split in kept:
            try:
                samples = recording.audio()
            except LabError:
                skipped["audio that cannot be read"] += 1
                continue
            if samples.size < MIN_SECONDS * SAMPLING_RATE:
                skipped[f"shorter than {MIN_SECONDS} seconds"] += 1
                continue
            pcm = np.clip(np.rint(samples * _SCALE), -32768, 32767).astype("<i2").tobytes()
            file.write(pcm)
            digest.update(pcm)
            utterances.append(Utterance(recording.id, recording.text, recording.speaker, split, position, samples.size))
            position += samples.size
    return utterances, digest.hexdigest()


def _manifest(name: str, reading: Reading, utterances: list[Utterance], skipped: Counter[str]) -> dict[str, Any]:
    return {
        "name": name,
        "language": reading.language,
        "licence": reading.licence,
        "sources": reading.sources,
        "sampling_rate": SAMPLING_RATE,
        **_counts(utterances),
        "splits": {split: _counts([u for u in utterances if u.split == split]) for split in SPLITS},
        "held_out_speakers": sorted(reading.held_out_speakers),
        "skipped": {reason: count for reason, count in sorted(skipped.items()) if count},
    }


def _counts(utterances: list[Utterance]) -> dict[str, Any]:
    return {
        "utterances": len(utterances),
        "seconds": round(sum(utterance.seconds for utterance in utterances), 2),
        "words": sum(len(utterance.text.split()) for utterance in utterances),
        "speakers": len({utterance.speaker for utterance in utterances}),
    }


def _reasons(skipped: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in skipped.items() if count) or "none"


def _resolve(read: Callable[..., Reading], name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the defaults, so that a changed default is another corpus."""
    parameters = inspect.signature(read).parameters
    for option in options:
        choose(parameters, option, f"option of corpus {name!r}")
    missing = [key for key, value in parameters.items() if value.default is value.empty and key not in options]
    if missing:
        raise LabError(f"corpus {name!r} needs {', '.join(missing)}, as in 'hub:openslr/librispeech_asr:clean'")
    return {key: options.get(key, value.default) for key, value in parameters.items()}


def _key(name: str, kind: CorpusKind, options: Mapping[str, Any]) -> str:
    pinned = {source: packages()[source].sha256 for source in kind.sources}
    pinned.update({package: version(package) for package in kind.installed})
    identity = json.dumps([FORMAT_VERSION, name, options, pinned], sort_keys=True, default=str)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def amazon_queen() -> CorpusKind:
    """The spoken lines of a computer game, by actors, with the texts that it shows: recorded English speech."""
    from standins.speech import amazon_queen

    return CorpusKind(amazon_queen.read, amazon_queen.SOURCES)


def asterisk() -> CorpusKind:
    """The English telephone prompts of Asterisk, one speaker; all of them are test."""
    from standins.speech import asterisk

    return CorpusKind(asterisk.read, asterisk.SOURCES)


def espeak() -> CorpusKind:
    """Real sentences of 2 to 14 words, said by the voices of eSpeak NG; a fifth of them in dev and test only."""
    from standins.speech import espeak

    return CorpusKind(espeak.read, (), espeak.resolve_text_sources, ("espeakng-loader",))


def kokoro() -> CorpusKind:
    """Real sentences, said by the neural voices of Kokoro; a fifth of them in dev and test only."""
    from standins.speech import kokoro

    return CorpusKind(kokoro.read, kokoro.SOURCES, kokoro.resolve_text_sources, ("espeakng-loader",))


def data_set() -> CorpusKind:
    """Any data set of the Hugging Face hub with audio and text, or a folder of the same form."""
    return CorpusKind(hub.read)


CORPORA: dict[str, Callable[[], CorpusKind]] = {
    "amazon_queen": amazon_queen,
    "asterisk": asterisk,
    "espeak": espeak,
    "kokoro": kokoro,
    "hub": data_set,
}
