"""Recorded speech: the lines that actors speak in Flight of the Amazon Queen, paired with the game's own texts.

The game keeps everything in one file, `queen.1c` (big-endian). Narration stands in a text file in it, dialogue in
binary `.DOG` files, cutscenes in `.CUT` files; a text's segments end at a star and a two-character code (`*03`), each
segment is one MP3 clip, and the clip's name follows from the place of the text. Whatever does not parse or pair is
counted, never guessed.
"""

import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from numpy import ndarray

from lab.data.fetch import fetch, packages
from lab.data.sample import Drawn
from lab.data.speech.audio import read_audio
from lab.data.speech.corpora import Reading, Recording, spoken
from lab.data.splits import held_out_speakers, normalize_sentence
from lab.errors import LabError

PACKAGE = "flight-of-the-amazon-queen"
SOURCES = (PACKAGE,)
GAME_FILE = "usr/share/scummvm/flight-of-the-amazon-queen/queen.1c"

NARRATION = "QUEEN2.JAS"
NARRATION_OFFSET = 40
HEADER_BYTES = 20
LEVEL_BYTES = 96
FIRST_LINE = 32
JOE = "JOE"
CUTSCENE = "CUTSCENE"
# Noises are not speech; the game's font draws a trademark sign for `^_` and a note for `@`.
_NOISE = re.compile(r"\([^)]*\)|<[^>]*>")
_ORNAMENT = re.compile(r"\^_|@")
# A stage direction moves a figure (`*XY00(128,112)`) or sets its face (`*03`, `*FL`); both end a segment.
_CODE = re.compile(r"\*(?:XY\d\d\(\d+,\d+\)|[0-9A-Z]{2})")


@dataclass(frozen=True)
class Line:
    """One spoken text: `clip` names its audio in the game file, without `.SB`."""

    clip: str
    text: str
    speaker: str


class GameFile:
    """The directory of `queen.1c`: entries of 21 bytes from byte 15, a NUL-padded name, bundle, offset and size."""

    def __init__(self, *, data: bytes, path: str) -> None:
        self.data = data
        self.entries: dict[str, tuple[int, int]] = {}
        try:
            (count,) = struct.unpack_from(">H", data, 13)
            for position in range(15, 15 + 21 * count, 21):
                name, _, offset, size = struct.unpack_from(">12sBII", data, position)
                if offset + size > len(data):
                    raise LabError(f"{path} is truncated: entry {name!r} ends behind the end of the file")
                self.entries[name.split(b"\0")[0].decode("latin-1")] = (offset, size)
        except struct.error as error:
            raise LabError(f"{path} is not the game file of Flight of the Amazon Queen") from error

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def read(self, name: str) -> bytes:
        """Return the bytes of one entry."""
        offset, size = self.entries[name]
        return self.data[offset : offset + size]


def segments(text: str) -> list[str]:
    """Cut a text at its codes; the place in the list, from 1, is the segment's number, empty segments included.

    >>> segments("*19Hello,*17 it's me.")
    ['', 'Hello,', " it's me."]
    """
    return _CODE.split(text)


def narration(game: GameFile) -> Iterator[Line]:
    """Yield Joe's remarks: segment j of line k, both from 1, is `JOE%04d%X` of k + 40 and j."""
    for number, text in enumerate(game.read(NARRATION).decode("latin-1").split("\r\n"), 1):
        for place, segment in enumerate(segments(text), 1):
            yield Line(f"JOE{number + NARRATION_OFFSET:04d}{place:X}", _clean(segment), JOE)


def dialogue(name: str, data: bytes) -> Iterator[Line]:
    """Yield the lines of one `.DOG` file: Joe's, then the other person's, then both openings of a later talk.

    A clip is the dialogue's key, the line's id (`SSSS` for id 0, the opening of the first talk; `XXXX` for a later
    one), `J` or `P`, and the segment. Id 0 in the other person's list repeats Joe's later opening and has no clip.
    """
    body = data[HEADER_BYTES:]
    levels, key, num_joe, num_other, other_lines, openings = (
        struct.unpack_from(">h", body, position)[0] for position in (0, 4, 6, 8, 22, 26)
    )
    person = re.sub(r"\d+$", "", name.removesuffix(".DOG"))

    def lines_of(text: str, line_id: str, who: str) -> Iterator[Line]:
        for place, segment in enumerate(segments(text), 1):
            clip = f"{key:2d}{line_id:>4}{who}{place:X}".replace(" ", "0").upper()
            yield Line(clip, _clean(segment), JOE if who == "J" else person)

    for who, position, count in (("J", FIRST_LINE + LEVEL_BYTES * abs(levels), num_joe), ("P", other_lines, num_other)):
        for _ in range(count):
            (number,) = struct.unpack_from(">H", body, position + 2)
            text, position = _string(body, position + 4, align=4)
            if number or who == "J":
                yield from lines_of(text, f"{number:X}" if number else "SSSS", who)
    position = openings
    for who in ("P", "J"):
        text, position = _string(body, position, align=2)
        yield from lines_of(text, "XXXX", who)


