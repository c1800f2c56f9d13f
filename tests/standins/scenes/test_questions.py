from collections import Counter, defaultdict
from dataclasses import astuple, replace

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from lab.errors import LabError
from standins.scenes.casts import THING_CLASSES, cast_of
from standins.scenes.courses import DIRECTIONS, NUMBERS, PLACES
from standins.scenes.questions import KINDS, video_scene
from standins.scenes.scene import THOUSAND
from standins.scenes.stage import SceneOptions
from tests.standins.scene_pictures import stand_ins

CASTS = {split: cast_of(stand_ins(), split) for split in ("train", "dev", "test")}
CYCLE = 108
STEP = 50  # ms, of the one who sees the whole course

# What one moment may tell above chance, as measured with 12,000 scenes a kind (standard error 0.006): nothing at the
# start, the middle and the end, but for the thing on its way in `direction` (whether along or across) and `hides`; a
# quarter into a scene, "first" is likelier than "second" because the order of a pair cannot be hidden near the start.
MOMENTS = {"first": 0.0, "quarter": 0.25, "middle": 0.5, "last": 1.0}
LEAKS = {
    ("direction", "quarter"): 0.023,
    ("direction", "middle"): 0.024,
    ("came_first", "quarter"): 0.069,
    ("left_first", "quarter"): 0.064,
    ("size_change", "quarter"): 0.016,
    ("hides", "quarter"): 0.05,
    ("hides", "middle"): 0.06,
}
SAMPLING_ERROR = 0.045  # three standard errors of 1,200 answers
NOT_SEEN = -999


def scenes(kind, count, *, split="train", seed=3, **options):
    chosen = SceneOptions(**options)
    return [
        video_scene(i, seed=seed, split=split, kinds=(kind,), options=chosen, cast=CASTS[split]) for i in range(count)
    ]


def seen_whole(scene):
    """The answer, found from the course alone: states every 50 ms, the words of the question, nothing else."""
    times = range(0, scene.milliseconds + 1, STEP)
    courses = {actor.word: [actor.state(t) for t in times] for actor in scene.actors}
    asked = [word for word in courses if f"the {word}" in scene.question.text]

    def first_time(word, visible):
        return next((n for n, state in enumerate(courses[word]) if state.visible == visible), len(times))

    match scene.question.kind:
        case "moves":
            (mover,) = (w for w, course in courses.items() if len({(s.x, s.y) for s in course}) > 1)
            return mover
        case "direction":
            steps = Counter()
            for before, after in zip(courses[asked[0]], courses[asked[0]][1:], strict=False):
                for name, change in (("right", after.x - before.x), ("down", after.y - before.y)):
                    if 0 < abs(change) < THOUSAND // 2:  # not the jump from one side to the other
                        opposite = {"right": "left", "down": "up"}[name]
                        steps[name if change > 0 else opposite] += 1
            assert len(steps) == 1
            return next(iter(steps))
        case "came_first":
            return min(asked, key=lambda word: first_time(word, True))
        case "left_first":
            return min(asked, key=lambda word: first_time(word, False))
        case "before":
            came = sorted(
                (n, word)
                for word, course in courses.items()
                for n in range(1, len(times))
                if course[n].visible and not course[n - 1].visible
            )
            order = [word for _, word in came]
            (answer,) = {order[n - 1] for n, word in enumerate(order) if n and word == asked[0]}
            return answer
        case "how_many":
            shown = sum(any(state.visible for state in course) for course in courses.values())
            return ("none", "one", "two", "three")[shown]
        case "size_change":
            sizes = [state.size for state in courses[asked[0]] if state.visible]
            return "grow" if sizes[-1] > sizes[0] else "shrink"
        case "turns":
            return "yes" if len({state.angle for state in courses[asked[0]]}) > 1 else "no"
        case "hides":
            hider, *covers = sorted(asked, key=lambda word: scene.question.text.index(f"the {word}"))
            gone = next(n for n, state in enumerate(courses[hider]) if not state.visible)
            last = courses[hider][gone - 1]
            return min(covers, key=lambda w: abs(courses[w][gone].x - last.x) + abs(courses[w][gone].y - last.y))


