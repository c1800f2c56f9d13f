"""A sweep from a notebook: its cells, curves, table and verdict as they stand, and buttons that start and stop it.

The sweep is a process of its own (`lab reproduce`), so that the kernel stays free and the sweep goes on when the
notebook is closed; it is stopped as by Ctrl-C. What is shown is read from the store, whoever runs the cells.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from lab import paths
from lab.errors import LabError
from lab.explore.panel import Panel, Shown
from lab.explore.shown import table, text
from lab.paper.claims import load_contrasts
from lab.paper.measured import load_measured
from lab.paper.style import style_of
from lab.paper.tables import judged_claims
from lab.study.ablation import Ablation, load_ablation
from lab.study.plan import PlannedCell, describe, reason
from lab.study.results import summary
from lab.study.store import read_curve
from lab.study.sweep import status

# Ctrl-C has to reach it although a kernel has its children ignore it.
_COMMAND = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from lab.cli import main; main()"
MAX_CURVES = 12
LAST_LINES = 12


class SweepProcess:
    """One `lab reproduce` at a time, its words in `mlruns/explore/NAME.RUNG.log`."""

    def __init__(self, ablation: Ablation, rung: str, *, workers: int | None = None) -> None:
        ablation.rung(rung)
        self._arguments = ["reproduce", ablation.name, "--rung", rung]
        self._arguments += [] if workers is None else ["--workers", str(workers)]
        self.log = paths.mlruns_dir() / "explore" / f"{ablation.name}.{rung}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self.process is not None and self.process.poll() is None

    def start(self, rows: str = "main") -> None:
        """Start it; one that runs already is a LabError."""
        if self.running:
            raise LabError("the sweep runs already; stop it first, or wait for its end")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _COMMAND, *self._arguments, "--rows", rows],
                cwd=paths.repository_root(),
                env={**os.environ, "TQDM_DISABLE": "1"},  # bars of libraries fill a log that is read line by line
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def stop(self) -> None:
        """Ask it to stop as Ctrl-C does: cells that run are ended and marked so, those that are done stay."""
        if self.running:
            assert self.process is not None
            self.process.send_signal(signal.SIGINT)

    def last_lines(self) -> str:
        """What it said last."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:])


class SweepPanel(Panel):
    """How a study stands, with buttons that start and stop its sweep; `follow` shows it anew every few seconds.

    `rows` are those shown and run to begin with (main, all, or keys with commas between), `workers` cells at once.
    """

    def __init__(self, name: str, rung: str = "cpu", *, rows: str = "main", workers: int | None = None) -> None:
        self.process = SweepProcess(load_ablation(name), rung, workers=workers)
        self._name, self._rung = name, rung
        self._following: asyncio.Task[None] | None = None
        start = ipywidgets.Button(description="start", icon="play")
        stop = ipywidgets.Button(description="stop", icon="stop")
        start.on_click(lambda _: self._do(lambda: self.process.start(self.controls["rows"].value)))
        stop.on_click(lambda _: self._do(self.process.stop))
        self.said = ipywidgets.HTML()
        chosen = ipywidgets.Text(value=rows, description="rows", continuous_update=False)
        super().__init__({"rows": chosen}, self._shown)
        self.children = [ipywidgets.HBox([start, stop, self.said]), *self.children]

    def _do(self, what: Any) -> None:
        try:
            what()
        except LabError as error:
            self.said.value = text(error)
        self.update()

    def _shown(self, rows: str) -> Iterator[Shown]:
        # Loaded anew, so that a row that was saved meanwhile is there.
        ablation = load_ablation(self._name)
        wanted: str | Sequence[str] = rows if rows in ("main", "all") else [row.strip() for row in rows.split(",")]
        planned = status(ablation, self._rung, wanted)
        state = "running" if self.process.running else "not running from here"
        yield f"<p>{text(describe(planned))}; the sweep is {state}</p>"
        yield table(
            {
                "row": entry.cell.row,
                "seed": entry.cell.seed,
                "state": entry.state,
                "seconds": "" if entry.run is None or entry.run.seconds is None else f"{entry.run.seconds:.0f}",
                "": reason(entry),
            }
            for entry in planned
        )
        if said := self.process.last_lines():
            yield f"<pre>{text(said)}</pre>"
        if curves := _curves(planned):
            yield curves
        yield from _results(ablation, self._rung)

    def follow(self, seconds: float = 5.0) -> "SweepPanel":
        """Show it anew every so often for as long as the kernel lives, or until `leave`; call it in a notebook."""

        async def going_on() -> None:
            while True:
                await asyncio.sleep(seconds)
                self.update()

        self.leave()
        self._following = asyncio.get_running_loop().create_task(going_on())
        return self

    def leave(self) -> None:
        """Follow it no more; the sweep itself goes on."""
        if self._following is not None:
            self._following.cancel()
            self._following = None


def _curves(planned: Sequence[PlannedCell]) -> Figure | None:
    """Training losses of the cells that have any, the latest ones."""
    read = ((entry, read_curve(entry.run.run_id, "loss")) for entry in planned if entry.run is not None)
    found = [(entry, losses) for entry, losses in read if losses]
    if not found:
        return None
    figure = Figure(figsize=(9.5, 2.8), layout="constrained")
    axes = figure.subplots()
    rows = list(dict.fromkeys(entry.cell.row for entry, _ in found))
    for entry, losses in found[-MAX_CURVES:]:
        own = style_of(rows.index(entry.cell.row))
        axes.plot(*zip(*losses, strict=True), color=own.colour, linewidth=0.8, label=entry.cell.title)
    axes.set(xlabel="step", ylabel="loss (nats a token)", ylim=(0, None))
    if len(found) > MAX_CURVES:
        axes.set_title(f"the last {MAX_CURVES} of {len(found)} cells")
    axes.legend(fontsize="x-small", ncols=2)
    return figure


def _results(ablation: Ablation, rung: str) -> Iterator[str]:
    """The table of means and the verdicts, where there are results."""
    try:
        yield summary(ablation, rung).to_html(float_format="{:.4g}".format)
        measured = load_measured(ablation, rung)
    except LabError as error:
        yield f"<p>{text(error)}</p>"
        return
    for title, sentence in judged_claims(measured, load_contrasts(ablation.name)):
        yield f"<p><b>{text(title)}.</b> {text(sentence)}</p>"
