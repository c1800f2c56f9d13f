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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lab.data.fetch import available, packages
from lab.data.filters.filtering import LeftOut
from lab.data.forms import FORMS
from lab.data.hub import open_splits, parse_name, pinned_revision
from lab.data.sample import TRANSCRIBE, Audio, Drawn, Sample, UniqueIds
from lab.data.sources import OuterSource
from lab.data.speech.audio import PCM_SCALE, SAMPLING_RATE, Clip
from lab.data.speech.spoken_prompts import ENGINES
from lab.data.splits import SPLITS, Split, assign_split, normalize_sentence
from lab.errors import LabError, TryAgain, choose
from lab.paths import cache_dir, make_folder

# Raise it when preparing changes, so that corpora prepared by older code are prepared again.
FORMAT_VERSION = 2
DEFAULT_CORPUS = "default"
_MIN_SECONDS = 0.2
_NUM_PROBLEMS = 100
_OWN_SPLITS: dict[str, Split] = {"train": "train", "dev": "dev", "valid": "dev", "eval": "test", "test": "test"}

# A sample with one sound, and its split where the source itself has splits; else the sentence decides.
Recording = tuple[Sample, Split | None]


@dataclass
class Reading:
    """A corpus as its reader sees it.

    `sources` maps a package or file to its SHA-256; `skipped` counts by reason what the reader could not pair or use,
    and `problems` names what of it is at fault: both go on while `recordings` is consumed. What `held_out_speakers` say
    never stands in training.
    """

    language: str
    licence: str
    sources: dict[str, str]
    recordings: Iterator[Recording]
    held_out_speakers: frozenset[str] = frozenset()
    skipped: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def spoken(id: str, text: str, sound: Drawn, *, speaker: str) -> Sample:
    """A sentence and the sound of it, which is made or decoded when it is read."""
    return Sample(id=id, content=(Audio(sound, speaker=speaker),), answer=text, task=TRANSCRIBE)


class Corpus:
    """A prepared corpus: samples of one sound and its text; `sha256` covers the sounds and the texts.

    `manifest` has what it is: counts, per split too, sources, licence, what was skipped and why. Samples of one
    sentence are one group. Of an id that comes again, the later samples have a number after it.
    """

    def __init__(self, *, folder: Path) -> None:
        self.folder = folder
        audio = folder / "audio.i16"
        try:
            self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            table = pd.read_parquet(folder / "utterances.parquet")
            size = audio.stat().st_size
        except (OSError, ValueError) as error:
            raise LabError(
                f"the prepared corpus {folder} cannot be read ({error}); delete it to make it again"
            ) from error
        if size != 2 * table["num_samples"].sum():
            raise LabError(f"the prepared corpus {folder} is damaged (audio.i16); delete it to make it again")
        self.name: str = self.manifest["name"]
        self.sha256: str = self.manifest["sha256"]
        self._splits: list[Split] = table["split"].tolist()
        rows = zip(map(UniqueIds("#"), table["id"]), table.to_dict("records"), strict=True)
        self.samples = [
            Sample(
                id=id,
                content=(Audio(Clip(audio, row["start"], row["num_samples"]), speaker=row["speaker"]),),
                answer=row["text"],
                task=TRANSCRIBE,
                source=self.name,
                group=normalize_sentence(row["text"]),
            )
            for id, row in rows
        ]

    def split(self, name: Split) -> list[Sample]:
        """Return the samples of one split."""
        return [sample for sample, split in zip(self.samples, self._splits, strict=True) if split == name]


@dataclass(frozen=True)
class CorpusKind:
    """How a corpus is read; the hashes of `sources` and the versions of `installed` packages are part of its key.

    `text_sources` asks what this machine has of the texts that voices read, where none are named. `state` tells, given
    the options, which state of the user's data they name; it is part of the key as well.
    """

    read: Callable[..., Reading]
    sources: tuple[str, ...] = ()
    installed: tuple[str, ...] = ()
    text_sources: Callable[[], tuple[str, ...]] | None = None
    state: Callable[..., str] | None = None