def cutscene(name: str, data: bytes) -> Iterator[Line]:
    """Yield the lines of one `.CUT` file: the strings between two offsets in its header, numbered from 0.

    A clip is the file's name filled up to five characters with `_`, the string's number, the segment. Who speaks stands
    in a part of the file that is not read, so all lines share one label; a held-out character may be among them.
    """
    body = data[HEADER_BYTES:]
    position, end = struct.unpack_from(">2H", body, 8)
    number = 0
    while position < end:
        # An empty string is one byte and, unlike the others, not followed by padding.
        text, position = _string(body, position, align=2) if body[position] else ("", position + 1)
        for place, segment in enumerate(segments(text), 1):
            yield Line(f"{name.removesuffix('.CUT'):_<5}{number:02d}{place:X}", _clean(segment), CUTSCENE)
        number += 1


def _string(data: bytes, position: int, *, align: int) -> tuple[str, int]:
    """Read a string and the position behind it, rounded up to a multiple of `align`."""
    end = position + 1 + data[position]
    if end > len(data):
        raise IndexError(end)
    return data[position + 1 : end].decode("latin-1"), -(-end // align) * align


def _clean(segment: str) -> str:
    return _ORNAMENT.sub("", segment).strip()


def paired_lines(game: GameFile, skipped: Counter[str], *, cutscenes: bool = True) -> list[Line]:
    """Return the lines whose clip is there, one line a clip; everything else is counted in `skipped` by reason."""
    readers = {".DOG": dialogue, ".CUT": cutscene} if cutscenes else {".DOG": dialogue}
    lines = list(narration(game))
    for name in sorted(game.entries):
        read_lines = readers.get(name[-4:])
        if read_lines is not None:
            try:
                lines.extend(read_lines(name, game.read(name)))
            except (struct.error, IndexError):
                skipped["file of lines that does not parse"] += 1
    paired: dict[str, list[Line]] = {}
    for line in lines:
        if not normalize_sentence(line.text):
            continue
        if f"{line.clip}.SB" in game:
            paired.setdefault(line.clip, []).append(line)
        else:
            skipped["text without a clip"] += 1
    skipped["clip without a text"] += sum(name.endswith(".SB") for name in game.entries) - len(paired)
    spoken: list[Line] = []
    for candidates in paired.values():
        if len({normalize_sentence(line.text) for line in candidates}) > 1:
            skipped["clip with two texts"] += 1
        elif _NOISE.search(candidates[0].text):
            skipped["noise in the text"] += 1
        else:
            spoken.append(candidates[0])
    return spoken


def transcripts() -> list[str]:
    """Return the texts alone, for the language model; no audio is decoded."""
    return [line.text for line in paired_lines(_open(fetch(PACKAGE)), Counter())]


def read(*, cutscenes: bool = True, held_out_fraction: float = 0.2, minor_share: float = 0.02) -> Reading:
    """Read the corpus; a fraction of the characters with at most `minor_share` of the lines is held out of training.

    Without `cutscenes`, only narration and dialogue, whose speakers are known.
    """
    game = _open(fetch(PACKAGE))
    skipped: Counter[str] = Counter()
    lines = paired_lines(game, skipped, cutscenes=cutscenes)
    counts = Counter(line.speaker for line in lines if line.speaker != CUTSCENE)
    minor = [speaker for speaker, count in counts.items() if count <= minor_share * counts.total()]

    def recordings() -> Iterator[Recording]:
        for line in lines:
            entry = f"{line.clip}.SB"
            yield spoken(line.clip, line.text, Drawn(_decode, (game, entry)), speaker=line.speaker), None

    return Reading(
        language="en",
        licence=packages()[PACKAGE].licence,
        sources={PACKAGE: packages()[PACKAGE].sha256},
        recordings=recordings(),
        held_out_speakers=held_out_speakers(minor, held_out_fraction),
        skipped=skipped,
    )


def _decode(game: GameFile, entry: str) -> Float[ndarray, " samples"]:
    return read_audio(game.read(entry), name=entry, format="mp3")


def _open(folder: Path) -> GameFile:
    path = folder / GAME_FILE
    return GameFile(data=path.read_bytes(), path=str(path))
