"""The conversations of chatterbot-corpus as prompts and answers: every turn is asked for, given what was said."""

from collections.abc import Iterator

import yaml

from lab.data.fetch import fetch
from lab.data.filters.filtering import LeftOut
from lab.data.instructions.instructions import instruction
from lab.data.sample import Sample, Text
from lab.errors import choose
from standins.instructions.near_groups import near_groups

# Of the conversation of 88 turns nobody reads all.
_MOST_TURNS = 5


def instructions(language: str, left_out: LeftOut) -> Iterator[Sample]:
    """Yield the pairs of a language, the name of its folder (English where empty).

    A group holds near prompts, and all pairs of one conversation.
    """
    for key, said, answer, group in _turns(language, left_out):
        yield instruction(
            id=key, prompt=said[-1].strip(), answer=answer.strip(), source="chatterbot", task="converse", group=group
        )


def conversations(language: str, left_out: LeftOut) -> Iterator[Sample]:
    """Yield what was answered after three turns or five, of a user and an assistant, the user's first and last.

    The groups are those of `instructions`.
    """
    for key, said, answer, group in _turns(language, left_out):
        turns = [text.strip() for text in said[-_MOST_TURNS:]]
        turns = turns[len(turns) % 2 == 0 :]  # chat templates want the user's first
        if len(turns) == 1:
            continue
        if not all(turns):
            left_out.add("empty turn", f"{key}-turns")
        else:
            content = tuple(Text(text, "assistant" if place % 2 else "user") for place, text in enumerate(turns))
            id, source = f"{key}-turns", "conversations"
            yield Sample(id=id, content=content, answer=answer.strip(), source=source, task="converse", group=group)


def _turns(language: str, left_out: LeftOut) -> Iterator[tuple[str, list[str], str, str]]:
    """Name, all that was said before, the answer and the group of each turn but the first of a conversation."""
    data = fetch("chatterbot-corpus") / "chatterbot_corpus/data"
    folder = choose({path.name: path for path in data.iterdir() if path.is_dir()}, language or "english", "language")
    answers: list[tuple[str, list[str], str]] = []
    together: list[list[int]] = []
    for path in sorted(folder.glob("*.yml")):
        read = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)["conversations"]
        for number, turns in enumerate(read):
            begin, said = len(answers), [str(turn) for turn in turns]
            for turn in range(len(said) - 1):
                key = f"{folder.name}/{path.stem}-{number:04d}-{turn}"
                answers.append((key, said[: turn + 1], said[turn + 1]))
            together.append(list(range(begin, len(answers))))
            if len(turns) < 2:
                left_out.add("conversation of one turn", f"{folder.name}/{path.stem}-{number:04d}")
    groups = near_groups([said[-1] for _, said, _ in answers], filter(None, together))
    for (key, said, answer), group in zip(answers, groups, strict=True):
        yield key, said, answer, f"chatterbot-{folder.name}-{group}"
