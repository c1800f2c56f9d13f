"""Adoption on the toy: what is a refactoring, what is not, and that nothing is lost in any case."""

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking._tracking_service import utils as tracking_utils
from typer.testing import CliRunner

from lab import paths
from lab.cli import app
from lab.study import results, store, sweep, tracking
from lab.study.ablation import Ablation, Cell, load_ablation
from lab.study.adoption import Adoption, adopt, hindrances
from lab.study.golden import arithmetic, kept_record
from lab.study.plan import plan, reason, record
from lab.study.sweep import prepare_cells, reproduce, status
from tests.conftest import TOY_CODE, TOY_PARAMETERS, use_checkout, write_notebook, write_toy_project

CODE = TOY_CODE.replace('"train_loss"', '"loss"')
# The same numbers, bit for bit: both sides of the fraction are doubled.
REFACTORED = CODE.replace("1.0 / (step + 1)", "2.0 / (2 * step + 2)")
OTHER_LOSSES = CODE.replace("1.0 / (step + 1)", "1.0 / (step + 2)")
OTHER_SCORES = CODE.replace("0.25 / size", "0.5 / size")


def toy() -> Ablation:
    return replace(load_ablation("toy"), golden={"steps": 2})


def run_here(
    runner: sweep.Runner,
    todo: Sequence[Cell],
    *given: Any,
    kind: str = "cell",
    goldens: Mapping[str, Any] = {},
) -> tuple[dict[str, str], bool]:
    """What a sweep does with its workers, in this process."""
    recorder = tracking.Recorder()
    ablation, prepared = runner.ablation, runner.prepared
    recorder.finish(recorder.study(ablation.name, runner.rung, sweep._study_tags(ablation, prepared)), "FINISHED")
    notebook = json.loads((paths.repository_root() / "notebooks" / "toy.ipynb").read_text(encoding="utf-8"))
    code = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    failed = {}
    for cell in todo:
        run_id = recorder.start_cell(cell, {"kind": kind, "arithmetic": json.dumps(arithmetic())}, "")
        if cell.row in goldens:
            kept = store.spool_dir(run_id) / "artifacts" / "golden.json"
            kept.write_text(json.dumps(goldens[cell.row]), encoding="utf-8")
        namespace = dict[str, Any]()
        try:
            for source, inputs in zip(code, ({**cell.parameters, "run_id": run_id}, {}), strict=True):
                exec(source, namespace)
                namespace |= inputs
        except Exception as error:
            failed[cell.title] = str(error)
        recorder.finish(run_id, "FAILED" if cell.title in failed else "FINISHED")
    return failed, False


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, store_maker: Callable[[], None]) -> Path:
    """Two rows at two seeds, measured with their golden runs."""
    folder = tmp_path_factory.mktemp("adoption")
    root = write_toy_project(folder / "checkout")
    write_notebook(root / "notebooks" / "toy.ipynb", code=CODE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNI_LAB_MLRUNS", str(folder / "mlruns"))
        patch.setattr(sweep.Runner, "run", run_here)
        use_checkout(root, patch)
        store_maker()
        assert reproduce(toy()).complete
    return folder


@pytest.fixture
def study(measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in place of ours; its checkout."""
    for name in ("checkout", "mlruns"):
        shutil.copytree(measured / name, tmp_path / name)
    tracking_utils._artifact_repos_cache.clear()  # MLflow remembers where each run's artifacts were
    monkeypatch.setattr(sweep.Runner, "run", run_here)
    use_checkout(tmp_path / "checkout", monkeypatch)
    return tmp_path / "checkout"


def change(checkout: Path, code: str = CODE, parameters: str = TOY_PARAMETERS) -> None:
    write_notebook(checkout / "notebooks" / "toy.ipynb", parameters=parameters, code=code)


def declare(checkout: Path, old: str, new: str) -> None:
    path = checkout / "ablations" / "toy.py"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def states() -> list[str]:
    return [entry.state for entry in plan(prepare_cells(toy(), "cpu")[0])]


def outcomes(told: Sequence[Adoption]) -> list[str]:
    return [one.outcome for one in told]


def runs() -> list[store.RunRecord]:
    """Of cells, the small toy's before the large one's."""
    found = [run for run in store.read_runs() if run.tags.get("kind") == "cell"]
    return sorted(found, key=lambda run: (run.tags["row"] != "small", run.tags["seed"]))


def test_every_cell_of_a_row_keeps_the_same_golden_run(study: Path) -> None:
    kept = {(run.tags["row"], run.tags["seed"]): kept_record(run) for run in runs()}
    assert len(kept) == 4
    for row, error in (("small", 0.25), ("large", 0.0625)):
        assert kept[row, "0"] == kept[row, "1"]
        assert kept[row, "0"] == {
            "arithmetic": arithmetic(),
            "changes": {"steps": 2},
            "losses": {"0": 1.0, "1": 0.5},
            "results": {"test_character_error_rate": error, "steps_done": 2.0},
        }
    made = [run.tags["row"] for run in store.read_runs() if run.tags.get("kind") == "golden"]
    assert sorted(made) == ["large", "small"]


def test_where_nothing_is_stale_there_is_nothing_to_adopt(study: Path) -> None:
    before = store.read_runs()
    told, path = adopt(toy())
    assert told == []
    assert store.read_runs() == before
    assert path == results.results_path(toy(), "cpu")


def test_a_refactoring_with_equal_golden_runs_keeps_every_result(study: Path) -> None:
    before = {run.run_id: run for run in runs()}
    lines = results.read_lines(toy(), "cpu")
    change(study, REFACTORED)
    assert states() == ["stale"] * 4
    told, path = adopt(toy())
    assert outcomes(told) == ["adopted"] * 4
    assert states() == ["done"] * 4
    for run in runs():
        was = before[run.run_id]
        assert (run.results, run.start, run.end) == (was.results, was.start, was.end)
        (entry,) = json.loads(run.artifact("adopted.json").read_text(encoding="utf-8"))
        assert (entry["from"], entry["to"]) == (was.tags["key"], run.tags["key"])
        assert re.fullmatch(r".+@.+", entry["by"])
        assert entry["at"] in run.tags["adopted"]
        assert entry["changed"][0].startswith("notebook: ")
        assert {"git_commit", "git_dirty"} <= entry.keys()
    now = results.read_lines(toy(), "cpu")
    assert path == results.results_path(toy(), "cpu")
    assert [{**line, "key": ""} for line in now] == [{**line, "key": ""} for line in lines]
    assert all(line["key"] != was["key"] for line, was in zip(now, lines, strict=True))
    assert reproduce(toy()).complete
    assert len(runs()) == 4


def test_status_says_who_adopted_a_result_and_from_what(study: Path) -> None:
    key = runs()[0].tags["key"]
    change(study, REFACTORED)
    adopt(toy())
    entry = status(toy(), "cpu")[0]
    assert re.fullmatch(rf"adopted \d{{4}}-.* by .+@.+ from {key}", reason(entry))
    assert str(record(entry)["adopted"]).endswith(f"from {key}")


def test_a_second_refactoring_is_recorded_after_the_first(study: Path) -> None:
    first = runs()[0].tags["key"]
    change(study, REFACTORED)
    adopt(toy())
    second = runs()[0].tags["key"]
    change(study, REFACTORED + "# nothing\nunused = 1\n")
    assert outcomes(adopt(toy())[0]) == ["adopted"] * 4
    past = json.loads(runs()[0].artifact("adopted.json").read_text(encoding="utf-8"))
    assert [(one["from"], one["to"]) for one in past] == [(first, second), (second, runs()[0].tags["key"])]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (OTHER_LOSSES, "the loss of step 0 was 1.0 and is 0.5"),
        (OTHER_SCORES, "test_character_error_rate was 0.25 and is 0.5"),
    ],
)
def test_where_a_golden_run_differs_nothing_is_changed(study: Path, code: str, why: str) -> None:
    before, lines = runs(), results.read_lines(toy(), "cpu")
    change(study, code)
    told, _ = adopt(toy(), rows=["small"])
    assert [(one.cell.title, one.outcome, one.why) for one in told] == [
        (f"small, seed {seed}", "differs", f"{why}; it stays stale") for seed in (0, 1)
    ]
    assert runs() == before
    assert results.read_lines(toy(), "cpu") == lines


def test_one_row_can_be_adopted_while_another_stays(study: Path) -> None:
    lines = {(line["row"], line["seed"]): line for line in results.read_lines(toy(), "cpu")}
    change(study, CODE.replace("0.25 / size", "(0.25 if size == 1 else 0.5) / size"))
    told, _ = adopt(toy(), seeds=[0])
    assert {one.cell.row: one.outcome for one in told} == {"small": "adopted", "large": "differs"}
    now = {(line["row"], line["seed"]): line for line in results.read_lines(toy(), "cpu")}
    assert {place for place in now if now[place] != lines[place]} == {("small", "0")}


def test_a_parameter_that_was_added_is_a_refactoring_and_one_that_was_changed_is_none(study: Path) -> None:
    declare(study, "    steps: int = 3\n", "    steps: int = 3\n    extra: int = 0\n")
    change(study, parameters=f"{TOY_PARAMETERS}extra: int = 0  # of no use\n")
    assert outcomes(adopt(toy())[0]) == ["adopted"] * 4
    declare(study, "noise: float = 0.5", "noise: float = 0.75")
    told, _ = adopt(toy())
    assert outcomes(told) == ["left"] * 4
    assert told[0].why == "more than code has changed: parameter.noise: 0.5 -> 0.75; it stays stale"


def test_other_data_is_no_refactoring(study: Path) -> None:
    declare(study, "c0ffee", "c0ffef")
    told, _ = adopt(toy())
    assert outcomes(told) == ["left"] * 4
    assert told[0].why == "more than code has changed: prepared.corpus: c0ffee -> c0ffef; it stays stale"


def test_definitions_and_the_notebook_are_code_and_a_package_is_none() -> None:
    before = {"code.lab.x.g": "1", "notebook": "2", "package.torch": "2.14.1", "parameter.a": 1, "prepared.b": "3"}
    now = {"code.lab.x.f": "1", "notebook": "4", "package.torch": "2.15.0", "parameter.a": 1, "prepared.b": "3"}
    assert hindrances(before, now) == ["package.torch: 2.14.1 -> 2.15.0"]


def test_without_a_golden_run_or_its_artifacts_a_result_stays_stale(study: Path) -> None:
    first, second, *_ = runs()
    first.artifact("golden.json").unlink()
    shutil.rmtree(second.artifact("golden.json").parent)
    change(study, REFACTORED)
    told = {one.cell.title: one for one in adopt(toy(), rows=["small"])[0]}
    assert outcomes(list(told.values())) == ["left", "left"]
    assert told["small, seed 0"].why == "no golden run was kept with it; it stays stale"
    assert f"the artifacts of its run {second.run_id} are not on this machine" in told["small, seed 1"].why


@pytest.mark.parametrize(
    "kept", ['{"losses": {}, "results": {}, "arithmetic": {}, "changes": {}}', "null", "{}", "{", "[1]"]
)
def test_a_golden_run_that_says_nothing_is_no_reason_to_keep_a_result(study: Path, kept: str) -> None:
    before = runs()
    before[0].artifact("golden.json").write_text(kept, encoding="utf-8")
    change(study, REFACTORED)
    told, _ = adopt(toy(), rows=["small"], seeds=[0])
    assert [(one.outcome, one.why) for one in told] == [("left", "no golden run was kept with it; it stays stale")]
    assert runs() == before


def test_on_another_arithmetic_nothing_can_be_compared(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(study, REFACTORED)
    monkeypatch.setenv("OMP_NUM_THREADS", str(arithmetic()["threads"] + 1))
    told, _ = adopt(toy(), rows=["small"])
    assert outcomes(told) == ["left", "left"]
    assert "its golden run was made on another arithmetic: threads: " in told[0].why


def test_another_golden_run_is_not_compared(study: Path) -> None:
    change(study, REFACTORED)
    told, _ = adopt(replace(toy(), golden={"steps": 1}), rows=["small"])
    assert told[0].why == "its golden run was another one: steps: 2 -> 1; it stays stale"


def test_a_golden_run_that_fails_today_changes_nothing(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = runs()
    change(study, REFACTORED.replace("run.log_metrics", "1 / 0\nrun.log_metrics"))
    told, _ = adopt(toy(), rows=["small"], seeds=[0])
    assert told[0].why == "its golden run could not be made today (see above); it stays stale"
    assert "no golden run of small, seed 0: division by zero" in capsys.readouterr().out
    assert runs() == before


@pytest.mark.parametrize("written", [0, 1, 2])
def test_killed_between_two_writes_the_old_identity_stands_and_the_next_adoption_ends_it(
    study: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    change(study, REFACTORED)
    keep, tag = tracking.Recorder.keep, tracking.Recorder.tag
    left = written

    def killed(write: Callable[..., None]) -> Callable[..., None]:
        def write_or_die(*given: Any) -> None:
            nonlocal left
            if not left:
                raise SystemExit("killed")
            left -= 1
            write(*given)

        return write_or_die

    before = runs()
    with monkeypatch.context() as patch:
        patch.setattr(tracking.Recorder, "keep", killed(keep))
        patch.setattr(tracking.Recorder, "tag", killed(tag))
        with pytest.raises(SystemExit):
            adopt(toy(), rows=["small"], seeds=[0])
    assert runs() == before
    assert states() == ["stale"] * 4
    why = "changed: notebook: " if written < 2 else "its adoption was interrupted; `lab adopt toy` ends it"
    assert reason(status(toy(), "cpu")[0]).startswith(why)
    told, _ = adopt(toy(), rows=["small"], seeds=[0])
    assert outcomes(told) == ["adopted"]
    run = next(run for run in runs() if "adopted" in run.tags)
    (entry,) = json.loads(run.artifact("adopted.json").read_text(encoding="utf-8"))
    assert (entry["from"], entry["to"]) == (before[0].tags["key"], run.tags["key"])
    assert [change_.partition(":")[0] for change_ in entry["changed"]] == ["notebook"]


def test_the_command_exits_with_1_where_a_golden_run_differs(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(study, "    reported=", '    golden={"steps": 2},\n    reported=')
    change(study, OTHER_LOSSES)
    done = CliRunner().invoke(app, ["adopt", "toy", "--rows", "small", "--seeds", "0"])
    assert done.exit_code == 1
    assert "differs  small, seed 0" in done.output
    assert "1 stale cell, 0 adopted" in done.output
    change(study, REFACTORED)
    done = CliRunner().invoke(app, ["adopt", "toy"])
    assert (done.exit_code, "4 stale cells, 4 adopted; results: " in done.output) == (0, True)


@pytest.mark.slow
def test_a_sweeps_workers_make_golden_runs_before_its_cells_and_a_failing_one_fails_no_cell(
    toy_project: Path, store_maker: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    store_maker()
    change(toy_project, CODE.replace("run.log_metrics", "1 / (steps - 2 * (size == 4))\nrun.log_metrics"))
    outcome = reproduce(toy(), rows=["small", "large"], seeds=[0], workers=2)
    assert outcome.complete
    kept = {run.tags["row"]: kept_record(run) for run in runs()}
    assert kept["large"] is None
    assert kept["small"] is not None
    assert kept["small"]["losses"] == {"0": 1.0, "1": 0.5}
    assert "no golden run of large, seed 0: ZeroDivisionError: division by zero" in capsys.readouterr().out
    change(toy_project, CODE)
    assert {one.cell.row: one.outcome for one in adopt(toy())[0]} == {"small": "adopted", "large": "left"}
