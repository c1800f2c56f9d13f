"""Prompts with the answers to learn: from packages and the hub by name, and split without near questions.

Section 3 of the paper (about 600,000 fine-tuning pairs). Who has another corpus writes it as a table
(`lab.data.instructions.tables`) and goes on from there.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice

from lab.data.fetch import packages
from lab.data.filters.filtering import LeftOut
from lab.data.forms import ANSWERS, FORMS, PROMPTS, TURNS
from lab.data.hub import NEWEST, PREFIX, HubSplit, SampleReading, open_split
from lab.data.sample import Sample, Text, each_answer
from lab.data.splits import DEV_PERCENT, SPLITS, TEST_PERCENT, Split, normalize_sentence
from lab.errors import LabError, choose

JOIN = "+"
_FORMS = ("messages", "pair")
# Of an option of the source, and where what is left out is counted.
Reader = Callable[[str, LeftOut], Iterator[Sample]]


def instruction(*, id: str, prompt: str, answer: str, source: str, group: str = "", task: str = "") -> Sample:
    """A prompt of one turn, and the answer to learn."""
    return Sample(id=id, content=(Text(prompt),), answer=answer, source=source, group=group, task=task)


def read_instructions(name: str, *, limit: int | None = None, revision: str | None = None) -> SampleReading:
    """Stream the instructions of a source, or of several joined by `+`.

    Names: `chatterbot[:LANGUAGE]`, `mmlu`, `bigbench[:TASK,TASK]`, `hub:DATASET[:CONFIG[:SPLIT]]` (`train` where no
    split is named), a data set of the form `messages` or `pair`; every answer of a longer conversation is one
    instruction. Of a package, a pair that was there before (but for case and punctuation) is left out; of the hub
    nothing is, so that a corpus of any size passes in bounded memory. Empty prompts and answers are left out
    everywhere. All is counted and named.

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
    left_out = LeftOut()
    licences: list[str] = []
    pinned: dict[str, str] = {}
    streams: list[Iterator[Sample]] = []
    for part in name.split(JOIN):
        source, _, option = part.partition(":")
        choose(dict.fromkeys((*INSTRUCTION_SOURCES, "hub")), source, "source of instructions")
        if source == "hub":
            opened = open_split(f"{PREFIX}{option}", revision=revision, default="train")
            licences.append(opened.licence)
            pinned[part] = revision or NEWEST
            stream = _of_hub(opened, left_out)
        else:
            package, reader = INSTRUCTION_SOURCES[source]
            licences.append(packages()[package].licence)
            pinned[package] = packages()[package].sha256
            stream = _distinct(reader()(option, left_out), left_out)
        streams.append(islice(_not_empty(stream, left_out), limit))
    licence = "; ".join(dict.fromkeys(licences))
    return SampleReading(name, licence, pinned, chain.from_iterable(streams), left_out)


def _of_hub(opened: HubSplit, left_out: LeftOut) -> Iterator[Sample]:
    """Every answer of a data set, in the form that its columns tell; a row is a group of its own."""
    present = opened.columns()
    form = next((FORMS[name] for name in _FORMS if not FORMS[name].missing(present)), None)
    if form is None:
        raise LabError(
            f"data set {opened.name} is of no known form: its columns are {', '.join(present)}; expected "
            f"{' or '.join(TURNS)}, or a prompt ({', '.join(PROMPTS)}) and an answer ({', '.join(ANSWERS)})"
        )
    rows = opened.samples(form, left_out)
    return (one for row in rows for one in each_answer(_named(row, opened)))


def _named(row: Sample, opened: HubSplit) -> Sample:
    id = f"{opened.dataset}:{row.id}"
    return replace(row, id=id, group=id, task="instruct")


def _not_empty(stream: Iterator[Sample], left_out: LeftOut) -> Iterator[Sample]:
    for one in stream:
        if not one.question.strip():
            left_out.add("empty prompt", one.id)
        elif not one.answer.strip():
            left_out.add("empty answer", one.id)
        else:
            yield one


def _distinct(stream: Iterator[Sample], left_out: LeftOut) -> Iterator[Sample]:
    seen: set[tuple[str, str]] = set()
    for one in stream:
        pair = normalize_sentence(one.asked), normalize_sentence(one.answer)
        if pair in seen:
            left_out.add("said before", one.id)
        else:
            seen.add(pair)
            yield one


def split_of_group(group: str, *, seed: int = 0) -> Split:
    """Give the split of a group: 10% of the groups are test, 5% dev, by the hash of seed and name."""
    bucket = int(hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()[:8], 16) % 100
    if bucket < TEST_PERCENT:
        return "test"
    return "dev" if bucket < TEST_PERCENT + DEV_PERCENT else "train"


def split_instructions(instructions: Iterable[Sample], *, seed: int = 0) -> dict[Split, list[Sample]]:
    """Part instructions into train, dev and test by whole groups, so that no test question is near a training one.

    What a group is, each source says: of `chatterbot` near prompts and whole conversations.
    """
    parts: dict[Split, list[Sample]] = {split: [] for split in SPLITS}
    for instruction in instructions:
        parts[split_of_group(instruction.group, seed=seed)].append(instruction)
    return parts


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