def load_corpus(name: str, *, num_utterances: int = 0, **options: Any) -> Corpus:
    """Open a corpus by name; the first call prepares it. `options` are those of its reader.

    `default` is recorded speech where it can be fetched, else synthetic. `num_utterances` is for the corpora that are
    spoken on demand (0: their default).

    Raises:
        LabError: unknown corpus or option, a source that cannot be fetched, no usable utterance, disk full.
    """
    name = default_corpus() if name == DEFAULT_CORPUS else name
    base, _, dataset = name.partition(":")
    kind = choose(CORPORA, base, "corpus")()
    if dataset:
        options = {"dataset": dataset, **options}
    if kind.text_sources is not None:
        number = {"num_utterances": num_utterances} if num_utterances else {}
        options = {"text_sources": kind.text_sources(), **number, **options}
    resolved = _resolve(kind.read, name, options)
    root = cache_dir() / "corpora"
    folder = root / f"{re.sub(r'[^a-zA-Z0-9_.-]+', '_', name)}-{_key(name, kind, resolved)}"
    try:
        make_folder(folder, lambda made: prepare(name, kind.read(**resolved), made, options=resolved))
        return Corpus(folder=folder)
    except OSError as error:
        why = "no space is left on the disk" if error.errno == errno.ENOSPC else error.strerror or error
        raise LabError(f"corpus {name!r} cannot be prepared in {root}: {why}") from error


def drawn(samples: Sequence[Sample], count: int) -> list[Sample]:
    """So many of them, always the same, in their order; all where `count` is 0.

    By hash, because corpora are in the order of their recording: the first would not stand for the rest.
    """
    by_hash = sorted(samples, key=lambda one: hashlib.sha256(one.id.encode()).hexdigest())
    taken = {one.id for one in by_hash[: count or None]}
    return [one for one in samples if one.id in taken]


def _utterances(split: Split, count: int, corpus: str) -> tuple[list[Sample], LeftOut]:
    return drawn(load_corpus(corpus).split(choose({one: one for one in SPLITS}, split, "split")), count), LeftOut()


def _check(corpus: str) -> None:
    name = corpus.partition(":")[0]
    choose({**CORPORA, DEFAULT_CORPUS: None}, name, "corpus")
    if name in ENGINES:
        ENGINES[name]().check()


def default_corpus() -> str:
    """The corpus a study takes when none is named: recorded speech where it can be fetched."""
    (package,) = amazon_queen().sources
    return "amazon_queen" if available(package) else "espeak"


