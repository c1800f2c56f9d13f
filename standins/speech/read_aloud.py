"""Synthetic speech as a corpus: real sentences, of which those of dev and test are said by voices of their own."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from lab.data.fetch import packages
from lab.data.sample import Drawn
from lab.data.speech.corpora import Reading, Recording, spoken
from lab.data.splits import held_out_speakers, split_of
from lab.errors import LabError
from standins.texts import TEXT_SOURCES


def read_aloud(
    texts: Sequence[str],
    voices: Sequence[str],
    say: Callable[[str, str, np.random.Generator], Drawn],
    *,
    prefix: str,
    num_utterances: int,
    seed: int,
    held_out: float,
    language: str,
    licence: str,
    sources: Mapping[str, str],
    text_sources: Sequence[str],
) -> Reading:
    """Have sentences said, in an order drawn from `seed`, again from the start where more are asked for than there are.

    The share `held_out` of the voices speaks only, and alone, in dev and test. `say` is given a text and a voice, draws
    what else differs, and gives the sound. `sources` is what the voices are made of, with its hash; `text_sources` are
    names in `TEXT_SOURCES`.
    """
    if num_utterances < 1:
        raise LabError(f"num_utterances is {num_utterances}, expected at least 1")
    unheard = held_out_speakers(voices, held_out)
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(texts)) for _ in range(-(-num_utterances // len(texts)))])

    def recordings() -> Iterator[Recording]:
        for number, place in enumerate(order[:num_utterances]):
            text = texts[place]
            among = [voice for voice in voices if (voice in unheard) == (split_of(text) != "train")]
            voice = among[rng.integers(len(among))]
            yield spoken(f"{prefix}-{number:06d}", text, say(text, voice, rng), speaker=voice), None

    read = {TEXT_SOURCES[name][0]: packages()[TEXT_SOURCES[name][0]].sha256 for name in text_sources}
    return Reading(
        language=language,
        licence=f"{licence}; texts: {', '.join(text_sources)}",
        sources={**sources, **read},
        recordings=recordings(),
        held_out_speakers=unheard,
    )
