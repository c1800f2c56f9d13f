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
from lab.study import claims, store
from lab.study.store import RunRecord


def elsewhere(name: str) -> dict[str, str]:
    """An owner on another host."""
    return {"owner": name, "host": "another-host", "pid": "1"}


@pytest.fixture(autouse=True)
def folder() -> None:
    paths.mlruns_dir().mkdir(parents=True)


def holders() -> dict[str, str]:
    with closing(sqlite3.connect(claims.database())) as connection:
        return dict(connection.execute("SELECT key, owner FROM claims"))


def test_of_many_who_want_a_cell_at_once_one_gets_it() -> None:
    def want(owner: Mapping[str, str]) -> list[bool]:
        return [claims.claim(f"key-{number}", "a cell", owner) for number in range(5)]

    owners = [elsewhere(f"sweep-{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        got = list(threads.map(want, owners))
    assert [sum(own[number] for own in got) for number in range(5)] == [1] * 5


def test_a_claim_is_its_owners_until_it_is_released() -> None:
    with store.owner() as one, store.owner() as other:
        assert claims.claim("key", "small, seed 0", one)
        assert claims.claim("key", "small, seed 0", one)
        assert not claims.claim("key", "small, seed 0", other)
        claims.release("key", other)
        assert holders() == {"key": one["owner"]}
        claims.release("key", one)
        assert claims.claim("key", "small, seed 0", other)


def test_the_claim_of_a_dead_process_is_free_whatever_the_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    with store.owner() as dead:
        assert claims.claim("key", "small, seed 0", dead)
        monkeypatch.setattr(time, "time", lambda: 1e12)
        with store.owner() as other:
            assert not claims.claim("key", "small, seed 0", other)
    with store.owner() as other:
        assert claims.claim("key", "small, seed 0", other)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Both clocks, and whoever is called while somebody sleeps."""
    told = SimpleNamespace(wall=1000.0, steady=0.0, meanwhile=lambda: None)

    def sleep(seconds: float) -> None:
        told.wall += seconds
        told.steady += seconds
        told.meanwhile()

    monkeypatch.setattr(
        claims,
        "time",
        SimpleNamespace(time=lambda: told.wall, monotonic=lambda: told.steady, sleep=sleep),
    )
    return told


def test_an_owner_on_another_host_is_dead_when_its_heart_has_stopped(clocks: SimpleNamespace) -> None:
    far = elsewhere("far")
    assert far["host"] != socket.gethostname()
    assert claims.claim("key", "small, seed 0", far)
    clocks.wall += claims.SILENT_SECONDS - 1
    with store.owner() as here:
        assert not claims.claim("key", "small, seed 0", here)
        claims.beat(far)
        clocks.wall += claims.SILENT_SECONDS - 1
        assert not claims.claim("key", "small, seed 0", here)
        clocks.wall += 2
        assert claims.claim("key", "small, seed 0", here)
        assert clocks.steady == pytest.approx(claims.WATCHED_BEATS * claims.BEAT_SECONDS)


@pytest.mark.parametrize("jump", [10_000.0, -10_000.0])
def test_a_clock_that_jumps_takes_no_cell_from_an_owner_whose_heart_beats(clocks: SimpleNamespace, jump: float) -> None:
    far = elsewhere("far")
    claims.claim("key", "small, seed 0", far)
    run = RunRecord("run", "RUNNING", 0.0, None, {**far, "kind": "cell"})
    clocks.wall += jump

    def beat_of_its_own_clock() -> None:
        with closing(sqlite3.connect(claims.database())) as connection:
            connection.execute("UPDATE claims SET heartbeat = heartbeat + 5 WHERE owner = 'far'")
            connection.commit()

    clocks.meanwhile = beat_of_its_own_clock
    with store.owner() as here:
        assert not claims.claim("key", "small, seed 0", here)
        assert not claims.is_abandoned(run)
        clocks.meanwhile = lambda: None
        assert claims.is_abandoned(run)
        assert claims.claim("key", "small, seed 0", here)


def test_a_cell_of_another_host_is_abandoned_without_a_claim_and_a_study_never() -> None:
    tags = {"owner": "x", "host": "elsewhere", "pid": "1"}
    assert claims.is_abandoned(RunRecord("run", "RUNNING", 0.0, None, {**tags, "kind": "cell"}))
    assert not claims.is_abandoned(RunRecord("run", "RUNNING", 0.0, None, {**tags, "kind": "study"}))
    assert not claims.is_abandoned(RunRecord("run", "FINISHED", 0.0, 1.0, {**tags, "kind": "cell"}))
    claims.claim("key", "small, seed 0", elsewhere("x"))
    assert not claims.is_abandoned(RunRecord("run", "RUNNING", 0.0, None, {**tags, "kind": "cell"}))


def test_a_damaged_file_or_a_full_disk_is_one_clear_sentence() -> None:
    with store.owner() as owner:
        claims.claim("key", "small, seed 0", owner)
        whole = claims.database().read_bytes()
        claims.database().write_bytes(whole[: len(whole) // 2 - 100])
        with pytest.raises(LabError, match=r"the claims in .*claims\.db cannot be used .*delete the file"):
            claims.claim("key", "small, seed 0", owner)
        claims.database().unlink()
        claims.database().mkdir()
        with pytest.raises(LabError, match="make the folder writable"):
            claims.release("key", owner)


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
