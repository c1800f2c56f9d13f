import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.study import schedule
from lab.study.ablation import load_ablation

CRONSIMS_OWN = ("0 2 L * *", "0 2 LW * *", "0 2 * * fri#2", "0 2 * * 5L", "5/15 2 * * *")  # Debian's cron reads none
OTHERS = "MAILTO=me@example.org\n# mine\n5 4 * * * echo 'not ours' # and a comment\n"


@pytest.fixture
def tab(toy_project: Path, crontab: Path) -> Path:
    crontab.write_text(OTHERS)
    return crontab


def test_a_line_is_added_listed_and_removed_and_the_others_stay(tab: Path, toy_project: Path) -> None:
    toy = load_ablation("toy")
    added = schedule.add(toy, " 0  2 * * * ", rung="cpu", rows="small,large", seeds="0,1")
    schedule.add(toy, "30 1 * * mon-fri", rung="smoke", rows="all")
    text = tab.read_text()
    assert text.startswith(OTHERS.rstrip("\n"))
    (line,) = [line for line in text.splitlines() if "--rung cpu" in line]
    assert line.startswith(f"0 2 * * * cd {toy_project} && OMNI_LAB_MLRUNS=")
    assert "unattended toy --rung cpu --rows small,large --seeds 0,1 #" in line
    assert [(entry.name, entry.rung, entry.when) for entry in schedule.entries()] == [
        ("toy", "cpu", "0 2 * * *"),
        ("toy", "smoke", "30 1 * * mon-fri"),
    ]
    assert added.next_start is not None
    assert added.next_start > datetime.now().astimezone()
    schedule.remove("toy", "cpu")
    assert [entry.rung for entry in schedule.entries()] == ["smoke"]
    schedule.remove("toy", "smoke")
    assert tab.read_text().strip() == OTHERS.strip()


def test_a_line_that_was_changed_by_hand_is_still_ours_and_one_commented_out_is_not(tab: Path) -> None:
    toy = load_ablation("toy")
    schedule.add(toy, "0 2 * * *", rung="cpu", rows="main")
    for when in ("@daily", "0~59 2 * * *", "0\t2 *  * *"):
        written = tab.read_text()
        tab.write_text(written.replace("0 2 * * *", when))
        (entry,) = schedule.entries()
        assert str(entry).startswith(f"toy (cpu) at {when}; next: {'20' if chr(9) in when else 'as cron reads it'}")
        with pytest.raises(LabError, match="is scheduled already"):
            schedule.add(toy, "0 3 * * *", rung="cpu", rows="main")
        tab.write_text(written)
    tab.write_text(tab.read_text().replace("0 2 * * *", "#0 2 * * *"))
    assert schedule.entries() == []
    schedule.add(toy, "*/5,7 1-5/2 * jan-mar 1,sun", rung="cpu", rows="main")
    schedule.remove("toy", "cpu")
    assert "#0 2 * * *" in tab.read_text()


def test_another_checkouts_lines_are_not_ours(tab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule.add(load_ablation("toy"), "0 2 * * *", rung="cpu", rows="main")
    monkeypatch.setattr(schedule.paths, "repository_root", lambda: Path("/another/checkout"))
    assert schedule.entries() == []
    with pytest.raises(LabError, match="toy at rung cpu is not scheduled; scheduled is: nothing"):
        schedule.remove("toy", "cpu")


@pytest.mark.parametrize(
    "when", ["", "0 2 * *", "0 2 * * * *", "61 2 * * *", "@daily", "0 2 31 2 *", "at two", *CRONSIMS_OWN]
)
def test_a_wrong_time_is_refused_with_the_fields(tab: Path, when: str) -> None:
    with pytest.raises(LabError, match=r"is no time for cron; expected five fields: minute hour day-of-month"):
        schedule.add(load_ablation("toy"), when, rung="cpu", rows="main")
    assert tab.read_text() == OTHERS


def test_what_is_unknown_or_there_already_is_refused_before_a_line_is_written(tab: Path) -> None:
    toy = load_ablation("toy")
    with pytest.raises(LabError, match="unknown rung of 'toy': 'cpux'"):
        schedule.add(toy, "0 2 * * *", rung="cpux", rows="main")
    with pytest.raises(LabError, match="unknown row of 'toy'"):
        schedule.add(toy, "0 2 * * *", rung="cpu", rows="smal")
    assert tab.read_text() == OTHERS
    schedule.add(toy, "0 2 * * *", rung="cpu", rows="main")
    with pytest.raises(LabError, match="toy at rung cpu is scheduled already; `lab schedule remove toy --rung cpu`"):
        schedule.add(toy, "0 3 * * *", rung="cpu", rows="main")
    with pytest.raises(LabError, match="toy at rung smoke is not scheduled; scheduled is: toy at rung cpu"):
        schedule.remove("toy", "smoke")


def test_the_next_start_is_in_the_users_time_zone() -> None:
    zone = timezone(timedelta(hours=9))
    now = datetime(2026, 11, 23, 1, 30, tzinfo=zone)
    assert schedule.next_start("0 2 * * *", now) == datetime(2026, 11, 23, 2, 0, tzinfo=zone)
    assert schedule.next_start("0 1 * * *", now) == datetime(2026, 11, 24, 1, 0, tzinfo=zone)


def test_signs_that_cron_or_the_shell_would_read_are_escaped(tab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNI_LAB_MLRUNS", "/runs of 100%/x")
    schedule.add(load_ablation("toy"), "0 2 * * *", rung="cpu", rows="main")
    assert "OMNI_LAB_MLRUNS='/runs of 100\\%/x'" in tab.read_text()


def test_without_a_crontab_the_other_ways_are_named(toy_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LabError, match=r"there is no crontab command on this machine; .*unattended NAME"):
        schedule.entries()


@pytest.mark.slow
def test_the_command_edits_the_users_own_crontab(toy_project: Path, crontab: Path) -> None:
    def lab(*arguments: str) -> str:
        code = (
            "import sys; from pathlib import Path; from lab import cli, paths; root = Path(sys.argv.pop(1)); "
            "paths.repository_root = lambda: root; cli.main()"
        )
        command = [sys.executable, "-c", code, str(toy_project), "schedule", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert lab("list") == ""
    assert lab("add", "toy", "0 2 * * *").startswith("toy (cpu) at 0 2 * * *; next: 20")
    assert "unattended toy --rung cpu --rows main" in crontab.read_text()
    assert "toy (cpu) at 0 2 * * *" in lab("list")
    assert lab("remove", "toy") == "toy (cpu) is no longer scheduled\n"
    assert lab("list") == ""
