"""Recorded speech of one speaker: Asterisk's English telephone prompts, the out-of-domain test, never trained on."""

import gzip
import re
from collections import Counter
from collections.abc import Iterator

from lab.data.fetch import fetch, packages
from lab.data.sample import Drawn
from lab.data.speech.audio import read_audio
from lab.data.speech.corpora import Reading, Recording, spoken
from lab.data.splits import is_reserved, normalize_sentence
from lab.errors import LabError

TEXTS, SOUNDS = "asterisk-core-sounds-en", "asterisk-core-sounds-en-g722"
SOURCES = (TEXTS, SOUNDS)
TEXT_FILE = "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
SOUND_FOLDER = "usr/share/asterisk/sounds/en_US_f_Allison"
SPEAKER = "ALLISON"
_SOUND = re.compile(r"\[[^]]*\]")


def transcripts(text: str) -> dict[str, str]:
    """Read `name: text` lines; a semicolon begins a comment, and a text with `[...]` is a sound, not speech.

    >>> transcripts("; heading\\nagent-user: Agent login.\\nbeep: [a tone]")
    {'agent-user': 'Agent login.'}
    """
    prompts: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, words = line.partition(":")
        if not colon or line.lstrip().startswith(";") or _SOUND.search(words):
            continue
        prompts[name.strip()] = words.strip()
    return prompts


def read() -> Reading:
    """Read the corpus; every utterance is test, and its sentence a reserved one, which stands in no training."""
    prompts = transcripts(gzip.decompress((fetch(TEXTS) / TEXT_FILE).read_bytes()).decode("utf-8"))
    sounds = fetch(SOUNDS) / SOUND_FOLDER
    skipped: Counter[str] = Counter()
    missing = [text for text in prompts.values() if normalize_sentence(text) and not is_reserved(text)]
    if missing:
        raise LabError(
            f"{len(missing)} sentences of {TEXTS} are not in lab/data/reserved_sentences.txt, among them {missing[0]!r}"
        )
    present = {path.relative_to(sounds).with_suffix("").as_posix() for path in sounds.rglob("*.g722")}
    skipped["text without a clip"] = len(prompts.keys() - present)
    skipped["clip without a text"] = len(present - prompts.keys())

    def recordings() -> Iterator[Recording]:
        for name in sorted(prompts.keys() & present):
            path = sounds / f"{name}.g722"
            audio = Drawn(read_audio, (path,))
            yield spoken(name, prompts[name], audio, speaker=SPEAKER), "test"

    return Reading(
        language="en",
        licence=packages()[SOUNDS].licence,
        sources={source: packages()[source].sha256 for source in SOURCES},
        recordings=recordings(),
        skipped=skipped,
    )
