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
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lab.data.fetch import available, packages
from lab.data.sample import Audio, Sample
from lab.data.speech.audio import PCM_SCALE, SAMPLING_RATE, Clip
from lab.data.speech.recordings import Reading, read_hub
from lab.data.splits import SPLITS, Split, assign_split, normalize_sentence
from lab.errors import LabError, choose
from lab.paths import cache_dir, make_folder

# Raise it when preparing changes, so that corpora prepared by older code are prepared again.
FORMAT_VERSION = 1
MIN_SECONDS = 0.2
UNREADABLE = "audio that cannot be read"
_NUM_PROBLEMS = 5


class Corpus:
    """A prepared corpus: samples of one sound and its text; `sha256` covers the sounds and the texts.

    Samples of one sentence are one group. Of an id that comes again, the later samples have a number behind it.
    """

    def __init__(self, *, folder: Path) -> None:
        self.folder = folder
        audio = folder / "audio.i16"
        try:
            self._manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            table = pd.read_parquet(folder / "utterances.parquet")
            size = audio.stat().st_size
        except (OSError, ValueError) as error:
            raise LabError(
                f"the prepared corpus {folder} cannot be read ({error}); delete it to make it again"
            ) from error
        if size != 2 * table["num_samples"].sum():
            raise LabError(f"the prepared corpus {folder} is damaged (audio.i16); delete it to make it again")
        self.name: str = self._manifest["name"]
        self.language: str = self._manifest["language"]
        self.licence: str = self._manifest["licence"]
        self.sources: dict[str, str] = self._manifest["sources"]
        self.sha256: str = self._manifest["sha256"]
        self._splits: list[Split] = table["split"].tolist()
        rows = zip(unique(table["id"]), table.to_dict("records"), strict=True)
        self.samples = [
            Sample(
                id=id,
                content=(Audio(Clip(audio, row["start"], row["num_samples"]), speaker=row["speaker"]),),
                answer=row["text"],
                task="transcribe",
                source=self.name,
                group=normalize_sentence(row["text"]),
            )
            for id, row in rows
        ]

    def split(self, name: Split) -> list[Sample]:
        """Return the samples of one split.

        Raises:
            LabError: `name` is not train, dev or test.
        """
        choose(dict.fromkeys(SPLITS), name, "split")
        return [sample for sample, split in zip(self.samples, self._splits, strict=True) if split == name]

    def manifest(self) -> dict[str, Any]:
        """Return what the corpus is: counts, per split too, sources, licence, SHA-256, what was skipped and why."""
        return json.loads(json.dumps(self._manifest))


