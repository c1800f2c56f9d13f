"""Prompts with the answers to learn: from packages and the hub by name, as a table, and split without near questions.

Section 3 of the paper (about 600,000 fine-tuning pairs). Who has another corpus writes the five columns of `COLUMNS` to
Parquet and goes on from there.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lab.data.fetch import packages
from lab.data.instructions import hub as instruction_hub
from lab.data.instructions.instruction import Instruction
from lab.data.splits import DEV_PERCENT, SPLITS, TEST_PERCENT, Split, normalize_sentence
from lab.errors import LabError, choose

__all__ = ["Instruction", "InstructionReading", "read_instructions", "split_instructions", "split_of_group"]

JOIN = "+"
# Of an option of the source, and where what is left out is counted.
Reader = Callable[[str, Counter[str]], Iterator[Instruction]]


@dataclass
class InstructionReading:
    """A stream of instructions; `skipped` counts what was left out, by reason, and is whole when the stream has ended.

    `sources` has what pins each: a package's SHA-256, a hub data set's revision.
    """

    name: str
    licence: str
    sources: Mapping[str, str]
    instructions: Iterator[Instruction]
    skipped: Counter[str] = field(default_factory=Counter)


def read_instructions(name: str, *, limit: int | None = None, revision: str | None = None) -> InstructionReading:
    """Stream the instructions of a source, or of several joined by `+`.

    Names: `chatterbot[:LANGUAGE]`, `mmlu`, `bigbench[:TASK,TASK]`, `hub:OWNER/NAME[:CONFIG[:SPLIT]]`. Of a package, a
    pair that was there before (but for case and punctuation) is left out; of the hub nothing is, so that a corpus of
    any size passes in bounded memory. Empty prompts and answers are left out everywhere. All is counted.

    Args:
        name: the sources.
        limit: instructions at most, of each source.
        revision: a commit of the hub's.

    Raises:
        LabError: unknown source, language or task, a package that cannot be fetched, a data set that cannot be read,
            or a limit below 1.
    """
    if limit is not None and limit < 1:
        raise LabError(f"limit is {limit}; expected at least 1 instruction, or none for all")
    skipped: Counter[str] = Counter()
    licences: list[str] = []
    pinned: dict[str, str] = {}
    streams: list[Iterator[Instruction]] = []
    for part in name.split(JOIN):
        source, _, option = part.partition(":")
        if source == "hub":
            opened = instruction_hub.open_rows(option, revision=revision)
            licences.append(opened.licence)
            pinned[part] = revision or "newest revision when it was read"
            stream = instruction_hub.instructions(opened, skipped)
        else:
            package, reader = choose({**INSTRUCTION_SOURCES, "hub": ("", _refuse)}, source, "source of instructions")
            licences.append(packages()[package].licence)
            pinned[package] = packages()[package].sha256
            stream = _distinct(reader()(option, skipped), skipped)
        streams.append(_first(_not_empty(stream, skipped), limit))
    return InstructionReading(
        name, "; ".join(dict.fromkeys(licences)), pinned, (one for stream in streams for one in stream), skipped
    )


def _refuse() -> Reader:
    raise AssertionError("the hub is opened by its own reader")


def _first(stream: Iterator[Instruction], limit: int | None) -> Iterator[Instruction]:
    for number, instruction in enumerate(stream, start=1):
        yield instruction
        if number == limit:
            return


def _not_empty(stream: Iterator[Instruction], skipped: Counter[str]) -> Iterator[Instruction]:
    for instruction in stream:
        if not instruction.prompt.strip():
            skipped["empty prompt"] += 1
        elif not instruction.answer.strip():
            skipped["empty answer"] += 1
        else:
            yield instruction


def _distinct(stream: Iterator[Instruction], skipped: Counter[str]) -> Iterator[Instruction]:
    seen: set[tuple[str, str]] = set()
    for instruction in stream:
        pair = normalize_sentence(instruction.prompt), normalize_sentence(instruction.answer)
        if pair in seen:
            skipped["said before"] += 1
        else:
            seen.add(pair)
            yield instruction


def split_of_group(group: str, *, seed: int = 0) -> Split:
    """Give the split of a group: 10% of the groups are test, 5% dev, by the hash of seed and name."""
    bucket = int(hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()[:8], 16) % 100
    if bucket < TEST_PERCENT:
        return "test"
    return "dev" if bucket < TEST_PERCENT + DEV_PERCENT else "train"


def split_instructions(instructions: Iterable[Instruction], *, seed: int = 0) -> dict[Split, list[Instruction]]:
    """Part instructions into train, dev and test by whole groups, so that no test question is near a training one.

    What a group is, each source says: of `chatterbot` near prompts and whole conversations; one without a group stands
    for itself.
    """
    parts: dict[Split, list[Instruction]] = {split: [] for split in SPLITS}
    for instruction in instructions:
        parts[split_of_group(instruction.group or instruction.id, seed=seed)].append(instruction)
    return parts


def instructions_sha256(instructions: Sequence[Instruction]) -> str:
    """SHA-256 over all that the instructions say, in their order."""
    digest = hashlib.sha256()
    for one in instructions:
        digest.update(repr((one.id, one.prompt, one.answer, one.source, one.group)).encode())
    return digest.hexdigest()


def chatterbot() -> Reader:
    """The conversations of chatterbot-corpus: every turn is asked for, given the one before it."""
    from standins.instructions import chatterbot

    return chatterbot.instructions


def mmlu() -> Reader:
    """The few-shot questions of MMLU that lm-eval carries, with their choices."""
    from standins.instructions import mmlu

    return mmlu.instructions


def bigbench() -> Reader:
    """Short tasks of BIG-bench in English."""
    from standins.instructions import bigbench

    return bigbench.instructions


INSTRUCTION_SOURCES: dict[str, tuple[str, Callable[[], Reader]]] = {
    "chatterbot": ("chatterbot-corpus", chatterbot),
    "mmlu": ("lm-eval", mmlu),
    "bigbench": ("bigbench", bigbench),
}
"""The package of each source, and what reads it."""