def at_one_moment(scene, milliseconds):
    """All that one moment shows, by the place of the thing in the question: the best that a single frame can give."""
    text, choices = scene.question.text, scene.question.choices
    places = {a.word: text.find(f"the {a.word}") for a in scene.actors}
    # The question names some things, the choices others; of the rest one sees only what they are.
    order = {
        word: (place if place >= 0 else 1000, choices.index(word) if word in choices else 9, word)
        for word, place in places.items()
    }
    row = []
    for actor in sorted(scene.actors, key=lambda actor: order[actor.word]):
        state = actor.state(milliseconds)
        shown = [list(THING_CLASSES).index(actor.word), state.x, state.y, state.size, state.angle]
        row += shown if state.visible else [NOT_SEEN] * 5
    return (row + [NOT_SEEN] * 15)[:15]


def single_moment_leaks(kind, count, seed=3):
    """Accuracy above chance, on unseen groups, of a learner that is given all states at one moment, by moment."""
    made = scenes(kind, count, seed=seed)
    answers = np.array([answer_place(scene) for scene in made])
    half = count // 2 // 12 * 12
    leaks = {}
    for name, share in MOMENTS.items():
        shown = np.array([at_one_moment(scene, int(share * scene.milliseconds)) for scene in made], dtype=float)
        learner = HistGradientBoostingClassifier(max_iter=40, random_state=0).fit(shown[:half], answers[:half])
        leaks[name] = float((learner.predict(shown[half:]) == answers[half:]).mean()) - 1 / KINDS[kind].answers
    return leaks


def answer_place(scene):
    question = scene.question
    fixed = {"direction": DIRECTIONS, "how_many": NUMBERS}
    fixed |= {"size_change": ("grow", "shrink"), "turns": ("yes", "no")}
    return fixed.get(question.kind, question.choices).index(question.answer)


@pytest.mark.parametrize("kind", KINDS)
def test_who_sees_the_whole_course_is_always_right(kind):
    for scene in scenes(kind, 96) + scenes(kind, 24, split="test", seconds=(8, 12), event_seconds=(2, 3)):
        assert seen_whole(scene) == scene.question.answer, scene.id


@pytest.mark.parametrize("kind", KINDS)
def test_twins_share_the_words_and_have_one_scene_for_each_answer(kind):
    groups = defaultdict(list)
    for scene in scenes(kind, 60):
        groups[scene.twins].append(scene)
    for twins in groups.values():
        assert len(twins) == KINDS[kind].answers
        assert len({scene.question.answer for scene in twins}) == len(twins)
        assert len({(s.question.text, s.question.choices, s.milliseconds, s.background) for s in twins}) == 1
        assert len({tuple(sorted(actor.picture.id for actor in s.actors)) for s in twins}) == 1


@pytest.mark.parametrize("split", CASTS)
def test_a_text_only_guesser_is_at_chance_in_every_wording(split):
    counts = defaultdict(Counter)
    for index in range(3 * CYCLE):
        question = video_scene(index, seed=1, split=split, cast=CASTS[split]).question
        counts[question.kind, question.text, question.choices][question.answer] += 1
    for (kind, *_), answers in counts.items():
        assert len(answers) == KINDS[kind].answers
        assert len(set(answers.values())) == 1  # the majority is no better than the others


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_single_moment_tells_little(kind):
    for moment, leak in single_moment_leaks(kind, 2400).items():
        assert leak < LEAKS.get((kind, moment), 0.0) + SAMPLING_ERROR, moment


def test_the_leak_test_finds_a_leak(monkeypatch):
    kind = KINDS["turns"]

    def upright_where_it_does_not_turn(stage):
        yes, no = kind.group(stage)
        upright = [replace(a, keys=tuple(replace(key, angle=0) for key in a.keys)) for a in no.actors]
        return [yes, replace(no, actors=upright)]

    monkeypatch.setitem(KINDS, "turns", type(kind)(2, upright_where_it_does_not_turn))
    assert single_moment_leaks("turns", 240)["first"] > 0.3


def ceiling(kind, num_frames, count):
    """The best accuracy with so many evenly chosen frames: twins alike in all of them cannot be told apart."""
    groups = defaultdict(list)
    for scene in scenes(kind, count):
        moments = [int(scene.milliseconds * (2 * n + 1) / (2 * num_frames)) for n in range(num_frames)]
        shown = [sorted((a.word, astuple(a.state(t))) for a in scene.actors if a.state(t).visible) for t in moments]
        groups[scene.twins].append(str(shown))
    return sum(1 / twins.count(shown) for twins in groups.values() for shown in twins) / count


@pytest.mark.parametrize("kind", KINDS)
def test_few_frames_miss_what_many_show(kind):
    few, many = (ceiling(kind, number, 120) for number in (4, 48))
    assert few < many - 0.02
    assert many > 0.97


