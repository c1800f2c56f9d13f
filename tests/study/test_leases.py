import fcntl
import os
import socket
import sqlite3
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import SimpleNamespace

import pytest

from lab import paths
from lab.errors import LabError
from lab.study import leases, store
from lab.study.store import RunRecord


@pytest.fixture(autouse=True)
def folder() -> None:
    paths.mlruns_dir().mkdir(parents=True)


def elsewhere(name: str) -> dict[str, str]:
    """An owner on another host, whose heart beats now."""
    leases.owner_file(name).parent.mkdir(exist_ok=True)
    leases.owner_file(name).touch()
    return {"owner": name, "host": "another-host", "pid": "1"}


def test_of_many_who_want_a_cell_at_once_one_gets_it() -> None:
    def want(owner: Mapping[str, str]) -> list[bool]:
        return [leases.take(f"key-{number}", owner) for number in range(5)]

    owners = [elsewhere(f"sweep-{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        got = list(threads.map(want, owners))
    assert [sum(own[number] for own in got) for number in range(5)] == [1] * 5


def test_a_lease_is_its_owners_until_it_is_released() -> None:
    with leases.owner() as one, leases.owner() as other:
        assert leases.take("key", one)
        assert leases.take("key", one)
        assert not leases.take("key", other)
        leases.release("key", other)
        assert not leases.take("key", other)
        leases.release("key", one)
        assert leases.take("key", other)


def test_the_lease_of_a_dead_process_is_free_whatever_the_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    with leases.owner() as dead:
        assert leases.take("key", dead)
        monkeypatch.setattr(time, "time", lambda: 1e12)
        with leases.owner() as other:
            assert not leases.take("key", other)
    with leases.owner() as other:
        assert leases.take("key", other)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Both clocks, and whoever is called while somebody sleeps."""
    told = SimpleNamespace(wall=1000.0, steady=0.0, meanwhile=lambda: None)

    def sleep(seconds: float) -> None:
        told.wall += seconds
        told.steady += seconds
        told.meanwhile()

    monkeypatch.setattr(
        leases,
        "time",
        SimpleNamespace(time=lambda: told.wall, monotonic=lambda: told.steady, sleep=sleep),
    )
    return told


def beat_at(name: str, seconds: float) -> None:
    os.utime(leases.owner_file(name), (seconds, seconds))


def test_an_owner_on_another_host_is_dead_when_its_heart_has_stopped_or_it_has_left(clocks: SimpleNamespace) -> None:
    far = elsewhere("far")
    assert far["host"] != socket.gethostname()
    beat_at("far", clocks.wall)
    assert leases.take("key", far)
    clocks.wall += leases.SILENT_SECONDS - 1
    with leases.owner() as here:
        assert not leases.take("key", here)
        beat_at("far", clocks.wall)
        clocks.wall += leases.SILENT_SECONDS - 1
        assert not leases.take("key", here)
        clocks.wall += 2
        assert leases.take("key", here)
        assert clocks.steady == pytest.approx(leases.WATCH_SECONDS)
        leases.release("key", here)
        assert leases.take("key", far)
        leases.owner_file("far").unlink()
        assert leases.take("key", here)


@pytest.mark.parametrize("jump", [10_000.0, -10_000.0])
def test_a_clock_that_jumps_takes_no_cell_from_an_owner_whose_heart_beats(clocks: SimpleNamespace, jump: float) -> None:
    far = elsewhere("far")
    beat_at("far", 1000.0)
    leases.take("key", far)
    run = RunRecord("run", "RUNNING", 0.0, None, {**far, "ablation": "toy"})
    clocks.wall += jump
    clocks.meanwhile = lambda: beat_at("far", leases.owner_file("far").stat().st_mtime + 5)
    with leases.owner() as here:
        assert not leases.take("key", here)
        assert not leases.is_abandoned(run)
        clocks.meanwhile = lambda: None
        assert leases.is_abandoned(run)
        assert leases.take("key", here)


def test_a_heartbeat_is_seen_by_other_hosts() -> None:
    with leases.owner() as owner:
        beat_at(owner["owner"], time.time() - 1000)
        leases.beat(owner)
        assert leases.lives({**owner, "host": "another-host"})


def test_a_sweeps_run_of_another_host_is_abandoned_when_its_owner_has_left_and_one_by_hand_never() -> None:
    by_hand = {"owner": "x", "host": "elsewhere", "pid": "1"}
    swept = {**by_hand, "ablation": "toy"}
    assert leases.is_abandoned(RunRecord("run", "RUNNING", 0.0, None, swept))
    assert not leases.is_abandoned(RunRecord("run", "RUNNING", 0.0, None, by_hand))
    assert not leases.is_abandoned(RunRecord("run", "FINISHED", 0.0, 1.0, swept))
    elsewhere("x")
    assert not leases.is_abandoned(RunRecord("run", "RUNNING", 0.0, None, swept))


def test_a_lease_written_on_a_full_disk_is_nobodys_and_a_folder_that_cannot_be_written_is_one_clear_sentence() -> None:
    with leases.owner() as owner:
        leases.folder().mkdir()
        (leases.folder() / "key").write_text("")
        assert leases.take("key", owner)
        leases.release("key", owner)
        leases.folder().rmdir()
        leases.folder().touch()
        with pytest.raises(LabError, match=r"the leases in .*leases cannot be written .*; free some disk or make"):
            leases.take("key", owner)


def test_done_is_a_finished_run_of_that_key_alone(store_maker) -> None:
    assert not store.is_done("abc")
    store_maker()
    with closing(sqlite3.connect(store.database())) as connection:
        for run, status, key, kind in (
            ("1", "FINISHED", "abc", "cell"),
            ("2", "FAILED", "def", "cell"),
            ("3", "FINISHED", "ghi", "by hand"),
        ):
            connection.execute(
                "INSERT INTO runs (run_uuid, experiment_id, status, lifecycle_stage, start_time) "
                "VALUES (?, 1, ?, 'active', 0)",
                (run, status),
            )
            for tag, value in (("key", key), ("kind", kind)):
                connection.execute(
                    "INSERT INTO tags (run_uuid, key, value) VALUES (?, ?, ?)", (run, f"{store.PREFIX}{tag}", value)
                )
        connection.commit()
    assert [store.is_done(key) for key in ("abc", "def", "ghi", "a")] == [True, False, False, False]


def test_an_owner_lives_as_long_as_its_lock_is_held() -> None:
    with leases.owner() as owner:
        assert leases.lives(owner)
        path = leases.owner_file(owner["owner"])
    assert not path.exists()
    assert not leases.lives(owner)
    path.touch()  # its process was killed
    assert not leases.lives(owner)


def test_who_asks_for_an_owner_is_not_taken_for_it() -> None:
    path = leases.owner_file("dead")
    path.parent.mkdir(parents=True)
    path.touch()
    with path.open("rb") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        assert not leases.lives({"owner": "dead", "host": socket.gethostname()})
