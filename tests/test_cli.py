import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lab import cli, cli_sweep

COMMANDS = ("reproduce", "status", "results", "prepare", "scale", "tables", "figures")


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run `lab ARGUMENTS` in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["lab", *arguments])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    return int(exited.value.code or 0)


def test_importing_the_command_imports_nothing_heavy() -> None:
    code = "import sys, lab.cli; print(sorted({'torch', 'mlflow', 'papermill', 'pandas', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_sub_command_explains_itself() -> None:
    runner = CliRunner()
    overview = runner.invoke(cli.app, ["--help"])
    assert overview.exit_code == 0
    for command in COMMANDS:
        assert command in overview.output
        done = runner.invoke(cli.app, [command, "--help"])
        assert done.exit_code == 0
        assert "The ablation" in done.output


def test_a_users_mistake_is_one_line_without_a_traceback(
    toy_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in [
        (["reproduce", "toys"], "error: unknown ablation 'toys' (did you mean 'toy'?); choose one of: toy"),
        (["reproduce", "toy", "--rung", "cpux"], "error: unknown rung of 'toy': 'cpux' (did you mean 'cpu'?)"),
        (["reproduce", "toy", "--rows", "smal,large"], "error: unknown row of 'toy' (or main, all): 'smal'"),
        (["reproduce", "toy", "--seeds", "one"], "error: seeds are whole numbers separated by commas"),
        (["reproduce", "toy", "--time-limit", "90"], "error: --time-limit is '90'; expected a number with its unit"),
        (["reproduce", "toy", "--memory-limit", "8"], "error: --memory-limit is '8'; expected a number with its unit"),
        (["reproduce", "toy", "--retries", "-1"], "error: retries is how often a cell is tried again"),
        (["reproduce", "toy", "--budget", "2"], "error: --budget is '2'; expected a number with its unit"),
        (["reproduce", "toy", "--fit"], "error: --fit says what to do under a budget; give one"),
        (["reproduce", "toy", "--ray", "a:1", "--slurm", "slurm"], "error: --ray and --slurm exclude each other"),
        (
            ["reproduce", "toy", "--slurm", "pbs"],
            "error: unknown cluster for --slurm: 'pbs'; choose one of: local, slurm",
        ),
        (
            ["reproduce", "toy", "--slurm", "local", "--slurm-option", "a"],
            "error: --slurm-option is 'a'; expected NAME=",
        ),
        (["unattended", "toy", "--tracking-uri", "http://a:1"], "error: --tracking-uri is for cells on other machines"),
        (["schedule", "add", "toy", "at two"], "error: 'at two' is no time for cron; expected five fields"),
        (["results", "toy"], "error: there are no results of 'toy' at rung 'cpu'"),
        (["figures", "tow"], "error: unknown figure 'tow'"),
    ]:
        assert call(monkeypatch, *arguments) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith(message)
        assert len(captured.err.splitlines()) == 1
        assert "Traceback" not in captured.err


def test_a_terminal_is_asked_about_a_forecast_above_the_budget_and_nothing_else_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(cli_sweep.typer, "confirm", lambda text: asked.append(text) or True)
    given = {"rung": "cpu", "rows": "main", "budget": "2h", "gpus": 0.0, "retries": 2}
    given |= {"ray": "", "slurm": "", "tracking_uri": "", "until_decided": False, "fit": False}
    given |= dict.fromkeys(("seeds", "workers", "time_limit", "memory_limit", "slurm_option", "max_seeds"))

    def asks(terminal: bool, ask: bool) -> Any:
        monkeypatch.setattr(cli_sweep, "_is_terminal", lambda: terminal)
        return cli_sweep._asked_sweep(given, ask)[1]["budget"].ask

    assert asks(terminal=True, ask=True)("3 cells would take 9 hours")
    assert asked == ["3 cells would take 9 hours. Run all of it nevertheless?"]
    assert asks(terminal=True, ask=False) is None
    assert asks(terminal=False, ask=True) is None


def test_without_a_name_the_choices_are_told(
    toy_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["status"], ["reproduce"], ["scale"]):
        assert call(monkeypatch, *command) == 2
        assert capsys.readouterr().err == "error: name an ablation; choose one of: toy\n"


def test_status_speaks_to_machines_as_well(
    toy_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "status", "toy", "--json", "--rows", "small") == 0
    told = json.loads(capsys.readouterr().out)
    assert [(cell["row"], cell["seed"], cell["state"]) for cell in told] == [
        ("small", 0, "missing"),
        ("small", 1, "missing"),
    ]


def test_a_disk_that_cannot_be_written_is_one_line_and_other_trouble_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(number: int) -> None:
        raise OSError(number, "trouble", "results.csv")

    for number, sentence in (
        (errno.ENOSPC, "the disk is full: free some space and run it again"),
        (errno.EROFS, "the disk is read-only: make it writable, or name other folders"),
        (errno.EACCES, "no permission to write: take the folder over"),
    ):
        monkeypatch.setattr(cli, "app", lambda number=number: fail(number))
        assert call(monkeypatch) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"error: {sentence}")
        assert told.endswith("(results.csv); what was recorded is kept\n")
    monkeypatch.setattr(cli, "app", lambda: fail(errno.EIO))
    with pytest.raises(OSError, match="trouble"):
        cli.main()


