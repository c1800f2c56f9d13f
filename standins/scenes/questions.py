"""Scenes whose questions only time can answer: what moves, which way, which came first, how many there were in all.

Each kind makes a group of twins at once: scenes with the same things, places, times and words that differ only in what
is asked for, one for each answer. So no text tells the answer, and the groups are made so that a single moment tells as
little as can be: what moves goes from and to places drawn alike, what comes also goes, what turns ends as it began. The
measured leaks of a single moment stand in `tests/data/test_scene_questions.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lab.data.splits import SPLITS, Split
from lab.errors import LabError, choose
from standins.scenes.casts import Cast, Dice, draw_background, standard_cast
from standins.scenes.courses import direction, hides, size_change, turns, what_moves
from standins.scenes.orders import came_first, how_many, just_before, left_first
from standins.scenes.scene import Scene
from standins.scenes.stage import SceneOptions, Stage, Twin


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


def video_scene(
    index: int,
    *,
    seed: int,
    split: Split,
    kinds: tuple[str, ...] = tuple(KINDS),
    options: SceneOptions | None = None,
    cast: Cast | None = None,
) -> Scene:
    """Describe scene number `index`, from 0, of an endless row; the kinds take turns and twins follow one another.

    With all nine kinds, answers are even within every wording over each 108 scenes. `cast` is from
    `standins.scenes.casts.cast_of` of the same split, by default the stamps and emoji.

    Raises:
        LabError: an unknown kind or split, or `index` or `seed` is below 0.
    """
    return scene_of(KINDS, index, seed=seed, split=split, kinds=kinds, options=options, cast=cast)


def scene_of(
    table: Mapping[str, Kind],
    index: int,
    *,
    seed: int,
    split: Split,
    kinds: tuple[str, ...],
    options: SceneOptions | None,
    cast: Cast | None,
) -> Scene:
    """Describe a scene of one of the kinds of a table, as `video_scene` does."""
    if index < 0 or seed < 0 or not kinds:
        raise LabError(f"scene {index} of seed {seed} and kinds {kinds}: expected numbers from 0 and one kind or more")
    if split not in SPLITS:
        raise LabError(f"unknown split {split!r}; choose one of: {', '.join(SPLITS)}")
    place, kind_name = index // len(kinds), kinds[index % len(kinds)]
    kind = choose(table, kind_name, "kind of question")
    number, member = divmod(place, kind.answers)
    # The kind's name, not its place in a table, so that a new kind changes no other.
    dice = Dice(seed, SPLITS.index(split), number, *kind_name.encode())
    background = draw_background(dice, split)
    stage = Stage(dice, standard_cast(split) if cast is None else cast, split, options or SceneOptions())
    twin = kind.group(stage)[member]
    twins = f"{split}-{seed}-{kind_name}-{number}"
    return Scene(f"{twins}-{member}", split, twin.milliseconds, background, tuple(twin.actors), twin.question, twins)
