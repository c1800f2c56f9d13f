"""Chat and instruction data of the Hugging Face hub, or folders of the same form, streamed through `datasets`.

Name: `hub:OWNER/NAME[:CONFIG[:SPLIT]]` (`train` where the split is left out). The form is told by the columns:

| form | columns | for example |
|---|---|---|
| `messages` | `messages` or `conversations`, of `role`, `content` or `from`, `value` | `HuggingFaceH4/no_robots` |
| `alpaca` | `instruction`, `output`, maybe `input` | `tatsu-lab/alpaca` |
| `pair` | a prompt's and an answer's column among the names below | `databricks/databricks-dolly-15k` |

Of a longer conversation every answer is one instruction, whose prompt is all that was said before it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lab.data.hub import open_streams, parse_name
from lab.data.instructions.instruction import Instruction
from lab.errors import LabError

TURNS = ("messages", "conversations")
PROMPTS = ("prompt", "question", "instruction", "inputs", "query")
ANSWERS = ("response", "answer", "output", "completion", "targets", "target")
_ASKS, _ANSWERS, _SETS = ("user", "human"), ("assistant", "gpt"), ("system",)


@dataclass(frozen=True)
class Rows:
    """An opened split; `columns` are those of its form."""

    name: str
    licence: str
    rows: Any
    columns: tuple[str, ...]


def open_rows(name: str, *, revision: str | None = None) -> Rows:
    """Open one split of a data set as a stream.

    Raises:
        LabError: a name of another form, a data set that cannot be opened, no such split, or columns of no known form.
    """
    dataset, config, split = parse_name(name)
    splits = open_streams(dataset, config, revision)
    split = split or ("train" if "train" in splits else str(next(iter(splits))))
    if split not in splits:
        raise LabError(f"data set {dataset!r} has no split {split!r}; choose one of: {', '.join(map(str, splits))}")
    stream = splits[split]
    present = list(stream.features or next(iter(stream.take(1)), {}))
    return Rows(f"{dataset}:{split}", stream.info.license or "see the data set's card", stream, _form(name, present))


def _form(name: str, present: list[str]) -> tuple[str, ...]:
    turns = next((column for column in TURNS if column in present), None)
    if turns is not None:
        return (turns,)
    prompt = next((column for column in PROMPTS if column in present), None)
    answer = next((column for column in ANSWERS if column in present and column != prompt), None)
    if prompt is None or answer is None:
        raise LabError(
            f"data set {name!r} is of no known form: its columns are {', '.join(present)}; expected "
            f"{' or '.join(TURNS)}, or a prompt ({', '.join(PROMPTS)}) and an answer ({', '.join(ANSWERS)})"
        )
    return (prompt, answer)


def instructions(opened: Rows, skipped: Counter[str]) -> Iterator[Instruction]:
    """Yield the instructions; a row that does not fit its form is counted in `skipped`, never guessed.

    Each row is a group of its own.

    Raises:
        LabError: the stream breaks off.
    """
    number, rows = 0, iter(opened.rows)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:  # `datasets` raises whatever its readers and the network raise
            why = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise LabError(f"data set {opened.name} broke off at row {number}: {why}; check the network") from error
        key = f"{opened.name}-{number:08d}"
        pairs = _turns(row[opened.columns[0]]) if len(opened.columns) == 1 else _pair(row, *opened.columns)
        if pairs is None:
            skipped["a row of another shape"] += 1
        for turn, (prompt, answer) in enumerate(pairs or ()):
            yield Instruction(id=f"{key}-{turn}", prompt=prompt, answer=answer, source=f"hub:{opened.name}", group=key)
        number += 1


def _pair(row: Mapping[str, Any], prompt: str, answer: str) -> list[tuple[str, str]] | None:
    if not isinstance(row[prompt], str) or not isinstance(row[answer], str):
        return None
    # What an instruction is about: `input` of alpaca's form, `context` of dolly's.
    about = next((str(row[name]) for name in ("input", "context") if row.get(name)), "")
    return [("\n".join(filter(None, (row[prompt].strip(), about.strip()))), row[answer].strip())]


def _turns(turns: Any) -> list[tuple[str, str]] | None:
    """Question and answer in alternation, what the system says in front; None where they are not so."""
    said: list[tuple[str, str]] = []
    for turn in turns or ():
        if not isinstance(turn, Mapping):
            return None
        said.append((str(turn.get("role") or turn.get("from")), str(turn.get("content") or turn.get("value") or "")))
    before = [text.strip() for role, text in said if role in _SETS]
    spoken = [(role, text.strip()) for role, text in said if role not in _SETS]
    pairs = []
    for asked, answered in zip(spoken[::2], spoken[1::2], strict=False):
        if asked[0] not in _ASKS or answered[0] not in _ANSWERS:
            return None
        before.append(asked[1])
        pairs.append(("\n".join(before), answered[1]))
        before.append(answered[1])
    return pairs or None
