"""Held-out instructions as questions with choices: the right answer among answers to others of the same source.

Section 4 of the paper (accuracy). The others are near the right one in length.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from lab.data.sample import Sample
from lab.errors import LabError


def with_choices(instructions: Sequence[Sample], write: Callable[[str], str], *, num_choices: int) -> list[Sample]:
    """Each instruction with choices, its right answer first: the same whenever the instructions are the same.

    Others are drawn among the `4 * num_choices` of nearest length of its source, of all sources where that has too few.
    Answers are brought by `write` into the form that the language model reads. The task is the source's own.

    Raises:
        LabError: fewer than two choices, or fewer different answers than choices.
    """
    if num_choices < 2:
        raise LabError(f"num_choices is {num_choices}; expected at least 2")
    found = []
    for index, one in enumerate(instructions):
        right = write(one.answer)
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
        task = one.source.rpartition(":")[2]
        found.append(replace(one, task=task, answer=right, choices=(right, *others)))
    return found
