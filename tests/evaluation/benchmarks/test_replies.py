import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import diskcache
import pytest

from lab.data.sample import Audio, Sample, Text, Video
from lab.errors import LabError
from lab.evaluation.benchmarks.replies import KeptReplies, Refused, opened
from tests.evaluation.benchmarks.asked import asked

NUM_PROCESSES, NUM_ANSWERS = 3, 40
SAID = [asked(f"q{number}", id=str(number)) for number in range(NUM_ANSWERS)]


class Naming:
    """Replies with its own name and the question, last question first; stops as `then` says after `limit` replies."""

    def __init__(self, name: str = "m", *, limit: int = 10**6, then: Any = None, key: str = "k") -> None:
        self.key, self.name, self._limit, self._then = key, name, limit, then
        self.asked: list[str] = []

    def reply(self, samples: Sequence[Sample]) -> Iterator[tuple[int, str | Refused]]:
        for index in reversed(range(len(samples))):
            if len(self.asked) == self._limit:
                self._then()
            self.asked.append(samples[index].content[-1].text)
            yield index, f"{self.name} {samples[index].content[-1].text}"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNI_LAB_CACHE", str(tmp_path))


def lines_of(kept: KeptReplies) -> int:
    with diskcache.Cache(str(kept.kept.folder)) as store:
        return len(store)


def _ask(name: str, cache: str, start: Any, out: Any) -> None:
    os.environ["OMNI_LAB_CACHE"] = cache
    kept = KeptReplies(Naming(name), purpose="answers")
    start.wait()
    out.put((name, kept.to(SAID), kept.kept.num_made))


def test_processes_that_ask_the_same_at_the_same_moment_return_the_same(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    start, out = spawn.Barrier(NUM_PROCESSES), spawn.Queue()
    processes = [
        spawn.Process(target=_ask, args=(f"p{n}", str(tmp_path), start, out), daemon=True) for n in range(NUM_PROCESSES)
    ]
    for process in processes:
        process.start()
    found = [out.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert all(replies == found[0][1] for _, replies, _ in found)
    assert [reply.split()[1] for reply in found[0][1]] == [f"q{number}" for number in range(NUM_ANSWERS)]
    assert sum(generated for *_, generated in found) >= NUM_ANSWERS
    assert lines_of(KeptReplies(Naming(), purpose="answers")) == NUM_ANSWERS


def _killed(cache: str) -> None:
    os.environ["OMNI_LAB_CACHE"] = cache
    model = Naming("killed", limit=7, then=lambda: os.kill(os.getpid(), signal.SIGKILL))
    KeptReplies(model, purpose="answers").to(SAID)


def test_after_a_kill_only_what_is_left_is_asked(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_killed, args=(str(tmp_path),))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    model = Naming("next")
    replies = KeptReplies(model, purpose="answers").to(SAID)
    assert sorted(model.asked) == sorted(f"q{number}" for number in range(NUM_ANSWERS - 7))
    assert [str(reply).split()[0] for reply in replies] == ["next"] * 33 + ["killed"] * 7


def test_what_a_model_said_before_it_failed_is_kept() -> None:
    def fail() -> None:
        raise LabError("the model broke")

    with pytest.raises(LabError, match="the model broke"):
        KeptReplies(Naming(limit=2, then=fail), purpose="answers").to(SAID[:5])
    model, seen = Naming(), []
    KeptReplies(model, purpose="answers").to(SAID[:5], lambda done, total: seen.append((done, total)))
    assert model.asked == ["q2", "q1", "q0"]
    assert seen == [(2, 5), (3, 5), (4, 5), (5, 5)]


def test_a_question_that_stands_twice_is_asked_once_and_samples_are_told_apart() -> None:
    model = Naming()
    kept = KeptReplies(model, purpose="answers")
    assert kept.to([asked("q0", id=name) for name in ("a", "a", "b")]) == ["m q0"] * 3
    assert (model.asked, kept.kept.num_made) == (["q0", "q0"], 2)
    assert kept.to([]) == []


def test_another_model_purpose_role_or_medium_is_another_answer(tmp_path: Path) -> None:
    sound = tmp_path / "a.wav"
    sound.write_bytes(b"one")
    said = [
        asked("q"),
        Sample(id="1", content=(Text("q", "system"),)),
        asked("q", Audio(sound)),
        asked("q", Audio(b"two")),
    ]
    model = Naming()
    kept = KeptReplies(model, purpose="answers")
    kept.to(said)
    assert len(model.asked) == lines_of(kept) == 4
    # Known by its bytes, not by its place.
    assert kept.to([asked("q", Audio(b"one"))]) == ["m q"]
    assert len(model.asked) == 4
    others = [KeptReplies(Naming(key="k2"), purpose="answers"), KeptReplies(Naming(), purpose="marks of score 1")]
    assert len({kept.kept.folder, *(other.kept.folder for other in others)}) == 3
    with pytest.raises(LabError, match=r"audio .*gone.wav cannot be read \(No such file"):
        kept.to([asked("q", Audio(tmp_path / "gone.wav"))])
    gone = Video(tmp_path / "gone.mp4")
    with pytest.raises(LabError, match=r"video .*gone.mp4 cannot be read \(No such file"), opened(gone):
        pass


def test_an_empty_reply_is_kept_and_a_refusal_is_not() -> None:
    class Moody(Naming):
        """Refuses all but the first question that it is asked, and says nothing to that."""

        def reply(self, samples: Sequence[Sample]) -> Iterator[tuple[int, str | Refused]]:
            for index, _ in super().reply(samples):
                yield index, Refused("no") if index else ""

    model = Moody()
    kept = KeptReplies(model, purpose="answers")
    assert kept.to(SAID[:2]) == ["", Refused("no")]
    assert (kept.kept.num_made, lines_of(kept)) == (1, 1)
    assert kept.to(SAID[:2]) == ["", ""]
    assert model.asked == ["q1", "q0", "q1"]


def test_a_file_that_is_damaged_or_cannot_be_made_is_named(tmp_path: Path) -> None:
    kept = KeptReplies(Naming(), purpose="answers")
    folder = kept.kept.folder
    folder.mkdir(parents=True)
    (folder / "cache.db").write_bytes(json.dumps({"not": "sqlite"}).encode() * 200)
    with pytest.raises(LabError, match=rf"cannot be kept in {folder} .*remove the folder if it is damaged"):
        kept.to(SAID)
    shutil.rmtree(folder.parent)
    folder.parent.write_text("a file")
    with pytest.raises(LabError, match="cannot be kept in"):
        kept.to(SAID)
