"""The conversations of chatterbot-corpus as prompts and answers: every turn is asked for, given the one before it."""

from collections.abc import Iterator
from itertools import pairwise

import yaml

from lab.data.fetch import fetch
from lab.data.filters.filtering import LeftOut
from lab.data.instructions.instructions import instruction
from lab.data.sample import Sample
from lab.errors import choose
from standins.instructions.near_groups import near_groups


def instructions(language: str, left_out: LeftOut) -> Iterator[Sample]:
    """Yield the pairs of a language, the name of its folder (English where empty).

    A group holds near prompts, and all pairs of one conversation.
    """
    data = fetch("chatterbot-corpus") / "chatterbot_corpus/data"
    folder = choose({path.name: path for path in data.iterdir() if path.is_dir()}, language or "english", "language")
    pairs: list[tuple[str, str, str]] = []
    conversations: list[list[int]] = []
    for path in sorted(folder.glob("*.yml")):
        read = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)["conversations"]
        for number, turns in enumerate(read):
            begin = len(pairs)
            for turn, (prompt, answer) in enumerate(pairwise(turns)):
                pairs.append((f"{folder.name}/{path.stem}-{number:04d}-{turn}", str(prompt), str(answer)))
            conversations.append(list(range(begin, len(pairs))))
            if len(turns) < 2:
                left_out.add("conversation of one turn", f"{folder.name}/{path.stem}-{number:04d}")
    groups = near_groups([prompt for _, prompt, _ in pairs], filter(None, conversations))
    for (key, prompt, answer), group in zip(pairs, groups, strict=True):
        yield instruction(
            id=key,
            prompt=prompt.strip(),
            answer=answer.strip(),
            source="chatterbot",
            task="converse",
            group=f"chatterbot-{folder.name}-{group}",
        )
