"""What a corpus reader hands over: recordings one by one, before splits are given and audio is stored."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from jaxtyping import Float
from numpy import ndarray

from lab.data.splits import Split


@dataclass(frozen=True)
class Recording:
    """One spoken sentence; `audio` decodes or synthesises it (float32, 16 kHz, mono).

    `split` is set only where the source itself has splits (a hub data set, or a corpus that is all test); else the
    sentence decides.
    """

    id: str
    text: str
    speaker: str
    audio: Callable[[], Float[ndarray, " samples"]]
    split: Split | None = None


@dataclass
class Reading:
    """A corpus as its reader sees it.

    `sources` maps a package or file to its SHA-256; `skipped` counts by reason what the reader could not pair and goes
    on counting while `recordings` is consumed; utterances of `held_out_speakers` never stand in training.
    """

    language: str
    licence: str
    sources: dict[str, str]
    recordings: Iterator[Recording]
    held_out_speakers: frozenset[str] = frozenset()
    skipped: Counter[str] = field(default_factory=Counter)
