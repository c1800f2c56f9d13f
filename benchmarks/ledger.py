"""How long `lab` takes to look at a store of 10,000 finished cells: `lab status`, and planning a sweep of 1,000 cells.

    python benchmarks/ledger.py [--runs 10000] [--rows 50] [--seeds 20] [--repeats 5]

The study has the parameters and the notebook of `conv_gmlp_rate`, that many rows and seeds, and cells in every state:
done, failed, running (in this process), stale and missing. What is older in the store are finished runs of the same
cells with other identities. `lab status` is timed as the command, from its start to its exit; of a sweep, from the
start of the process until the first worker would be started. Prints the least and the median of the repeats.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from lab import paths
from lab.errors import LabError
from lab.study import leases
from lab.study.ablation import Cell, cells, load_ablation, notebook_path, typed
from lab.study.definitions import digest
from lab.study.identity import identify
from lab.study.sweep import _study_tags, load_prepare
from lab.study.tracking import Recorder, provenance

sys.path.insert(0, str(paths.repository_root()))  # `benchmarks` is no installed package

from benchmarks.filled_store import TableClient, record

LIMIT_SECONDS = 2.0

DECLARATION = """
from lab.study.ablation import Ablation, Column, Row, Rung
from lab.training.parameters import SpeechParameters

ablation = Ablation(
    name="ledger",
    paper="none",
    claim="Looking costs little.",
    notebook="conv_gmlp_rate",
    seeds=tuple(range({seeds})),
    base=SpeechParameters(),
    rungs=(Rung(name="cpu", description="as it is", recorded=False),),
    rows=tuple(
        Row(key=f"row_{{number}}", label=f"Row {{number}}", changes={{"learning_rate": 1e-3 / (number + 1)}})
        for number in range({rows})
    ),
    columns=(Column(metric="test_character_error_rate", label="CER", unit="%", better="lower", scale=100.0),),
)


def prepare(parameters_of_cells):
    return {{
        name: {{getattr(cell, name): "5b3c0d6a7e1f" * 5 for cell in parameters_of_cells}}
        for name in ("corpus", "out_of_domain_corpus", "audio_encoder", "language_model", "normalizer")
    }}
"""

COMMAND = """
import sys
from pathlib import Path
from lab import cli, paths
root = Path(sys.argv.pop(1))
paths.repository_root = lambda: root
cli.main()
"""

PLANNING = """
import os, sys
from pathlib import Path
from lab import paths
from lab.study import sweep
from lab.study.ablation import load_ablation
root = Path(sys.argv.pop(1))
paths.repository_root = lambda: root
def planned(self, todo, *rest, **options):
    print(f"{len(todo)} cells to do", flush=True)
    os._exit(0)
sweep.Runner.run = planned
sweep.reproduce(load_ablation("ledger"), rows="all")
"""


def write_checkout(root: Path, rows: int, seeds: int) -> None:
    """A checkout with the large study."""
    model = load_ablation("conv_gmlp_rate")
    (root / "ablations").mkdir(parents=True)
    (root / "notebooks").mkdir()
    text = DECLARATION.format(seeds=seeds, rows=rows)
    (root / "ablations" / "ledger.py").write_text(text, encoding="utf-8")
    shutil.copy(notebook_path(model), root / "notebooks")


def state_of(number: int) -> str:
    """What becomes of the cell of that number: of a hundred 2 fail, 1 runs, 5 are stale, 3 missing."""
    place = number % 100
    return {7: "FAILED", 57: "FAILED", 23: "RUNNING"}.get(
        place, "stale" if place % 20 == 11 else "missing" if place % 33 == 32 else "FINISHED"
    )


def former(cell: Cell, generation: int) -> Cell:
    """The cell as it was before the code changed."""
    ingredients = {**cell.ingredients, "code.train": f"generation {generation}"}
    return replace(cell, ingredients=ingredients, key=digest(f"{cell.key} {generation}"))


def runs_of(current: Sequence[Cell], finished: int) -> Iterator[tuple[Cell, str]]:
    """The runs, the oldest first, and their statuses: as many finished ones as asked for, former ones among them."""
    now = [(cell, state_of(number)) for number, cell in enumerate(current)]
    left = finished - sum(state == "FINISHED" for _, state in now)
    known = [cell for cell, state in now if state != "missing"]
    for number in range(left):
        yield former(known[number % len(known)], number // len(known)), "FINISHED"
    for cell, state in now:
        if state not in ("stale", "missing"):
            yield cell, state


def fill(finished: int, owner: dict[str, str]) -> None:
    """The store with its runs, and the study's own."""
    ablation = load_ablation("ledger")
    chosen = cells(ablation, "cpu", "all")
    prepared = dict(load_prepare("ledger")(typed(ablation, chosen)))
    current = identify(chosen, notebook_path(ablation), prepared)
    recorder = Recorder()
    tags = provenance()
    recorder.finish(recorder.study("ledger", "cpu", {**tags, **_study_tags(ablation, prepared)}), "FINISHED")
    recorder._client = client = TableClient()
    results = {f"measured_{number}": 0.25 + number / 7 for number in range(19)} | {"test_character_error_rate": 0.35}
    for cell, status in runs_of(current, finished):
        record(recorder, cell, {**tags, **owner}, status, results)
    client.write()


def timed(code: str, root: Path, *arguments: str) -> tuple[float, str]:
    """Seconds of a process, and its last line."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, str(root), *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    return time.perf_counter() - begun, done.stdout.strip().splitlines()[-1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill a store, time both, print them with their limits."""
    parser = argparse.ArgumentParser(description="Seconds that lab takes to look at a large store.")
    parser.add_argument("--runs", type=int, default=10_000, help="finished cells in the store [10000]")
    parser.add_argument("--rows", type=int, default=50, help="rows of the study [50]")
    parser.add_argument("--seeds", type=int, default=20, help="seeds of the study [20]")
    parser.add_argument("--repeats", type=int, default=5, help="of each command [5]")
    options = parser.parse_args(arguments)
    if options.rows < 1 or options.seeds < 1 or options.repeats < 1 or options.runs < options.rows * options.seeds:
        raise LabError("the benchmark needs at least 1 row, 1 seed, 1 repeat, and as many runs as there are cells")
    with tempfile.TemporaryDirectory(prefix="omni-lab-ledger-") as scratch:
        root = Path(scratch)
        write_checkout(root, options.rows, options.seeds)
        os.environ["OMNI_LAB_MLRUNS"] = str(root / "mlruns")
        paths.repository_root = lambda: root
        begun = time.perf_counter()
        with leases.owner() as owner:
            fill(options.runs, owner)
            print(f"{options.runs} finished cells written in {time.perf_counter() - begun:.0f} s", flush=True)
            for name, code, words in (
                ("lab status", COMMAND, ("status", "ledger")),
                ("planning a sweep", PLANNING, ()),
            ):
                seconds, lines = zip(*(timed(code, root, *words) for _ in range(options.repeats)), strict=True)
                print(
                    f"{name} of {options.rows * options.seeds} cells: {min(seconds):.2f} s (median "
                    f"{statistics.median(seconds):.2f}, limit {LIMIT_SECONDS:.0f}): {lines[-1]}"
                )


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        sys.exit(f"error: {error}")
