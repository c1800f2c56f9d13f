"""What a sweep costs on top of its cells: ours against papermill's command, over the same work as a plain call.

    python benchmarks/sweep.py [--cells 20] [--commands 3] [--imports CODE]

The work is a cell that imports what a study's notebook imports (torch, transformers, the parts of `lab`) and multiplies
two matrices. A plain function call does it in this process, imports done. Ours is `lab reproduce` on an ablation of
that many cells, one worker, MLflow and all; its seconds a cell are taken between the ends of the first and of the last
cell, and what comes before (imports, once a worker) is printed apart. papermill's command runs the same notebook
without tracking. All three in turn, in one run. Where our seconds go is read from papermill's own times in the
executed notebooks.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import paths
from lab.errors import LabError
from lab.study import identity
from lab.study.ablation import Ablation, Cell, Column, Row, Rung
from lab.study.plan import Display
from lab.study.sweep import reproduce
from lab.study.worker import worker_environment
from lab.training.parameters import Parameters

IMPORTS = """\
import torch
from lab.evaluation.answering import answer
from lab.parts.audio_projectors import build_audio_projector
from lab.training.loop import train
from lab.training.cell import heard_data
"""
WORK = """\
torch.manual_seed(seed)
value = float((torch.randn(size, size) @ torch.randn(size, size)).square().mean())
"""
PARAMETERS = 'size: int = 64  # of the matrices\nseed: int = 0\nrun_id: str = ""  # given by the sweep\n'
TRACKED = """\
from lab.study.tracking import cell_run
run = cell_run(run_id, {}) if run_id else None
"""
KEPT = "if run is not None:\n    run.set_results({'value': value})\n    run.finish()\n"


def write_notebook(path: Path, imports: str = IMPORTS) -> None:
    """The cell as a notebook."""
    sources = [(PARAMETERS, ["parameters"]), (imports, []), (TRACKED + WORK + KEPT, [])]
    cells = [
        {"cell_type": "code", "execution_count": None, "metadata": {"tags": tags}, "outputs": [], "source": source}
        for source, tags in sources
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    path.parent.mkdir(parents=True, exist_ok=True)
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 4}
    path.write_text(json.dumps(notebook), encoding="utf-8")


class Stopwatch(Display):
    """Notes when each cell ended."""

    ends: list[float]

    def finished(self, cell: Cell, status: str, error: str, results: Mapping[str, float], seconds: float) -> None:
        """Note it."""
        self.ends = [*getattr(self, "ends", []), time.perf_counter()]
        if status != "FINISHED":
            raise LabError(f"a cell of the benchmark failed: {error}")


@dataclass(frozen=True, kw_only=True)
class SweepParameters(Parameters):
    """Of cells that take no time."""

    size: int = 64


def time_ours(cells: int) -> tuple[float, float]:
    """Seconds a cell, and seconds until the first cell had ended."""
    ablation = Ablation(
        name="overhead",
        paper="none",
        claim="A sweep costs little.",
        notebook="overhead",
        seeds=tuple(range(cells)),
        base=SweepParameters(),
        rungs=(Rung(name="cpu", description="as it is", recorded=False),),
        rows=(Row(key="only", label="Only", changes={}),),
        columns=(Column(metric="value", label="value", unit="", better="lower"),),
        reported=(),
    )
    watch = Stopwatch(ablation, "cpu", file=open(os.devnull, "w"))  # noqa: SIM115
    begun = time.perf_counter()
    reproduce(ablation, workers=1, prepare=lambda parameters: {}, display=watch)
    return (watch.ends[-1] - watch.ends[0]) / (cells - 1), watch.ends[0] - begun


def breakdown(a_cell: float) -> dict[str, float]:
    """Seconds a cell by what they went into, from papermill's own times in the executed notebooks."""
    whole, inside = [], []
    for path in (paths.mlruns_dir() / "notebooks").rglob("*.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        whole.append(notebook["metadata"]["papermill"]["duration"])
        inside.append(sum(cell["metadata"]["papermill"]["duration"] for cell in notebook["cells"]))
    notebooks, cells = statistics.median(whole), statistics.median(inside)
    return {
        "the notebook's cells": cells,
        "kernel's start and end, saving": notebooks - cells,
        "lease, tracking, the driver": a_cell - notebooks,
    }


def time_papermill(notebook: Path, commands: int) -> list[float]:
    """Seconds of each of so many calls of papermill's command."""
    program = str(Path(sys.executable).with_name("papermill"))
    seconds = []
    for seed in range(commands):
        output = str(notebook.with_name("executed.ipynb"))
        begun = time.perf_counter()
        subprocess.run(
            [program, str(notebook), output, "-p", "seed", str(seed), "--no-progress-bar"],
            env=worker_environment(1),
            check=True,
            capture_output=True,
        )
        seconds.append(time.perf_counter() - begun)
    return seconds


def time_plain(calls: int, imports: str) -> float:
    """Seconds of a plain call, imports done."""
    names: dict[str, object] = {"size": 64, "seed": 0}
    exec(imports, names)
    begun = time.perf_counter()
    for seed in range(calls):
        names["seed"] = seed
        exec(WORK, names)
    return (time.perf_counter() - begun) / calls


def main(arguments: Sequence[str] | None = None) -> None:
    """Time the three in turn and print overheads and their ratio."""
    parser = argparse.ArgumentParser(description="Seconds that a sweep adds to a cell, ours and papermill's command.")
    parser.add_argument("--cells", type=int, default=20, help="cells of our sweep, at least 2 [20]")
    parser.add_argument("--commands", type=int, default=3, help="calls of papermill's command [3]")
    parser.add_argument("--imports", default=IMPORTS, help="what the cell imports [what a study's notebook does]")
    options = parser.parse_args(arguments)
    if options.cells < 2 or options.commands < 1:
        raise LabError("the benchmark needs at least 2 cells and 1 call of papermill's command")
    with tempfile.TemporaryDirectory(prefix="omni-lab-benchmark-") as scratch:
        root = Path(scratch)
        os.environ["OMNI_LAB_MLRUNS"] = str(root / "mlruns")
        notebook = root / "notebooks" / "overhead.ipynb"
        write_notebook(notebook, options.imports)
        paths.repository_root = lambda: root
        # The benchmark's cells depend on nothing.
        identity.reached_by_notebook = lambda notebook: lambda parameters: {}
        ours, first = time_ours(options.cells)
        parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in breakdown(ours).items())
        theirs = time_papermill(notebook, options.commands)
    plain = time_plain(options.cells, options.imports)
    own, other = ours - plain, statistics.median(theirs) - plain
    print(f"the work itself, a plain call: {plain * 1000:.1f} ms")
    print(f"ours: {own:.2f} s of overhead a cell, over {options.cells} cells (and {first:.1f} s up to the first's end)")
    print(f"  of these: {parts} (medians)")
    print(f"papermill's command: {other:.2f} s of overhead a cell, median of {options.commands}")
    print(f"ratio, papermill's command / ours: {other / own:.1f}")


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        sys.exit(f"error: {error}")
