"""`reproduce`: run the cells of a study that are missing or changed, each in a process of its own.

Order: the parameters are held against the notebook, data and weights are prepared once, every cell's identity is
looked up in the store, and what is left goes to worker processes. A call that finds everything done imports neither
mlflow nor papermill.
"""

import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.study import golden, leases, preparation, results, store, tracking
from lab.study.ablation import Ablation, Cell, cells, load_module, notebook_path, typed
from lab.study.driver import Driver, interruptible
from lab.study.forecast import TRIAL, Budget, Forecast, Meter, check_budget, in_order, try_out
from lab.study.identity import identify, is_prepared, notebook_hash
from lab.study.limits import DEFAULT_LIMITS, Limits
from lab.study.machines import THIS_MACHINE, Machines
from lab.study.parameters import check_notebook, imported_modules
from lab.study.plan import Display, PlannedCell, plan
from lab.study.tracking_server import TrackingServer, check_store
from lab.study.worker import available_cores
from lab.training.parameters import Parameters

Prepare = Callable[[list[Parameters]], Mapping[str, Any]]
"""Makes ready what the cells need, returns the ingredients that `identify` describes."""

MAX_DEFAULT_WORKERS = 8  # a kernel with torch takes 0.5 GB and more


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a sweep ended."""

    before: tuple[PlannedCell, ...]
    """Each cell as it stood when everything was prepared, before any ran."""
    planned: tuple[PlannedCell, ...]
    """Each cell as it stands afterwards."""
    failed: Mapping[str, str]
    """The reason, by the title of the cell."""
    interrupted: bool
    results_file: Path | None
    notes: tuple[str, ...] = ()
    """What else is to be said of it, a line each: the looks at the claim, where seeds were added until it decides."""

    @property
    def complete(self) -> bool:
        """Whether every chosen cell is done."""
        return all(entry.state == "done" for entry in self.planned)


def load_prepare(name: str) -> Prepare:
    """The `prepare` of `ablations/NAME.py` where it has one of its own, else that of every study."""
    own: Prepare = getattr(load_module(name), "prepare", preparation.prepare)
    return own


def prepare_cells(
    ablation: Ablation,
    rung: str,
    rows: str | Sequence[str] = "main",
    seeds: Sequence[int] | None = None,
    prepare: Prepare | None = None,
) -> tuple[list[Cell], dict[str, Any]]:
    """Check the chosen cells, prepare what they need, and give them their identity.

    Raises:
        LabError: an unknown row or rung, parameters that do not fit the notebook, a notebook that is not Python, a
            results file changed by hand (all before anything is fetched or started), or whatever the preparation lacks.
    """
    chosen = cells(ablation, rung, rows, seeds)
    notebook = notebook_path(ablation)
    check_notebook(notebook, type(ablation.base))
    notebook_hash(notebook)  # refuses code that is not Python
    results.read_lines(ablation, rung)
    prepared = dict((prepare or load_prepare(ablation.name))(typed(ablation, chosen)))
    return identify(chosen, notebook, prepared), prepared


def status(
    ablation: Ablation, rung: str, rows: str | Sequence[str] = "main", seeds: Sequence[int] | None = None
) -> list[PlannedCell]:
    """How the cells stand, judged by what the last `reproduce` of this rung prepared; nothing is fetched or started."""
    chosen = cells(ablation, rung, rows, seeds)
    notebook = notebook_path(ablation)
    check_notebook(notebook, type(ablation.base))
    parent = tracking.find_study(ablation.name, rung)
    if parent is None:
        return [PlannedCell(cell=cell, state="missing") for cell in chosen]
    prepared = json.loads(parent.tags["prepared"])
    known = identify([cell for cell in chosen if is_prepared(cell, prepared)], notebook, prepared)
    planned = {(entry.cell.row, entry.cell.seed): entry for entry in plan(known)}
    return [planned.get((cell.row, cell.seed), PlannedCell(cell=cell, state="missing")) for cell in chosen]


def _history(ablation: Ablation, rung: str, runs: Sequence[store.RunRecord]) -> dict[str, list[float]]:
    """Seconds of the finished cells of this rung, by row."""
    seconds: dict[str, list[float]] = {}
    wanted = {"kind": "cell", "ablation": ablation.name, "rung": rung}
    for run in runs:
        finished = wanted.items() <= run.tags.items() and run.status == "FINISHED"
        if finished and run.seconds is not None and run.seconds > 0:  # a clock may have been set back
            seconds.setdefault(run.tags["row"], []).append(run.seconds)
    return seconds


def _study_tags(ablation: Ablation, prepared: Mapping[str, Any]) -> dict[str, str]:
    return {"prepared": json.dumps(prepared, sort_keys=True), "claim": ablation.claim}


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Runs prepared cells of one study at one rung."""

    ablation: Ablation
    rung: str
    prepared: Mapping[str, Any]
    prepare: Prepare
    machines: Machines = THIS_MACHINE
    limits: Limits = DEFAULT_LIMITS
    display: Display
    room: int | None = None
    """Cells at once, at most."""

    def run(
        self,
        todo: Sequence[Cell],
        workers: int | None,
        budget: Budget | None = None,
        *,
        kind: str = "cell",
        goldens: Mapping[str, golden.Record] = golden.NONE,
    ) -> tuple[dict[str, str], bool]:
        """Run the cells, each with its row's golden record; returns why some failed, and whether the user stopped it.

        Of cells that are run for something else than their results, whose kind is another, no line is printed.
        """
        display, machines = self.display, self.machines
        if kind != "cell":
            display = Display(self.ablation, self.rung, file=io.StringIO())
        meter, status, parent = Meter(budget, display.forecast), "FAILED", ""
        driver: Driver | None = None
        server: TrackingServer | None = None
        with leases.owner() as owner, interruptible():
            # Workers import, and a server starts, while the parent run is made.
            executor = machines.executor(workers, imported_modules(notebook_path(self.ablation)))
            try:
                if machines.remote and not machines.tracking_uri:
                    server = TrackingServer(executor.host)
                recorder = tracking.Recorder()
                tags = {**tracking.provenance(), **owner, **_study_tags(self.ablation, self.prepared)}
                parent = recorder.study(self.ablation.name, self.rung, tags)
                uri = server.wait() if server else machines.tracking_uri
                if uri:
                    check_store(uri, parent)
                job = {
                    "notebook": self.ablation.notebook,
                    "parent": parent,
                    "kind": kind,
                    "limits": asdict(self.limits),
                    "tracking_uri": uri,
                    "experiment_id": recorder.experiment_id,
                }
                driver = Driver(executor, recorder, owner, job, workers, meter, display, goldens)
                driver.run(todo)
                # A golden run is no part of the study.
                status = "FAILED" if driver.failed and kind != golden.KIND else "FINISHED"
            except KeyboardInterrupt:
                status = "KILLED"
                self.display.say("stopping: what is done stays, the next call goes on from here")
            finally:
                executor.stop()
                if driver:
                    driver.close_what_ran()
                if server:
                    server.stop()
                if parent:
                    tracking.close_abandoned(recorder)
                    recorder.close(parent, status)
        return driver.failed if driver else {}, status == "KILLED"

    def golden_records(
        self, cells: Sequence[Cell], arithmetics: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, golden.Record], bool]:
        """The golden records of the cells' rows, by row, those not there yet made; and whether Ctrl-C came.

        A golden run that cannot be prepared or fails is left out, with a line that says so: it never fails a cell.
        Golden runs have few samples, so they are prepared apart: what a cell was prepared from stands under its
        source's name, and must not be mistaken for theirs. They are made by as many workers as the rung has by default,
        however few they are: threads are shared out between workers, and their number moves the last bits of a loss.

        `arithmetics` says by row on which arithmetic a record has to be made; any where None.
        """
        ablation, say = self.ablation, self.display.say
        small = golden.golden_cells(ablation, cells)
        if not small:
            return {}, False
        try:
            ready = self.prepare(typed(ablation, small))
            small = identify(small, notebook_path(ablation), dict(ready))
        except Exception as error:  # whatever it is, the cells themselves were prepared and can run
            say(f"no golden runs, as what they need could not be prepared: {error}")
            return {}, False

        def fits(row: str, record: golden.Record) -> bool:
            return arithmetics is None or record["arithmetic"] == arithmetics[row]

        made, stopped = golden.made_records(small, ablation.golden), False
        if missing := [cell for cell in small if not any(fits(cell.row, one) for one in made.get(cell.row, ()))]:
            say(f"golden runs of {len(missing)} row{'s' * (len(missing) != 1)}, some seconds each")
            workers = self.room if self.machines.remote else _workers(ablation, self.rung, self.room)
            failed, stopped = self.run(missing, workers, kind=golden.KIND)
            for title, reason in failed.items():
                say(f"no golden run of {title}: {reason}")
            made = golden.made_records(small, ablation.golden)
        best = {row: [record for record in records if fits(row, record)] or records for row, records in made.items()}
        return {row: records[-1] for row, records in best.items()}, stopped


