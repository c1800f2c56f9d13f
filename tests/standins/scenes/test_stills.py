from collections import Counter, defaultdict

import pytest

from lab.errors import LabError
from standins.drawn import Question
from standins.scenes.casts import THING_CLASSES, cast_of
from standins.scenes.questions import STILL_KINDS, still_scene
from tests.standins.scene_pictures import stand_ins

CASTS = {split: cast_of(stand_ins(), split) for split in ("train", "test")}
CYCLE = len(STILL_KINDS) * 12


def stills(kind, count, split="train"):
    return [still_scene(i, seed=4, split=split, kinds=(kind,), cast=CASTS[split]) for i in range(count)]


def seen(scene):
    """The answer, found from where things are and how large."""
    states = dict(zip([actor.word for actor in scene.actors], scene.states(0.0), strict=True))
    match scene.question.kind:
        case "what":
            (word,) = states
            return word
        case "where":
            (asked,) = (word for word in states if f"the {word}?" in scene.question.text)
            x, y = states[asked].x - 500, states[asked].y - 500
            return ("right" if x > 0 else "left") if abs(x) > abs(y) else ("bottom" if y > 0 else "top")
        case "number":
            return ("none", "one", "two", "three")[len(states)]
        case "larger":
            choose = max if "larger" in scene.question.text else min
            return choose(states, key=lambda word: states[word].size)


@pytest.mark.parametrize("kind", STILL_KINDS)
@pytest.mark.parametrize("split", CASTS)
def test_the_picture_tells_the_answer(kind, split):
    for scene in stills(kind, 48, split):
        assert scene.seconds == 0
        assert seen(scene) == scene.question.answer


@pytest.mark.parametrize("split", CASTS)
def test_a_text_only_guesser_is_at_chance_in_every_wording(split):
    counts = defaultdict(Counter)
    for index in range(5 * CYCLE):
        question = still_scene(index, seed=1, split=split, cast=CASTS[split]).question
        counts[question.kind, question.text, question.choices][question.answer] += 1
    assert {kind for kind, *_ in counts} == set(STILL_KINDS)
    for (kind, *_), answers in counts.items():
        assert len(answers) == STILL_KINDS[kind].answers
        assert len(set(answers.values())) == 1


def test_every_class_is_asked_for():
    assert {scene.question.answer for scene in stills("what", 200)} == set(THING_CLASSES)


def test_things_do_not_leave_the_frame():
    for kind in STILL_KINDS:
        for scene in stills(kind, 60):
            for state in scene.states(0.0):
                assert min(state.x, state.y) >= state.size // 2 - 60
                assert max(state.x, state.y) <= 1060 - state.size // 2


def test_an_answer_has_to_be_a_choice():
    for choices in (("a", "b"), ("c", "c")):
        with pytest.raises(LabError, match=r"the answer 'c' is not one of the different choices"):
            Question("what", "?", choices, "c")
