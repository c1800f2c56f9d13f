"""One cell, once: executed by papermill in a run of its own, watched, and delivered, on whichever machine.

The run's last status is the driver's to give, so that a node that is cut off cannot finish a cell that has meanwhile
been given to another.

MLflow shows a notebook as the JSON that it is, so that a page is kept beside it. nbconvert would take a worker about
two seconds to make one, which is more than a small cell.
"""

import base64
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from lab import paths
from lab.errors import LabError
from lab.study import golden, leases, store, tracking
from lab.study.ablation import Cell, load_ablation, typed
from lab.study.identity import changed_ingredients, identify
from lab.study.kernels import DIED, execute, reason_of
from lab.study.limits import Limits
from lab.study.parameters import cell_source, whole_text
from lab.study.tracking_server import check_server
from lab.study.worker import Job, Result, kill_children

PAGE, FIGURE = "notebook.html", "figure-{number}.png"

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 1.5em auto; padding: 0 1em }
pre { font: 13px/1.4 ui-monospace, monospace; background: #f4f5f7; padding: .6em; white-space: pre-wrap }
img { max-width: 100% }
table { border-collapse: collapse; font-size: 13px } td, th { padding: .2em .6em; border-bottom: 1px solid #ddd }
"""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
PUBLISH_SECONDS = 5.0
# What can pass by itself. A wrong parameter or a loss that is not finite would come again.
PASSING = {DIED, "ConnectionError", "ConnectionResetError", "ConnectTimeout", "ReadTimeout", "HTTPError"}
PASSING |= {"HfHubHTTPError", "TimeoutError", "Timeout", "OperationalError"}


def run_cell(job: Job, recorder: tracking.Recorder) -> Result:
    """Run the job's cell and deliver all that it measured.

    `recorder` keeps its run; on a node, through the driver's tracking server.
    """
    begun, node = time.monotonic(), job["node"]
    cell, limits = Cell(**job["cell"]), Limits(**job["limits"])
    try:
        if node:
            check_server(job["tracking_uri"])
            check_identity(job)
        tags = {**_provenance(), "kind": job["kind"], **job["owner"], **({"node": node} if node else {})}
        tags["arithmetic"] = json.dumps(golden.arithmetic())
        run_id = recorder.start_cell(cell, tags, job["parent"])
    except Exception as raised:
        name, error = reason_of(raised)
        refused = bool(node) and name == "LabError"
        told, seconds = f"node {node}: {error}" if node else error, time.monotonic() - begun
        return Result(error=told, seconds=seconds, node=node, passing=name in PASSING, refused=refused)
    publisher = Publisher(recorder, run_id)
    spool = store.spool_dir(run_id)
    executed = spool / "artifacts" / "notebook.ipynb"
    if job["golden"]:
        (spool / "artifacts" / golden.ARTIFACT).write_text(json.dumps(job["golden"]), encoding="utf-8")
    name, error, text = execute(_notebook(job), executed, {**cell.parameters, "run_id": run_id}, limits)
    publisher.stop()
    if name:
        (spool / "artifacts" / "error.txt").write_text(text, encoding="utf-8")
    elif not (spool / "results.json").exists():
        error = "the notebook came to its end without run.set_results(...)"
    status, passing = "FAILED" if error else "FINISHED", name in PASSING
    results: dict[str, float] = {}
    try:
        write_readable(executed, spool / "artifacts")
        results = recorder.deliver(run_id, status)
    except LabError as raised:
        status, error, passing = "FAILED", str(raised), False
    seconds = time.monotonic() - begun
    return Result(
        status=status, error=error, run_id=run_id, results=results, seconds=seconds, node=node, passing=passing
    )


@cache
def _provenance() -> dict[str, str]:
    """Asked once a process: git takes longer than a small cell's run."""
    return tracking.provenance()


def _notebook(job: Job) -> Path:
    return paths.repository_root() / "notebooks" / f"{job['notebook']}.ipynb"


def check_identity(job: Mapping[str, Any]) -> None:
    """Refuse a cell that would be another one on this machine than on the driver's, with a LabError that says why."""
    from lab.study.sweep import load_prepare

    asked, notebook = Cell(**job["cell"]), _notebook(dict(job))
    if not notebook.exists():
        raise LabError(f"{notebook} is not there; the checkout of every node has to be the driver's")
    prepared = dict(load_prepare(asked.ablation)(typed(load_ablation(asked.ablation), [asked])))
    (cell,) = identify([replace(asked, key="", ingredients={})], notebook, prepared)
    if cell.key != asked.key:
        changes = "; ".join(changed_ingredients(asked.ingredients, json.loads(json.dumps(dict(cell.ingredients)))))
        raise LabError(
            f"it would run another cell than the one asked for: {changes}; bring its checkout, packages and data to "
            "the driver's state"
        )


class Publisher:
    """Moves the curves of a cell that runs into MLflow, from a thread.

    It ends this process where the driver does not want the cell any more: one that died, or gave it to another node.
    """

    def __init__(self, recorder: tracking.Recorder, run_id: str) -> None:
        self._recorder, self._run_id = recorder, run_id
        self._heard = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._publish, daemon=True)
        self._thread.start()

    def _publish(self) -> None:
        while not self._done.wait(PUBLISH_SECONDS):
            # What cannot be sent now is sent at the end, which says what is wrong.
            with suppress(Exception):
                self._recorder.publish(self._run_id)
            self.look()

    def look(self) -> None:
        """Leave where the run is closed, or the store has been silent for long."""
        wanted = time.monotonic() - self._heard < leases.SILENT_SECONDS
        with suppress(Exception):  # the store may be busy; it is silence that counts
            wanted, self._heard = self._recorder.is_open(self._run_id), time.monotonic()
        if not wanted:
            kill_children()
            store.remove_spool(self._run_id)
            os._exit(3)

    def stop(self) -> None:
        """All has been measured."""
        self._done.set()
        self._thread.join()


def write_readable(notebook: Path, folder: Path) -> None:
    """Write the page and the figures into the folder; nothing where the notebook was not written whole."""
    with suppress(OSError, ValueError, KeyError):
        content = json.loads(notebook.read_text(encoding="utf-8"))
        page = notebook_page(content)
        for number, picture in enumerate(figures(content), 1):
            (folder / FIGURE.format(number=number)).write_bytes(picture)
        (folder / PAGE).write_text(page, encoding="utf-8")


def figures(notebook: Mapping[str, Any]) -> Iterator[bytes]:
    """The pictures (PNG) among the outputs, from the first to the last."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).get("image/png"):
                yield base64.b64decode(whole_text(picture))


def notebook_page(notebook: Mapping[str, Any]) -> str:
    """The notebook as a page that needs nothing beside it.

    Of an output the richest form is taken that needs no script: HTML (as pandas writes tables), PNG, or text.
    """
    parts = []
    for cell in notebook["cells"]:
        source = cell_source(cell)
        parts.append(source if cell["cell_type"] == "markdown" else _as_is(source))
        parts += map(_shown, cell.get("outputs", []))
    body = MarkdownIt("commonmark").enable("table").render("\n\n".join(parts))
    return f"<!doctype html><meta charset='utf-8'><title>Notebook</title><style>{_STYLE}</style>\n{body}"


def _shown(output: Mapping[str, Any]) -> str:
    if output["output_type"] == "stream":
        return _as_is(whole_text(output["text"]))
    if output["output_type"] == "error":
        return _as_is("\n".join(output["traceback"]))
    data = output.get("data", {})
    if "text/html" in data:
        table = re.sub(r"\n\s*\n", "\n", whole_text(data["text/html"]))  # a blank line would end it
        return f"<div>{table}</div>"
    if "image/png" in data:
        return f"<img alt='figure' src='data:image/png;base64,{whole_text(data['image/png']).strip()}'>"
    return _as_is(whole_text(data.get("text/plain", "")))


def _as_is(words: str) -> str:
    """A block of Markdown that shows the words as they are, without a terminal's colours."""
    words = _COLOURS.sub("", words)
    return f"``````\n{words}\n``````" if words.strip() else ""
