"""Prompts with the answers to learn: from packages and the hub by name, as tables, in splits, and with choices.

Section 3 of the paper (about 600,000 fine-tuning pairs) and 4 (accuracy). Who has another corpus writes it as a table:
Parquet with `id, prompt, answer, source, group`, `task` and `messages` where there is more to tell. Filters and recipes
read `prompt`, all that was written before the answer. `messages` are the parts of any other content, empty for a prompt
of one turn: `role`, `type` (text where there is none) and `content`, of a medium where it lies, from the folder of the
table on.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from lab.data.fetch import packages
from lab.data.filters.filtering import LeftOut
from lab.data.forms import ANSWERS, FORMS, PROMPTS, TURNS
from lab.data.hub import PREFIX, HubSplit, SampleReading, open_split
from lab.data.parquet import read_schema, text_batches
from lab.data.sample import Audio, Image, Part, Sample, Text, UniqueIds, Video, each_answer, kept_media
from lab.data.sources import Largest, OuterSource
from lab.data.splits import SPLITS, Split, normalize_sentence, split_of_hash
from lab.data.video import PAPER_SIGHT, Sight
from lab.errors import LabError, choose

JOIN = "+"
_FORMS = ("messages", "pair")
NEEDED = ("id", "prompt", "answer", "source", "group")
_OF_SOUNDS = ("speaker", "text")
_MESSAGES = pa.list_(pa.struct([(name, pa.string()) for name in ("role", "type", "content", *_OF_SOUNDS)]))
COLUMNS = pa.schema(
    [
        *((name, pa.string()) for name in (*NEEDED, "task")),
        ("messages", _MESSAGES),
        ("choices", pa.list_(pa.string())),
        ("split", pa.string()),
    ]
)
_BATCH_ROWS = 8192
Item = TypeVar("Item")
# Of an option of the source, and where what is left out is counted.
Reader = Callable[[str, LeftOut], Iterator[Sample]]


def instruction(*, id: str, prompt: str, answer: str, source: str, group: str = "", task: str = "") -> Sample:
    """A prompt of one turn, and the answer to learn."""
    return Sample(id=id, content=(Text(prompt),), answer=answer, source=source, group=group, task=task)


def read_instructions(name: str, *, limit: int | None = None, revision: str | None = None) -> SampleReading:
    """Stream the instructions of a source, or of several joined by `+`.

    Names: `chatterbot[:LANGUAGE]`, `conversations[:LANGUAGE]`, `mmlu`, `bigbench[:TASK,TASK]`, `manners[:TASK,TASK]`,
    `hub:DATASET[:CONFIG[:SPLIT]]` (`train` where no split is named), a data set of the form `messages` or `pair`; every
    answer of a longer conversation is one instruction. Of a package, a pair that was there before (but for case and
    punctuation) is left out; of the hub nothing is, so that a corpus of any size passes in bounded memory. Empty
    prompts and answers are left out everywhere. All is counted and named.

    At most `limit` instructions of each source are read; `revision` is a commit of the hub's.

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
    names = UniqueIds("#")
    for part in name.split(JOIN):
        source, _, option = part.partition(":")
        choose(dict.fromkeys((*INSTRUCTION_SOURCES, "hub")), source, "source of instructions")
        if source == "hub":
            opened = open_split(f"{PREFIX}{option}", revision=revision, default="train")
            licences.append(opened.licence)
            pinned[part] = opened.revision
            # Two configurations of one data set number their rows alike.
            again = names(opened.name).removeprefix(opened.name)
            stream = _of_hub(opened, left_out, name=f"{opened.dataset}{again}")
        else:
            package, reader = INSTRUCTION_SOURCES[source]
            licences.append(packages()[package].licence)
            pinned[package] = packages()[package].sha256
            stream = reader()(option, left_out)
        streams.append(islice(_usable(stream, left_out, distinct=source != "hub"), limit))
    licence = "; ".join(dict.fromkeys(licences))
    return SampleReading(name, licence, pinned, chain.from_iterable(streams), left_out)


def _of_hub(opened: HubSplit, left_out: LeftOut, *, name: str) -> Iterator[Sample]:
    """Every answer of a data set, in the form that its columns tell; a row is a group of its own.

    Ids begin with the `name`.
    """
    present = opened.columns()
    form = next((FORMS[name] for name in _FORMS if not FORMS[name].missing(present)), None)
    if form is None:
        raise LabError(
            f"data set {opened.name} is of no known form: its columns are {', '.join(present)}; expected "
            f"{' or '.join(TURNS)}, or a prompt ({', '.join(PROMPTS)}) and an answer ({', '.join(ANSWERS)})"
        )
    rows = ((f"{name}:{row.id}", row) for row in opened.samples(form, left_out))
    return (one for id, row in rows for one in each_answer(replace(row, id=id, group=id, task="instruct")))


