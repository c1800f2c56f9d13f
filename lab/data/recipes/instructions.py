"""The project's own instruction sources (`lab.data.instructions.instructions`) as a source of a recipe."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice

import pyarrow as pa

from lab.data.instructions.instructions import InstructionReading, read_instructions
from lab.data.recipes.files import BATCH_ROWS
from lab.data.recipes.source import Source


@dataclass(frozen=True, kw_only=True)
class Instructions(Source):
    """Prompts and answers by name, such as `chatterbot`, `bigbench:TASK` or `hub:OWNER/NAME`, several joined by `+`.

    The licence is the sources' own. What they leave out (a pair said before, an empty answer) the card counts apart.
    """

    corpus: str
    licence: str = ""
    revision: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        self._read()  # nothing is fetched, but the names and the limit are looked at

    def parts(self) -> list[str]:
        """One stream."""
        return [self.corpus]

    def identity(self, part: str) -> str:
        """The packages' hashes and the hub's revision, and the limit."""
        pinned = ", ".join(f"{name} {version}" for name, version in self._read().sources.items())
        return f"{part}: {pinned}" + (f" (first {self.limit})" if self.limit else "")

    def told_licence(self) -> str:
        """The sources' own."""
        return self.licence or self._read().licence

    def tables(self, part: str, skipped: Counter[str]) -> Iterator[pa.Table]:
        """One row an instruction, with the columns of `Instruction`."""
        reading = self._read()
        while rows := [asdict(one) for one in islice(reading.instructions, BATCH_ROWS)]:
            yield pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in rows[0]]))
        skipped.update(reading.skipped)

    def _read(self) -> InstructionReading:
        return read_instructions(self.corpus, limit=self.limit, revision=self.revision)