def test_ends_of_a_way_are_the_same_for_opposite_directions():
    for left, right, up, down in zip(*[iter(scenes("direction", 48))] * 4, strict=True):
        for one, other in ((left, right), (up, down)):
            for moment in (0, one.seconds):
                assert one.states(moment) == other.states(moment)


def test_every_side_is_once_the_end_of_a_way_and_once_the_start():
    for group in zip(*[iter(scenes("ends", 48))] * 4, strict=True):
        ways = [[(key.x, key.y) for key in scene.actors[0].keys] for scene in group]
        assert [way[-1] for way in ways] == [PLACES[scene.question.answer] for scene in group]
        assert sorted(way[0] for way in ways) == sorted(way[-1] for way in ways) == sorted(PLACES.values())
        assert all(way[0] != way[-1] for way in ways)
        assert len({(scene.question.text, scene.question.choices) for scene in group}) == 1


def test_size_twins_are_one_course_backwards():
    for grow, shrink in zip(*[iter(scenes("size_change", 20))] * 2, strict=True):
        keys = [actor.keys for actor in (grow.actors[-1], shrink.actors[-1])]
        (_, start, end), (_, other_start, other_end) = keys
        assert (start.size, end.size) == (other_end.size, other_start.size)
        assert 1.6 < end.size / start.size < 2.2


def test_things_and_backgrounds_and_combinations_of_the_splits_are_disjoint():
    seen = {name: {"things": set(), "backgrounds": set(), "combinations": set()} for name in CASTS}
    for split, sets in seen.items():
        for index in range(4 * CYCLE):
            scene = video_scene(index, seed=9, split=split, cast=CASTS[split])
            assert scene.split == split
            sets["things"] |= {actor.picture.caption for actor in scene.actors}
            sets["backgrounds"] |= {scene.background.first, scene.background.second}
            words = frozenset(actor.word for actor in scene.actors)
            if len(words) > 1:
                sets["combinations"].add(words)
    for what in ("things", "backgrounds", "combinations"):
        for one, other in (("train", "test"), ("train", "dev"), ("dev", "test")):
            assert not seen[one][what] & seen[other][what], what
        assert len(seen["train"][what]) > 3


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_and_scene_keeps_to_its_length(kind):
    for scene in scenes(kind, 48, seconds=(20, 30), event_seconds=(2, 3)):
        assert 20 <= scene.seconds <= 30
        times = sorted({key.milliseconds for actor in scene.actors for key in actor.keys})
        assert times[-1] <= scene.milliseconds - 500
        assert len(times) == 1 or times[1] >= 500
    words = {len(scene.actors) for scene in scenes(kind, 48)}
    assert words <= {1, 2, 3}


def test_a_scene_is_lengthened_where_its_events_would_not_fit():
    for scene in scenes("how_many", 12, seconds=(1, 1), event_seconds=(2, 6)):
        assert scene.seconds == 4 * (2 + 1.2) + 1


def test_one_number_gives_one_scene_and_another_seed_another():
    again = [video_scene(5, seed=seed, split="train", cast=CASTS["train"]) for seed in (0, 0, 1)]
    assert again[0] == again[1]
    assert again[0] != again[2]
    ids = {video_scene(i, seed=0, split=s, cast=CASTS[s]).id for i in range(CYCLE) for s in CASTS}
    assert len(ids) == 3 * CYCLE


def test_a_scene_is_the_same_on_every_machine():
    scene = video_scene(1, seed=0, split="train", cast=CASTS["train"])
    assert scene.id == "train-0-direction-0-0"
    assert (scene.milliseconds, [actor.keys[0].x for actor in scene.actors]) == PINNED


PINNED = (35293, [334])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kinds": ("move",)}, r"unknown kind of question 'move' \(did you mean 'moves'\?\)"),
    ],
)
def test_what_does_not_exist_is_named(change, message):
    with pytest.raises(LabError, match=message):
        video_scene(**{"index": 0, "seed": 0, "split": "train", "cast": CASTS["train"], **change})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": (9, 8)}, r"scene option seconds is \(9, 8\); expected a range in 1.0 to 3600.0"),
        ({"event_seconds": (0.1, 2)}, r"event_seconds is \(0.1, 2\)"),
    ],
)
def test_options_beyond_what_can_be_drawn_are_refused(options, message):
    with pytest.raises(LabError, match=message):
        SceneOptions(**options)