def test_a_figure_is_drawn_by_its_file(
    toy_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (toy_project / "figures").mkdir()
    (toy_project / "figures" / "boxes.py").write_text(
        "from matplotlib.figure import Figure\n"
        "def facts():\n    return {'of': 'boxes'}\n"
        "def draw(facts):\n    print('drawn of', facts['of'])\n    return Figure()\n"
    )
    assert call(monkeypatch, "figures", "boxes") == 0
    assert capsys.readouterr().out.startswith("drawn of boxes\nfigure: ")


def test_preparing_prints_the_ingredients(
    toy_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "prepare", "toy") == 0
    assert "corpus: c0ffee" in capsys.readouterr().out


@pytest.mark.slow
def test_status_and_results_show_the_cells(
    swept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "status", "toy", "--seeds", "0") == 0
    printed = capsys.readouterr().out
    assert "6 cells: 2 done, 2 failed, 2 missing" in printed
    assert "the loss is nan at step 3" in printed
    assert call(monkeypatch, "results", "toy") == 0
    assert "Large" in capsys.readouterr().out
    assert call(monkeypatch, "results", "toy", "--rebuild") == 0
    assert "written:" in capsys.readouterr().out


@pytest.mark.slow
def test_a_study_that_is_done_says_so_and_exits_with_0(
    swept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "reproduce", "toy", "--seeds", "0") == 0
    assert "2 cells: 2 done; results:" in capsys.readouterr().out


def test_options_of_a_scheduled_sweep_are_read_before_the_line_is_written(
    toy_project: Path, crontab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nightly = ("schedule", "add", "toy", "0 2 * * *")
    for options, told in (
        ("--time-limit 2", "--time-limit is '2'; expected a number with its unit"),
        ("--retires 2", "No such option"),
        ("--time-limit", "requires an argument"),
        ("'", "No closing quotation"),
        ("--rows all", "--rows is an option of `lab schedule add` itself"),
        ("--budget 2", "--budget is '2'"),
        ("--fit", "--fit says what to do under a budget"),
        ("--gpus 1.5", "--gpus is 1.5"),
        ("--until-decided", "contrasts"),
        ("--max-seeds 4", "needs --until-decided"),
    ):
        assert call(monkeypatch, *nightly, "--options", options) == 2
        assert told in capsys.readouterr().err
        assert not crontab.exists()
    assert call(monkeypatch, *nightly, "--options", "--time-limit 2h --retries 3 --budget 6h --fit") == 0
    assert (
        "unattended toy --rung cpu --rows main --time-limit 2h --retries 3 --budget 6h --fit #" in crontab.read_text()
    )


def test_score_hands_its_options_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from lab.training import scored_sources
    from lab.training.scoring import ScoringOptions

    handed: dict[str, object] = {}
    monkeypatch.setattr(scored_sources, "score_source", lambda source, out, **rest: handed.update(rest, asked=source))
    options = ["--out", str(tmp_path), "--model", "words", "--limit", "5", "--without-prompt"]
    assert call(monkeypatch, "score", "chatterbot:chinese", *options) == 0
    handed.pop("say")
    assert handed == {
        "asked": "chatterbot:chinese",
        "model": "words",
        "limit": 5,
        "options": ScoringOptions(without_prompt=True),
        "device": "auto",
    }


def test_score_of_pictures_hands_the_studys_parameters_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lab.training import scored_sources

    handed: list[object] = []
    monkeypatch.setattr(
        scored_sources,
        "score_source",
        lambda source, out, model, **rest: handed.extend([source, model.scorer_steps, rest["limit"]]),
    )
    plain = ["score", "stills", "--images", "--out", str(tmp_path)]
    assert call(monkeypatch, *plain, "--rung", "smoke", "--limit", "3") == 0
    assert handed == ["stills", 4, 3]
    assert call(monkeypatch, *plain, "--rung", "huge") == 2
    assert "huge" in capsys.readouterr().err
    assert call(monkeypatch, *plain, "--model", "words") == 2
    assert "--model words cannot see pictures" in capsys.readouterr().err


def test_score_names_what_it_cannot_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "score", "chaterbot", "--out", str(tmp_path)) == 2
    assert "unknown source of instructions 'chaterbot'" in capsys.readouterr().err
