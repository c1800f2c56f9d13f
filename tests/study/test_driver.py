import io
import json
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabError
from lab.study import driver, leases, store, sweep, tracking
from lab.study.ablation import Cell, load_ablation
from lab.study.driver import Driver, Executor, interruptible
from lab.study.forecast import Budget, Forecast, Meter
from lab.study.limits import Limits
from lab.study.plan import Display
from lab.study.worker import Job, Result
from tests.study.clusters import assert_nothing_is_open

Answer = Callable[[Job], Result]


class FakeExecutor(Executor):
    """Answers each job at once, with the next of the prepared answers."""

    def __init__(self, *answers: Answer, others: bool = False) -> None:
        self.answers, self.others = list(answers), others
        self.left_out: list[str] = []

    def slots(self) -> int:
        return 1

    def submit(self, job: Job) -> "Future[Result]":
        future: Future[Result] = Future()
        future.set_result(self.answers.pop(0)(json.loads(json.dumps(job))))
        return future

    def leave_out(self, node: str) -> bool:
        self.left_out.append(node)
        return self.others

    def stop(self) -> None:
        return


class Told(Display):
    """Keeps what happened, by the names of the display's methods."""

    def __init__(self) -> None:
        super().__init__(load_ablation("toy"), "cpu", file=io.StringIO())
        self.told: list[tuple[str, str]] = []

    def retrying(self, cell: Cell, error: str, seconds: float) -> None:
        self.told.append(("retrying", error))

    def left_out(self, cell: Cell) -> None:
        self.told.append(("left_out", ""))

    def elsewhere(self, cell: Cell) -> None:
        self.told.append(("elsewhere", ""))

    def finished(self, cell: Cell, status: str, error: str, results: Any, seconds: float) -> None:
        self.told.append((status, error))


def begin(job: Job) -> str:
    """What a worker does first."""
    return tracking.Recorder().start_cell(Cell(**job["cell"]), {"kind": job["kind"], **job["owner"]}, job["parent"])


def done(job: Job) -> Result:
    """A cell that runs and delivers."""
    run_id = begin(job)
    (store.spool_dir(run_id) / "results.json").write_text(json.dumps({"a": 1.0}))
    results = tracking.Recorder().deliver(run_id, "FINISHED")
    return Result(status="FINISHED", run_id=run_id, results=results)


def refused(job: Job) -> Result:
    """A node that would run another cell."""
    return Result(error="no", refused=True, node="far")


def died(job: Job) -> Result:
    """A node that died before the cell's first word."""
    return Result(error="its node died", passing=True)


def died_while_it_ran(job: Job) -> Result:
    begin(job)
    return died(job)


@pytest.fixture
def run(
    toy_project: Path, store_maker: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., list[tuple[str, str]]]]:
    store_maker()
    monkeypatch.setattr(driver, "PAUSES", (0.01,))
    toy = load_ablation("toy")
    with leases.owner() as owner:

        def _run(executor: FakeExecutor, retries: int = 2, seconds: float | None = None) -> list[tuple[str, str]]:
            cells, _ = sweep.prepare_cells(toy, "cpu", ["small"], [0])
            told = Told()
            meter = Meter(None if seconds is None else Budget(seconds=seconds), Forecast(toy, 1, {}))
            job = {"notebook": "toy", "parent": "parent", "kind": "cell", "limits": asdict(Limits(retries=retries))}
            recorder = tracking.Recorder()
            own = Driver(executor, recorder, owner, {**job, "tracking_uri": ""}, None, meter, told)
            try:
                own.run(cells)
            finally:
                own.close_what_ran()
                told.told += [("failed", reason) for reason in own.failed.values()]
            return told.told

        yield _run


def runs() -> list[tuple[str, str]]:
    return sorted((run.status, run.tags.get("error", "")) for run in store.read_runs())


def test_a_node_that_refuses_is_left_out_and_its_refusal_kept(run: Any) -> None:
    executor = FakeExecutor(refused, done, others=True)
    assert run(executor) == [("retrying", "no"), ("FINISHED", "")]
    assert executor.left_out == ["far"]
    assert runs() == [("FAILED", "no"), ("FINISHED", "")]
    assert_nothing_is_open()


def test_a_cell_that_every_node_refuses_has_failed(run: Any) -> None:
    assert run(FakeExecutor(refused)) == [("FAILED", "no"), ("failed", "no")]
    (record,) = store.read_runs()
    assert (record.status, record.tags["node"]) == ("FAILED", "far")


def test_a_cell_whose_nodes_die_is_tried_as_often_as_its_limits_say(run: Any) -> None:
    last = [("FAILED", "its node died"), ("failed", "its node died")]
    assert run(FakeExecutor(died, died_while_it_ran), retries=1) == [("retrying", "its node died"), *last]
    assert run(FakeExecutor(lambda job: Result(error="its node died")), retries=1) == last
    assert runs() == [("FAILED", "its node died")] * 3
    assert_nothing_is_open()


def test_a_cell_that_had_delivered_all_is_done_though_its_node_died(run: Any) -> None:
    def lost(job: Job) -> Result:
        done(job)
        return died(job)

    assert run(FakeExecutor(lost)) == [("FINISHED", "")]
    assert [(one.status, one.results) for one in store.read_runs()] == [("FINISHED", {"a": 1.0})]
    assert_nothing_is_open()


def test_a_job_that_a_queue_starts_again_closes_its_first_run(run: Any) -> None:
    def twice(job: Job) -> Result:
        begin(job)
        return done(job)

    assert run(FakeExecutor(twice)) == [("FINISHED", "")]
    assert runs() == [("FAILED", "its node died, and the cluster started it again"), ("FINISHED", "")]


def test_what_another_sweep_has_or_has_done_is_left_to_it(run: Any) -> None:
    ((cell,), _) = sweep.prepare_cells(load_ablation("toy"), "cpu", ["small"], [0])
    with leases.owner() as other:
        leases.take(cell.key, other)
        assert run(FakeExecutor()) == [("elsewhere", "")]
        leases.release(cell.key, other)
    run(FakeExecutor(done))
    assert run(FakeExecutor()) == [("elsewhere", "")]
    assert run(FakeExecutor(), seconds=0.0) == [("left_out", "")]
    assert_nothing_is_open()


@pytest.mark.parametrize("error", [KeyboardInterrupt, LabError])
def test_stopping_closes_what_runs_as_killed_and_what_was_delivered_as_done(
    run: Any, error: type[BaseException]
) -> None:
    def stopped(job: Job) -> Result:
        begin(job)
        raise error

    def delivered(job: Job) -> Result:
        done(job)
        raise error

    with pytest.raises(error):
        run(FakeExecutor(stopped))
    assert runs() == [("KILLED", "the sweep was stopped")]
    assert_nothing_is_open()
    with pytest.raises(error):
        run(FakeExecutor(delivered))
    assert runs() == [("FINISHED", ""), ("KILLED", "the sweep was stopped")]


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """SIGINT as a terminal has it: a shell's background job starts with it ignored."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_interrupt_stops_the_second_does_nothing_and_the_third_breaks_off(number: signal.Signals) -> None:
    former = signal.getsignal(number)
    with interruptible():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) == former


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interruptible():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_outside_the_main_thread_it_does_nothing() -> None:
    errors: list[BaseException] = []

    def enter() -> None:
        try:
            with interruptible():
                pass
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert errors == []