def _usable(stream: Iterator[Sample], left_out: LeftOut, *, distinct: bool) -> Iterator[Sample]:
    seen: set[tuple[str, str]] = set()
    for one in stream:
        pair = (normalize_sentence(one.asked), normalize_sentence(one.answer)) if distinct else None
        if pair in seen:
            left_out.add("said before", one.id)
        elif not one.question.strip() or not one.answer.strip():
            left_out.add("empty answer" if one.question.strip() else "empty prompt", one.id)
        else:
            yield one
        if pair:
            seen.add(pair)


def split_of_group(group: str) -> Split:
    """Give the split of a group: 10% of the groups are test, 5% dev, by the hash of its name."""
    return split_of_hash(hashlib.sha256(f"0:{group}".encode()).hexdigest())


def split_instructions(instructions: Iterable[Sample]) -> dict[Split, list[Sample]]:
    """Part instructions into train, dev and test by whole groups, so that no test question is near a training one.

    What a group is, each source says: of `chatterbot` near prompts and whole conversations.
    """
    parts: dict[Split, list[Sample]] = {split: [] for split in SPLITS}
    for instruction in instructions:
        parts[split_of_group(instruction.group)].append(instruction)
    return parts


def in_batches(samples: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of `size` samples, the last of what is left."""
    stream = iter(samples)
    while batch := list(islice(stream, size)):
        yield batch


def table_of(samples: Iterable[Sample], sight: Sight = PAPER_SIGHT, *, split: Split | None = None) -> pa.Table:
    """Samples as rows, those of one side of their source; their media lie where `kept_media` says."""
    return pa.Table.from_pylist([_row(one, sight, split) for one in samples], COLUMNS)


def _row(sample: Sample, sight: Sight, split: Split | None) -> dict[str, Any]:
    plain = sample.content == (Text(sample.asked),)
    messages = None if plain else [_turn(part, sight) for part in sample.content]
    facts = {name: getattr(sample, name) for name in ("id", "answer", "source", "group", "task")}
    choices = list(sample.choices) or None
    return {**facts, "prompt": sample.asked, "messages": messages, "choices": choices, "split": split}


def _turn(part: Part, sight: Sight) -> dict[str, str | None]:
    content = part.text if isinstance(part, Text) else kept_media(part, sight)
    told = {name: getattr(part, name) or None for name in _OF_SOUNDS} if isinstance(part, Audio) else {}
    return {"role": part.role, "type": part.type, "content": content, **told}


def media_of(rows: pa.Table) -> list[list[str]]:
    """Where the media of each row lie; nothing of text alone."""
    if "messages" not in rows.column_names:
        return [[] for _ in range(rows.num_rows)]
    return [
        [turn["content"] for turn in turns or () if turn.get("type") not in (None, Text.type)]
        for turns in rows["messages"].to_pylist()
    ]


def is_inside(content: str) -> bool:
    """Whether media lie in the folder of their table, and move with it."""
    return "://" not in content and not Path(content).is_absolute()


def samples_of(rows: Iterable[Mapping[str, Any]], folder: Path) -> Iterator[Sample]:
    """The samples of rows whose media lie in `folder`.

    Raises:
        LabError: a part of a type that there is not, or an answer that is none of the choices.
    """
    return (_sample(row, folder) for row in rows)


def _sample(row: Mapping[str, Any], folder: Path) -> Sample:
    told: dict[str, Any] = {name: row.get(name) or "" for name in (*NEEDED, "task")}
    asked = Text(told.pop("prompt"))
    content = tuple(_part(turn, folder) for turn in row.get("messages") or ()) or (asked,)
    return Sample(content=content, choices=tuple(row.get("choices") or ()), **told)


def _part(turn: Mapping[str, Any], folder: Path) -> Part:
    parts: dict[str, Callable[..., Part]] = {part.type: part for part in (Text, Audio, Image, Video)}
    part = choose(parts, turn.get("type") or Text.type, "type of a message's part")
    content = turn["content"] or ""
    given = content if part is Text or "://" in content else folder / content
    return part(given, turn["role"], *(turn.get(name) or "" for name in _OF_SOUNDS if part is Audio))


def read_instruction_table(path: Path, left_out: LeftOut) -> Iterator[Sample]:
    """Stream the instructions of a Parquet file; further columns are let pass, a row of broken text is left out.

    Raises:
        LabError: it is cut off or damaged, or lacks a column or has it in another type: then nothing is read.
    """
    schema = read_schema(path)
    for name in NEEDED:
        found = schema.field(name).type if name in schema.names else "missing"
        if found not in (pa.string(), pa.large_string()):
            raise LabError(
                f"column {name!r} of {path} is {found}, expected string; a table of instructions has the "
                f"columns {', '.join(NEEDED)}"
            )
    columns = [name for name in COLUMNS.names if name in schema.names]
    tables = text_batches(path, _BATCH_ROWS, left_out, columns)
    return chain.from_iterable(samples_of(table.to_pylist(), path.parent) for table in tables)


def with_choices(instructions: Sequence[Sample], write: Callable[[str], str], *, num_choices: int) -> list[Sample]:
    """Held-out instructions as questions: the right answer first among answers to others, always the same.

    Others are drawn among the `4 * num_choices` of nearest length of its source, of all sources where that has too few.
    One that has choices of its own keeps them.
    Answers are brought by `write` into the form that the language model reads. The task is the source's own.
    """
    if num_choices < 2:
        raise LabError(f"num_choices is {num_choices}; expected at least 2")
    found = []
    for index, one in enumerate(instructions):
        right = write(one.answer)
        task = one.source.rpartition(":")[2]
        if one.choices:
            found.append(replace(one, task=task, answer=right, choices=tuple(map(write, one.choices))))
            continue
        rng = np.random.default_rng([index, len(instructions)])
        others: list[str] = []
        for among in (one.source, None):
            pool = {write(i.answer) for i in instructions if among in (i.source, None)} - {right, *others}
            near = sorted(pool, key=lambda text: (abs(len(text) - len(right)), text))[: 4 * num_choices]
            others += [near[i] for i in rng.permutation(len(near))[: num_choices - 1 - len(others)]]
        if len(others) < num_choices - 1:
            raise LabError(
                f"{len(instructions)} instructions have {len(others) + 1} different answers, too few for "
                f"{num_choices} choices; raise num_test"
            )
        found.append(replace(one, task=task, answer=right, choices=(right, *others)))
    return found


def _held_in(split: Split, count: int, name: str) -> tuple[list[Sample], LeftOut]:
    """Of one side, drawn evenly from all of it."""
    reading = read_instructions(name)
    found = split_instructions(reading.samples)[choose({one: one for one in SPLITS}, split, "split")]
    chosen = [replace(one, task=one.source.rpartition(":")[2]) for one in drawn_evenly(found, count)]
    return chosen, reading.left_out


def drawn_evenly(samples: Sequence[Item], count: int) -> list[Item]:
    """So many of them in their order, drawn from all, always the same; 0: all."""
    places = np.random.default_rng(len(samples)).permutation(len(samples))[: count or None]
    return [samples[place] for place in sorted(places.tolist())]


def _check(name: str) -> None:
    for part in name.split(JOIN):
        choose(dict.fromkeys((*INSTRUCTION_SOURCES, "hub")), part.partition(":")[0], "source of instructions")


def _state(name: str) -> str:
    return str(dict(read_instructions(name).sources))


def chatterbot() -> Reader:
    """The conversations of chatterbot-corpus: every turn is asked for, given the one before it."""
    from standins.instructions import chatterbot

    return chatterbot.instructions


def conversations() -> Reader:
    """The same conversations: what was answered after several turns."""
    from standins.instructions import chatterbot

    return chatterbot.conversations


def mmlu() -> Reader:
    """The few-shot questions of MMLU that lm-eval carries, with their choices."""
    from standins.instructions import mmlu

    return mmlu.instructions


def bigbench() -> Reader:
    """Short tasks of BIG-bench in English."""
    from standins.instructions import bigbench

    return bigbench.instructions


def manners() -> Reader:
    """The same tasks after a system message that says how the answer is to be written."""
    from standins.instructions import bigbench

    return bigbench.manners


INSTRUCTION_SOURCES: dict[str, tuple[str, Callable[[], Reader]]] = {
    "chatterbot": ("chatterbot-corpus", chatterbot),
    "conversations": ("chatterbot-corpus", conversations),
    "mmlu": ("lm-eval", mmlu),
    "bigbench": ("bigbench", bigbench),
    "manners": ("bigbench", manners),
}
"""The package of each source, and what reads it."""

INSTRUCTIONS = OuterSource(read=_held_in, check=_check, state=_state, largest=lambda inside, inner: Largest())
"""A source of samples of text alone; what stands behind its name is one of instructions."""
