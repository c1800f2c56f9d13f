"""A sweep that is killed again and again, and resumed each time, against one that nobody disturbs.

    python benchmarks/chaos.py [--kills 100] [--cells 400] [--workers 4] [--minutes 60] [--seed 0] [--sweeps 8]

At random moments a kill -9 hits the sweep itself, a worker, what notebooks are forked from, or a notebook. A
sweep that ends, killed or not, is started again, until the kills are spent (or the minutes) and every cell is done.
Then: every cell has finished exactly once, no run is left RUNNING, every finished run has each of its metric points
exactly once, and the results file (but for the runs' ids) and a figure drawn from it are byte for byte those of a sweep
that was left alone. Last, so many sweeps of the same cells are started at once on an empty store: none may end with an
error, and no cell may run twice. Ends with 1 where any of that is not so.
"""

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from lab import paths
from lab.errors import LabError
from lab.study import store
from lab.study.ablation import Ablation, Column, Row, Rung
from lab.study.limits import Limits
from lab.study.sweep import reproduce
from lab.training.parameters import Parameters

STEPS = 20
PARAMETERS = f'size: int = 1\nsteps: int = {STEPS}\nseed: int = 0\nrun_id: str = ""  # given by the sweep\n'
WORK = """\
import time
from lab.study.tracking import cell_run

run = cell_run(run_id, {})
for step in range(steps):
    run.log_metrics({"loss": [(step, size / (step + 1))]})
    time.sleep(0.03)
run.set_results({"error": size / (seed + 1)})
run.finish()
"""


