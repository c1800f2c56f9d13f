"""What a corpus reader hands over: recordings one by one, before splits are given and audio is stored."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from lab.data.filters.filtering import LeftOut
from lab.data.forms import FORMS
from lab.data.hub import NEWEST, open_splits, parse_name
from lab.data.media import Drawn
from lab.data.sample import Audio, Sample
from lab.data.splits import Split
from lab.errors import LabError

# A sample with one sound, and its split where the source itself has splits; else the sentence decides.
Recording = tuple[Sample, Split | None]
_OWN_SPLITS: dict[str, Split] = {"train": "train", "dev": "dev", "valid": "dev", "eval": "test", "test": "test"}


@dataclass
class Reading:
    """A corpus as its reader sees it.

    `sources` maps a package or file to its SHA-256; `skipped` counts by reason what the reader could not pair and goes
    on counting while `recordings` is consumed; what `held_out_speakers` say never stands in training.
    """

    language: str
    licence: str
    sources: dict[str, str]
    recordings: Iterator[Recording]
    held_out_speakers: frozenset[str] = frozenset()
    skipped: Counter[str] = field(default_factory=Counter)


def spoken(id: str, text: str, sound: Drawn, *, speaker: str) -> Sample:
    """A sentence and the sound of it, which is made or decoded when it is read."""
    return Sample(id=id, content=(Audio(sound, speaker=speaker),), answer=text, task="transcribe")


def read_hub(
    *,
    dataset: str,
    limit: int | None = None,
    language: str = "en",
    columns: Mapping[str, str] | None = None,
    revision: str | None = None,
) -> Reading:
    """Stream a data set of the hub, or a folder of the same form; at most `limit` recordings of each split.

    `columns` are as in `HubSplit.samples`, of the form `transcribe`; `revision` pins a commit. The data set's own
    splits hold (`validation` is dev, all that begins with `test` is test); one without splits is split by sentence.

    Raises:
        LabError: as `open_splits` and `HubSplit.samples`.
    """
    splits = open_splits(dataset, revision=revision)
    only = parse_name(dataset)[2]
    chosen = [opened for name, opened in splits.items() if only in (None, name)]
    left_out = LeftOut()
    skipped: Counter[str] = Counter()
    form = FORMS["transcribe"]
    streams = [(opened.split, opened.samples(form, left_out, limit=limit, columns=columns)) for opened in chosen]
    # One split alone that says nothing but "train" is a data set without splits.
    alone = set(splits) == {"train"}

    def recordings() -> Iterator[Recording]:
        for split, stream in streams:
            for sample in stream:
                yield sample, None if alone else own_split(split)
        skipped.update(left_out.counts())

    return Reading(
        language=language,
        licence=chosen[0].licence,
        sources={dataset: revision or NEWEST},
        recordings=recordings(),
        skipped=skipped,
    )


def own_split(name: str) -> Split:
    """Map a data set's split to train, dev or test: `validation.clean` is dev, `test_net` and `eval` are test.

    Raises:
        LabError: the name begins with none of the known ones.
    """
    for start, split in _OWN_SPLITS.items():
        if name.lower().startswith(start):
            return split
    raise LabError(
        f"split {name!r} is of no known kind; expected a name that begins with one of: {', '.join(_OWN_SPLITS)}"
    )
