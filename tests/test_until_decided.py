"""`lab reproduce --until-decided` as a whole: real cells, real looks, the table, and a second call."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import cli, paths
from lab.study import adaptive, identity, store
from lab.study.ablation import load_ablation
from tests.conftest import write_notebook

ABLATION = """
from dataclasses import dataclass

from lab.paper.claims import Contrast
from lab.study.ablation import Ablation, Column, Row, Rung
from lab.training.parameters import Parameters


@dataclass(frozen=True, kw_only=True)
class ToyParameters(Parameters):
    projector: str = "conv"
    downsample_rate: int = 2


ablation = Ablation(
    name="rates",
    paper="Table 0",
    claim="Pooling errs more at high rates.",
    notebook="rates",
    seeds=(0, 1),
    base=ToyParameters(),
    rungs=(Rung(name="cpu", description="nothing is trained"),),
    rows=[
        Row(key=f"{p}_{n}", label=f"{p}, n = {n}", changes={"projector": p, "downsample_rate": n})
        for p in ("pool", "conv")
        for n in (2, 8)
    ],
    columns=(Column(
            metric="test_character_error_rate",
            label="CER",
            unit="%",
            better="lower",
            scale=100,
            interval="character_error_rate",
        ),),
)
contrasts = (Contrast(label="the claim", baseline="pool", candidate="conv", low_rate=2, high_rate=8),)


def prepare(parameters_of_cells):
    return {}
"""
PARAMETERS = """\
projector: str = "conv"
downsample_rate: int = 2
seed: int = 0
run_id: str = ""  # given by the sweep
"""
# The gap grows by 2, 10, 5 and 7 points with the seeds: 6 +- t x 3.37 / 2 with four, which is clear at 95% (t = 3.18),
# and open at the 97.75% of either of two looks (t = 4.3).
CODE = """\
import pandas
from lab.study.tracking import cell_run

run = cell_run(run_id, {"projector": projector, "downsample_rate": downsample_rate, "seed": seed})
errors = 30 + (projector == "pool") * (downsample_rate == 8) * [2, 10, 5, 7][seed]
frame = pandas.DataFrame({"id": ["a", "b"], "group": ["one", "two"], "source": "c"})
run.log_table(frame.assign(split="test", num_characters=100, character_errors=errors))
run.set_results({"test_character_error_rate": errors / 100})
run.finish()
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_maker: Callable[[], None]) -> Path:
    root = tmp_path / "checkout"
    (root / "ablations").mkdir(parents=True)
    (root / "ablations" / "rates.py").write_text(ABLATION, encoding="utf-8")
    write_notebook(root / "notebooks" / "rates.ipynb", parameters=PARAMETERS, code=CODE)
    monkeypatch.setattr(paths, "repository_root", lambda: root)
    monkeypatch.setattr(identity, "reached_by_notebook", lambda notebook: lambda parameters: {})
    store_maker()
    return root


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["lab", *arguments])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    return int(exited.value.code or 0)


@pytest.mark.slow
def test_seeds_are_added_looked_at_kept_and_told(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("reproduce", "rates", "--until-decided", "--max-seeds", "4", "--workers", "1")
    assert call(monkeypatch, *command) == 0
    printed = capsys.readouterr().out
    assert "look 1 of 2: 2 seeds, effect +6.00 points, 97.75% interval -" in printed
    assert "look 2 of 2: 4 seeds, effect +6.00 points, 97.75% interval -" in printed
    assert "no more seeds: the next look would be at 8 seeds, more than the 4 allowed" in printed
    assert "16 cells: 16 done; results:" in printed
    taken = adaptive.read_looks(load_ablation("rates"), "cpu")
    assert [(len(look.seeds), look.outcome) for look in taken] == [(2, "undecided"), (4, "undecided")]
    study = next(run for run in store.read_runs() if run.tags.get("kind") == "study")
    assert study.artifact("looks.json").read_text() == adaptive.looks_path(load_ablation("rates"), "cpu").read_text()

    runs = store.read_runs()
    assert call(monkeypatch, *command) == 0
    assert "look 2 of 2: 4 seeds" in capsys.readouterr().out
    assert [run.run_id for run in store.read_runs()] == [run.run_id for run in runs]
    assert adaptive.read_looks(load_ablation("rates"), "cpu") == taken

    assert call(monkeypatch, "unattended", "rates", "--until-decided", "--max-seeds", "4") == 0
    report = (paths.mlruns_dir() / "unattended" / "rates-cpu.md").read_text()
    assert "## Looks at the claim\n\n- look 2 of 2: 4 seeds" in report

    assert call(monkeypatch, "tables", "rates") == 0
    table = (checkout / "ablations" / "results" / "rates.cpu.md").read_text()
    assert "**The claim.** Undecided: " in table
    assert "97.75% interval" in table
    assert "2 looks were taken (at 2, 4 seeds)" in table
    assert "| pool, n = 2 | 4 (2 added²) |" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-seeds", "8"], "--max-seeds says where adding seeds ends; it needs --until-decided"),
        (["--until-decided", "--rows", "conv_2"], "the claim of 'rates' is decided by the rows pool_2, conv_2, pool_8"),
        (["--until-decided", "--seeds", "0"], "1 seed does not show how much seeds differ"),
        (["--until-decided", "--max-seeds", "1"], "at most 1 seed is wanted, but 2 were run or are asked for"),
    ],
)
@pytest.mark.parametrize("command", ["reproduce", "unattended"])
def test_what_cannot_be_decided_is_one_line(
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    arguments: list[str],
    message: str,
) -> None:
    assert call(monkeypatch, command, "rates", *arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