def write_checkout(root: Path) -> None:
    """A checkout with the notebook of the disturbed study."""
    cells = [
        {"cell_type": "code", "execution_count": None, "metadata": {"tags": tags}, "outputs": [], "source": source}
        for source, tags in ((PARAMETERS, ["parameters"]), (WORK, []))
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 4}
    (root / "notebooks").mkdir(parents=True)
    (root / "notebooks" / "chaos.ipynb").write_text(json.dumps(notebook), encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class ChaosParameters(Parameters):
    """Of short cells."""

    size: int = 1
    steps: int = STEPS


def study(cells: int) -> Ablation:
    """An ablation of so many short cells: three rows, the rest seeds."""
    return Ablation(
        name="chaos",
        paper="none",
        claim="Nothing is lost.",
        notebook="chaos",
        seeds=tuple(range(-(-cells // 3))),
        base=ChaosParameters(),
        rungs=(Rung(name="cpu", description="as it is", recorded=False),),
        rows=tuple(Row(key=f"size_{size}", label=f"Size {size}", changes={"size": size}) for size in (1, 2, 3)),
        columns=(Column(metric="error", label="error", unit="", better="lower"),),
        reported=(),
    )


def drive(root: Path, cells: int, workers: int) -> None:
    """One sweep, in the process that is going to be killed."""
    paths.repository_root = lambda: root
    reproduce(study(cells), workers=workers, limits=Limits(retries=0), prepare=lambda parameters: {})


def start(root: Path, mlruns: Path, cells: int, workers: int) -> subprocess.Popen[bytes]:
    """Start a sweep in a process of its own."""
    order = json.dumps({"root": str(root), "cells": cells, "workers": workers})
    with (root / "sweeps.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, __file__, "--drive", order],
            env={**os.environ, "OMNI_LAB_MLRUNS": str(mlruns)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def victim(driver: psutil.Process, rng: random.Random) -> tuple[str, psutil.Process]:
    """What to kill: the sweep, or one of the processes below it, each kind as likely."""
    kinds: dict[str, list[psutil.Process]] = {"sweep": [driver]}
    for process in driver.children(recursive=True):
        try:
            command = " ".join(process.cmdline())
            forked = "forkserver" in " ".join(process.parent().cmdline())  # type: ignore[union-attr]
        except (psutil.NoSuchProcess, psutil.ZombieProcess, AttributeError):
            continue
        if "lab.study.worker" in command:
            kinds.setdefault("worker", []).append(process)
        elif "forkserver" in command:
            kinds.setdefault("notebook" if forked else "fork server", []).append(process)
    kind = rng.choice(sorted(kinds))
    return kind, rng.choice(kinds[kind])


def disturb(
    root: Path, mlruns: Path, *, cells: int, workers: int, kills: int, minutes: float, seed: int
) -> Counter[str]:
    """Kill and resume until the kills or the minutes are spent, then let the sweep end; what was killed how often."""
    rng = random.Random(seed)
    deadline = time.monotonic() + minutes * 60
    killed: Counter[str] = Counter()
    while True:
        driver = start(root, mlruns, cells, workers)
        while driver.poll() is None:
            if killed.total() >= kills or time.monotonic() > deadline:
                driver.wait()
                break
            time.sleep(rng.uniform(0.0, 8.0))
            if driver.poll() is None:
                try:
                    kind, process = victim(psutil.Process(driver.pid), rng)
                    process.send_signal(signal.SIGKILL)
                except psutil.NoSuchProcess:
                    continue
                killed[kind] += 1
        if killed.total() >= kills or time.monotonic() > deadline:
            if all_done(mlruns, cells) or time.monotonic() > deadline + 600:
                return killed
        elif all_done(mlruns, cells):
            return killed  # done before the kills were spent


def all_done(mlruns: Path, cells: int) -> bool:
    """Whether every cell has a finished run."""
    os.environ["OMNI_LAB_MLRUNS"] = str(mlruns)
    keys = {run.tags.get("key") for run in store.read_runs() if run.status == "FINISHED" and "key" in run.tags}
    return len(keys) == 3 * -(-cells // 3)


def lines(mlruns: Path) -> list[list[str]]:
    """The results file without the runs' ids and the checksum that covers them."""
    with (mlruns / "results" / "chaos.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    column = rows[0].index("run_id")
    return [row[:column] + row[column + 1 :] for row in rows]


def draw(mlruns: Path) -> list[bytes]:
    """A figure of the results file, in the style of the project's: the bytes of its SVG and PNG."""
    from matplotlib.figure import Figure

    from lab.paper.style import paper_style, save

    head, *rows = lines(mlruns)
    with paper_style():
        figure = Figure()
        axes = figure.subplots()
        for size in sorted({row[head.index("size")] for row in rows}):
            own = [row for row in rows if row[head.index("size")] == size]
            seeds = [int(row[head.index("seed")]) for row in own]
            axes.plot(seeds, [float(row[head.index("error")]) for row in own], label=f"size {size}")
        axes.set(xlabel="seed", ylabel="error")
        axes.legend()
        files = save(figure, mlruns / "figures" / "chaos", {"Title": "chaos"})
    return [path.read_bytes() for path in files]


def crowd(root: Path, mlruns: Path, *, cells: int, sweeps: int) -> list[str]:
    """Start so many sweeps at once on an empty store; what is not as it should be when all have ended."""
    started = [start(root, mlruns, cells, 1) for _ in range(sweeps)]
    codes = [one.wait() for one in started]
    os.environ["OMNI_LAB_MLRUNS"] = str(mlruns)
    runs = [run for run in store.read_runs() if run.tags.get("kind") == "cell"]
    times = Counter(run.tags["key"] for run in runs)
    found = [f"a sweep of the crowd ended with {code}" for code in codes if code]
    if len(times) != 3 * -(-cells // 3):
        found.append(f"the crowd ran {len(times)} of {3 * -(-cells // 3)} cells")
    found += [f"the crowd ran cell {key} {count} times" for key, count in times.items() if count != 1]
    found += [f"the crowd left run {run.run_id} {run.status}" for run in store.read_runs() if run.status != "FINISHED"]
    return found


def faults(disturbed: Path, calm: Path, cells: int) -> list[str]:
    """What is not as it should be after the disturbed sweep."""
    os.environ["OMNI_LAB_MLRUNS"] = str(disturbed)
    store.quiet_mlflow()
    from mlflow.tracking import MlflowClient

    found = []
    runs = [run for run in store.read_runs() if run.tags.get("kind") == "cell"]
    finished = Counter(run.tags["key"] for run in runs if run.status == "FINISHED")
    expected = 3 * -(-cells // 3)
    if len(finished) != expected:
        found.append(f"{len(finished)} of {expected} cells are done")
    found += [f"cell {key} finished {count} times" for key, count in finished.items() if count != 1]
    found += [f"run {run.run_id} is left RUNNING" for run in store.read_runs() if run.status == "RUNNING"]
    client = MlflowClient(tracking_uri=store.store_uri())
    for run in runs:
        if run.status == "FINISHED":
            steps = sorted(point.step for point in client.get_metric_history(run.run_id, "loss"))
            if steps != list(range(STEPS)):
                found.append(f"run {run.run_id} has the steps {steps}")
    if lines(disturbed) != lines(calm):
        found.append("the results file differs from the undisturbed sweep's")
    if draw(disturbed) != draw(calm):
        found.append("the figure differs from the undisturbed sweep's")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both sweeps and compare what they left."""
    parser = argparse.ArgumentParser(description="Kill a sweep again and again; nothing may be lost or run twice.")
    parser.add_argument("--kills", type=int, default=100, help="kills in all [100]")
    parser.add_argument("--cells", type=int, default=400, help="short cells [400]")
    parser.add_argument("--workers", type=int, default=4, help="cells at once [4]")
    parser.add_argument("--minutes", type=float, default=60.0, help="no more kills after this long [60]")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments and victims [0]")
    parser.add_argument("--sweeps", type=int, default=8, help="sweeps at once on an empty store [8]")
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.drive:
        order = json.loads(options.drive)
        drive(Path(order["root"]), order["cells"], order["workers"])
        return
    if options.kills < 0 or min(options.cells, options.workers, options.sweeps) < 1:
        raise LabError("chaos needs at least 0 kills, 1 cell, 1 worker and 1 sweep")
    with tempfile.TemporaryDirectory(prefix="omni-lab-chaos-") as scratch:
        root = Path(scratch)
        write_checkout(root)
        begun = time.monotonic()
        start(root, root / "calm", options.cells, options.workers).wait()
        calm = time.monotonic() - begun
        killed = disturb(
            root,
            root / "disturbed",
            cells=options.cells,
            workers=options.workers,
            kills=options.kills,
            minutes=options.minutes,
            seed=options.seed,
        )
        took = time.monotonic() - begun - calm
        found = faults(root / "disturbed", root / "calm", options.cells)
        found += crowd(root, root / "crowd", cells=min(12, options.cells), sweeps=options.sweeps)
        hits = ", ".join(f"{count} of a {kind}" for kind, count in sorted(killed.items()))
        print(f"{options.cells} cells: {calm:.0f} s undisturbed, {took:.0f} s with {killed.total()} kills ({hits})")
        if found:
            print((root / "sweeps.log").read_text(errors="replace")[-4000:])
            sys.exit("\n".join(["FAULTS:", *found]))
        print("every cell done once, no run left open, no metric lost or double, the same results file and figure")
        print(f"{options.sweeps} sweeps started at once on an empty store: no error, no cell twice")


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        sys.exit(f"error: {error}")