def prepare(name: str, reading: Reading, folder: Path, *, options: Mapping[str, Any]) -> None:
    """Write a corpus into a folder: splits given, audio decoded, unusable recordings left out and counted.

    Left out: a text that is empty after normalisation, audio that fails (the manifest's `problems` name the first) or
    is shorter than 0.2 seconds, and whatever `assign_split` keeps out of training. Where a source brings its own test
    split, its training also leaves out every sentence of that.
    """
    skipped = reading.skipped
    kept: list[tuple[Sample, Split]] = []
    for sample, own in reading.recordings:
        if not normalize_sentence(sample.answer):
            skipped["text empty after normalisation"] += 1
            continue
        held_out = sample.sound.speaker in reading.held_out_speakers
        split, reason = assign_split(sample.answer, own_split=own, held_out_speaker=held_out)
        if split is None:
            skipped[reason] += 1
        else:
            kept.append((sample, split))
    tested = {normalize_sentence(sample.answer) for sample, split in kept if split == "test"}
    clean = [one for one in kept if one[1] == "test" or normalize_sentence(one[0].answer) not in tested]
    skipped["sentence of this corpus's own test split"] += len(kept) - len(clean)
    rows, audio_digest = _write_audio(folder / "audio.i16", name, clean, skipped, reading.problems)
    counted = {reason: count for reason, count in sorted(skipped.items()) if count}
    if not rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in counted.items()) or "none"
        raise LabError(
            "; ".join([f"corpus {name!r} has no usable utterance; skipped: {reasons}", *reading.problems[:1]])
        )
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
        "skipped": counted,
        "problems": reading.problems[:_NUM_PROBLEMS],
        "options": options,
        "audio_sha256": audio_digest,
        "sha256": hashlib.sha256((json.dumps(rows) + audio_digest).encode()).hexdigest(),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


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
            except TryAgain:  # what is left out here stays so
                raise
            except LabError as error:
                skipped["audio that cannot be read"] += 1
                problems.append(f"sample {sample.id!r} of corpus {name!r}: {error}")
                continue
            if samples.size < _MIN_SECONDS * SAMPLING_RATE:
                skipped[f"shorter than {_MIN_SECONDS} seconds"] += 1
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
    if kind.state is not None:
        pinned["state"] = kind.state(**options)
    identity = json.dumps([FORMAT_VERSION, name, options, pinned], sort_keys=True, default=str)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def read_hub(
    *,
    dataset: str,
    limit: int | None = None,
    language: str = "en",
    revision: str | None = None,
) -> Reading:
    """Stream a data set of the hub, or a folder of the same form; at most `limit` recordings of each split.

    Rows are of the form `transcribe`; `revision` names a commit (None: as `pinned_revision`). The own splits of a data
    set hold (`validation` is dev, all that begins with `test` is test); one without splits is split by sentence.
    """
    splits = open_splits(dataset, revision=revision)
    only = parse_name(dataset)[2]
    chosen = [opened for name, opened in splits.items() if only in (None, name)]
    left_out = LeftOut()
    skipped: Counter[str] = Counter()
    problems: list[str] = []
    form = FORMS["transcribe"]
    streams = [(opened.split, opened.samples(form, left_out, limit=limit)) for opened in chosen]
    # One split alone that says nothing but "train" is a data set without splits.
    alone = set(splits) == {"train"}

    def recordings() -> Iterator[Recording]:
        for split, stream in streams:
            for sample in stream:
                yield sample, None if alone else own_split(split)
        skipped.update(left_out.counts())
        problems.extend(f"row {id!r} of {dataset}: {reason}" for reason, ids in left_out.items() for id in ids)

    return Reading(
        language=language,
        licence=chosen[0].licence,
        sources={dataset: chosen[0].revision},
        recordings=recordings(),
        skipped=skipped,
        problems=problems,
    )


def own_split(name: str) -> Split:
    """Map a data set's split to train, dev or test: `validation.clean` is dev, `test_net` and `eval` are test."""
    for start, split in _OWN_SPLITS.items():
        if name.lower().startswith(start):
            return split
    raise LabError(
        f"split {name!r} is of no known kind; expected a name that begins with one of: {', '.join(_OWN_SPLITS)}"
    )


def _state(dataset: str, revision: str | None, **options: Any) -> str:
    return revision or pinned_revision(parse_name(dataset)[0])


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

    return CorpusKind(espeak.read, (), ("espeakng-loader",), texts.spoken_text_sources)


def kokoro() -> CorpusKind:
    """Real sentences, said by the neural voices of Kokoro; a fifth of them in dev and test only."""
    from standins import texts
    from standins.speech import kokoro

    return CorpusKind(kokoro.read, kokoro.SOURCES, ("espeakng-loader",), texts.spoken_text_sources)


def data_set() -> CorpusKind:
    """Any data set of the Hugging Face hub with audio and text, or a folder of the same form."""
    return CorpusKind(read_hub, state=_state)


CORPORA: dict[str, Callable[[], CorpusKind]] = {
    "amazon_queen": amazon_queen,
    "asterisk": asterisk,
    "espeak": espeak,
    "kokoro": kokoro,
    "hub": data_set,
}

UTTERANCES = OuterSource(read=_utterances, check=_check, state=lambda corpus: load_corpus(corpus).sha256, any_size=True)
"""A source of samples that are utterances; what stands behind its name is a corpus."""