def unique(ids: Iterable[str]) -> list[str]:
    """The ids, with a number behind those that come again: FLEURS names a sentence, which several people read.

    >>> unique(["7", "8", "7"])
    ['7', '8', '7#2']
    """
    seen: Counter[str] = Counter()
    named = []
    for one in ids:
        seen[one] += 1
        named.append(one if seen[one] == 1 else f"{one}#{seen[one]}")
    return named


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
    """Write a corpus into a folder: splits given, audio decoded, unusable recordings left out and counted.

    Left out: a text that is empty after normalisation, audio that fails (the manifest's `problems` name the first) or
    is shorter than 0.2 seconds, and whatever `assign_split` keeps out of training. Where a source brings its own test
    split, its training also leaves out every sentence of that.
    """
    skipped = reading.skipped
    kept: list[tuple[Sample, Split]] = []
    for sample, own_split in reading.recordings:
        if not normalize_sentence(sample.answer):
            skipped["text empty after normalisation"] += 1
            continue
        held_out = sample.sound.speaker in reading.held_out_speakers
        split, reason = assign_split(sample.answer, own_split=own_split, held_out_speaker=held_out)
        if split is None:
            skipped[reason] += 1
        else:
            kept.append((sample, split))
    kept = _without_own_test_sentences(kept, skipped)
    folder.mkdir(parents=True, exist_ok=True)
    problems: list[str] = []
    rows, audio_digest = _write_audio(folder / "audio.i16", name, kept, skipped, problems)
    if not rows:
        why = f"; {problems[0]}" if problems else ""
        raise LabError(f"corpus {name!r} has no usable utterance; skipped: {_reasons(skipped)}{why}")
    pd.DataFrame(rows).to_parquet(folder / "utterances.parquet", index=False)
    manifest = {
        "name": name,
        "language": reading.language,
        "licence": reading.licence,
        "sources": reading.sources,
        "sampling_rate": SAMPLING_RATE,
        **_counts(rows),
        "splits": {split: _counts([row for row in rows if row["split"] == split]) for split in SPLITS},
        "held_out_speakers": sorted(reading.held_out_speakers),
        "skipped": {reason: count for reason, count in sorted(skipped.items()) if count},
        "problems": problems[:_NUM_PROBLEMS],
        "options": dict(options or {}),
        "audio_sha256": audio_digest,
        "sha256": hashlib.sha256((json.dumps(rows) + audio_digest).encode()).hexdigest(),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _without_own_test_sentences(kept: list[tuple[Sample, Split]], skipped: Counter[str]) -> list[tuple[Sample, Split]]:
    tested = {normalize_sentence(sample.answer) for sample, split in kept if split == "test"}
    clean = [one for one in kept if one[1] == "test" or normalize_sentence(one[0].answer) not in tested]
    skipped["sentence of this corpus's own test split"] += len(kept) - len(clean)
    return clean


def _write_audio(
    path: Path, name: str, kept: Iterable[tuple[Sample, Split]], skipped: Counter[str], problems: list[str]
) -> tuple[list[dict[str, Any]], str]:
    """Write the sounds; returns a row for each that could be read, and the hash of them all."""
    rows: list[dict[str, Any]] = []
    digest = hashlib.sha256()
    position = 0
    with path.open("wb") as file:
        for sample, split in kept:
            sound = sample.sound
            try:
                samples = sound.read()
            except LabError as error:
                skipped[UNREADABLE] += 1
                problems.append(f"sample {sample.id!r} of corpus {name!r}: {error}")
                continue
            if samples.size < MIN_SECONDS * SAMPLING_RATE:
                skipped[f"shorter than {MIN_SECONDS} seconds"] += 1
                continue
            pcm = np.clip(np.rint(samples * PCM_SCALE), -32768, 32767).astype("<i2").tobytes()
            file.write(pcm)
            digest.update(pcm)
            told = {"id": sample.id, "text": sample.answer, "speaker": sound.speaker, "split": split}
            rows.append({**told, "start": position, "num_samples": samples.size})
            position += samples.size
    return rows, digest.hexdigest()


def _counts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "utterances": len(rows),
        "seconds": round(sum(row["num_samples"] / SAMPLING_RATE for row in rows), 2),
        "words": sum(len(row["text"].split()) for row in rows),
        "speakers": len({row["speaker"] for row in rows}),
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
    from standins import texts
    from standins.speech import espeak

    return CorpusKind(espeak.read, (), texts.resolve_text_sources, ("espeakng-loader",))


def kokoro() -> CorpusKind:
    """Real sentences, said by the neural voices of Kokoro; a fifth of them in dev and test only."""
    from standins import texts
    from standins.speech import kokoro

    return CorpusKind(kokoro.read, kokoro.SOURCES, texts.resolve_text_sources, ("espeakng-loader",))


def data_set() -> CorpusKind:
    """Any data set of the Hugging Face hub with audio and text, or a folder of the same form."""
    return CorpusKind(read_hub)


CORPORA: dict[str, Callable[[], CorpusKind]] = {
    "amazon_queen": amazon_queen,
    "asterisk": asterisk,
    "espeak": espeak,
    "kokoro": kokoro,
    "hub": data_set,
}
