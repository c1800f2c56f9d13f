"""Scenes with questions: those that only time can answer (what moves, which came first), and those about stills.

Each kind makes a group of twins at once: scenes with the same things, places, times and words that differ only in what
is asked for, one for each answer. So no text tells the answer, and the groups are made so that a single moment tells as
little as can be: what moves goes from and to places drawn alike, what comes also goes, what turns ends as it began. The
measured leaks of a single moment stand in `tests/data/test_scene_questions.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from lab.data.splits import SPLITS, Split
from lab.errors import choose
from standins.scenes.casts import Cast, Dice, draw_background, standard_cast
from standins.scenes.courses import (
    NUMBERS,
    PLACES,
    came_first,
    direction,
    ends,
    hides,
    how_many,
    just_before,
    left_first,
    size_change,
    turns,
    what_moves,
)
from standins.scenes.scene import Scene
from standins.scenes.stage import SceneOptions, Stage, Twin
from standins.scenes.stills import CHOICES, larger, number, what, where


@dataclass(frozen=True)
class Kind:
    """A kind of question: how many twins, that is answers, a group has, and what makes a group."""

    answers: int
    group: Callable[[Stage], list[Twin]]


KINDS: dict[str, Kind] = {
    "moves": Kind(3, what_moves),
    "direction": Kind(4, direction),
    "came_first": Kind(2, came_first),
    "left_first": Kind(2, left_first),
    "before": Kind(2, just_before),
    "how_many": Kind(3, how_many),
    "size_change": Kind(2, size_change),
    "turns": Kind(2, turns),
    "hides": Kind(2, hides),
}


STILL_KINDS: dict[str, Kind] = {
    "what": Kind(CHOICES, what),
    "where": Kind(len(PLACES), where),
    "number": Kind(len(NUMBERS), number),
    "larger": Kind(2, larger),
}

# Asked only where a source names them: the end of a video is one moment that tells the answer.
FURTHER_KINDS: dict[str, Kind] = {"ends": Kind(len(PLACES), ends)}


def make_scene(
    index: int,
    *,
    seed: int,
    split: Split,
    kinds: tuple[str, ...],
    options: SceneOptions | None = None,
    cast: Cast | None = None,
) -> Scene:
    """Describe scene number `index`, from 0, of an endless row; the kinds take turns and twins follow one another.

    With all nine kinds of questions about time, answers are even within every wording over each 108 scenes. `cast` is
    from `standins.scenes.casts.cast_of` of the same split, by default the stamps and emoji.
    """
    place, kind_name = index // len(kinds), kinds[index % len(kinds)]
    kind = choose({**KINDS, **STILL_KINDS, **FURTHER_KINDS}, kind_name, "kind of question")
    group, member = divmod(place, kind.answers)
    # The kind's name, not its place in a table, so that a new kind changes no other.
    dice = Dice(seed, SPLITS.index(split), group, *kind_name.encode())
    background = draw_background(dice, split)
    stage = Stage(dice, standard_cast(split) if cast is None else cast, split, options or SceneOptions())
    twin = kind.group(stage)[member]
    twins = f"{split}-{seed}-{kind_name}-{group}"
    return Scene(f"{twins}-{member}", split, twin.milliseconds, background, tuple(twin.actors), twin.question, twins)


video_scene = partial(make_scene, kinds=tuple(KINDS))
still_scene = partial(make_scene, kinds=tuple(STILL_KINDS))