def _workers(ablation: Ablation, rung: str, room: int | None) -> int:
    """Cells at once where the user does not say."""
    return room or ablation.rung(rung).workers or min(available_cores(), MAX_DEFAULT_WORKERS)


def reproduce(
    ablation: Ablation,
    *,
    rung: str = "cpu",
    rows: str | Sequence[str] = "main",
    seeds: Sequence[int] | None = None,
    workers: int | None = None,
    machines: Machines = THIS_MACHINE,
    limits: Limits = DEFAULT_LIMITS,
    budget: Budget | None = None,
    prepare: Prepare | None = None,
    display: Display | None = None,
) -> Outcome:
    """Bring a study up to date: run what is missing, changed or failed before, then write its results file.

    Args:
        workers: cells at once; where None the rung's own number, else one a core, at most 8, and on other machines as
            many as they have room for.
        machines: where the cells run; others are looked for before anything is prepared.
        limits: of each cell; one that is over a limit fails, one that failed for what can pass is tried again.
        budget: of this machine's time; a sweep whose forecast is above it is refused, or runs what fits. Where no
            cell was timed, the ablation's `trial` makes the forecast.
        prepare: the function of `ablations/NAME.py` where None.

    A failing cell never stops the others. Ctrl-C stops all of them within some seconds and leaves no run open.
    """
    if workers is not None and workers < 1:
        raise LabError(f"workers is the number of cells run at once, from 1; got {workers}")
    room, asked = machines.check(workers), workers
    prepare = prepare or load_prepare(ablation.name)
    tracking.close_abandoned()
    chosen, prepared = prepare_cells(ablation, rung, rows, seeds, prepare)
    store.ensure_store()
    runs = store.read_runs()
    before = planned = plan(chosen, runs)
    todo = [entry.cell for entry in planned if entry.to_do]
    workers = max(1, min(_workers(ablation, rung, room) if workers is None else workers, len(todo)))
    at_once = asked if machines.remote else workers
    history = _history(ablation, rung, runs) if todo else {}
    display = display or Display(ablation, rung)
    runner = Runner(
        ablation=ablation,
        rung=rung,
        prepared=prepared,
        prepare=prepare,
        machines=machines,
        limits=limits,
        display=display,
        room=room,
    )
    if budget is not None and not history and todo and ablation.trial is not None:
        run = partial(runner.run, workers=at_once, kind=TRIAL)
        history, budget = try_out(ablation, ablation.trial, todo, prepared, run, display.say, budget)
    forecast = Forecast(ablation, workers, history)
    if budget is not None:
        budget = check_budget(todo, forecast, budget)
    todo = in_order(todo, forecast, budget)
    failed: dict[str, str] = {}
    interrupted, begun = False, time.monotonic()
    goldens: Mapping[str, golden.Record] = golden.NONE
    if ablation.rung(rung).recorded and todo:
        goldens, interrupted = runner.golden_records(todo)
    if budget is not None:  # golden runs are of it too; those of several rows at once count as one after another
        budget = budget.less((time.monotonic() - begun) * (budget.gpus or 1.0))
    display.begin(planned, workers, history)
    if todo and not interrupted:
        failed, interrupted = runner.run(todo, at_once, budget, goldens=goldens)
        planned = plan(chosen)
    elif (study := tracking.find_study(ablation.name, rung)) is None or not (
        _study_tags(ablation, prepared).items() <= study.tags.items()
    ):  # all cells are another ablation's, or what was prepared changed back
        recorder = tracking.Recorder()
        tags = {**tracking.provenance(), **_study_tags(ablation, prepared)}
        recorder.close(recorder.study(ablation.name, rung, tags), "FINISHED")
    return Outcome(
        before=tuple(before),
        planned=tuple(planned),
        failed=failed,
        interrupted=interrupted,
        results_file=results.update_results(ablation, rung, prepared),
    )
