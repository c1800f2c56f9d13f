import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lab.errors import LabError
from lab.study.limits import Limits, memory_of, parse_bytes, parse_seconds


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("45m", 2700), ("2h", 7200), ("1h30m", 5400), ("1.5 h", 5400), ("1d", 86400)]
)
def test_durations_are_read_with_their_units(text: str, seconds: float) -> None:
    assert parse_seconds(text, "--time-limit") == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("500MB", 500_000_000), ("8GB", 8_000_000_000), ("0.5 TB", 500_000_000_000)]
)
def test_sizes_are_read_with_their_units(text: str, size: int) -> None:
    assert parse_bytes(text, "--memory-limit") == size


@pytest.mark.parametrize("text", ["", "90", "h", "2x", "2h and more", "-2h", "m2", "2 h 3"])
def test_a_quantity_without_a_number_or_a_known_unit_is_refused_with_the_choices(text: str) -> None:
    with pytest.raises(LabError, match=r"--time-limit is '.*'; expected a number with its unit: s, m, h or d"):
        parse_seconds(text, "--time-limit")
    with pytest.raises(LabError, match=r"--memory-limit is '.*'; expected a number with its unit: MB, GB or TB"):
        parse_bytes(text, "--memory-limit")


def test_nothing_is_no_limit_and_retries_count_from_zero() -> None:
    with pytest.raises(LabError, match="--time-limit is '0s'; expected more than nothing"):
        parse_seconds("0s", "--time-limit")
    with pytest.raises(LabError, match="retries is how often a cell is tried again, from 0; got -1"):
        Limits(retries=-1)


def started(code: str) -> psutil.Process:
    return psutil.Process(subprocess.Popen([sys.executable, "-c", code]).pid)


def test_what_runs_longer_than_its_limit_is_over_it() -> None:
    assert Limits(seconds=0.3).exceeded(os.getpid(), 0.4) == "it ran longer than its limit of 0.3 s"
    assert Limits(seconds=0.3).exceeded(os.getpid(), 0.2) == Limits().exceeded(os.getpid(), 1e9) == ""


def test_what_takes_more_memory_than_its_limit_is_over_it() -> None:
    hungry = started("import time; block = bytearray(300_000_000); time.sleep(60)")
    deadline = time.monotonic() + 30
    while memory_of([hungry]) < 290_000_000 and time.monotonic() < deadline:
        time.sleep(0.05)
    told = Limits(memory_bytes=200_000_000).exceeded(hungry.pid, 0.0)
    assert re.fullmatch(r"it used 0\.3\d GB of memory, more than its limit of 0\.20 GB", told)
    assert Limits(memory_bytes=10**9).exceeded(hungry.pid, 0.0) == ""
    hungry.kill()
    hungry.wait()
    assert Limits(memory_bytes=1).exceeded(hungry.pid, 0.0) == ""


def test_memory_that_a_fork_shares_is_not_counted_and_the_dead_count_nothing(tmp_path: Path) -> None:
    block = bytearray(b"x" * 200_000_000)
    pid = os.fork()
    if pid == 0:
        time.sleep(30)
        os._exit(0)
    child = psutil.Process(pid)
    assert memory_of([child]) < 100_000_000 < len(block)
    child.kill()
    os.waitpid(pid, 0)
    assert memory_of([child]) == 0
