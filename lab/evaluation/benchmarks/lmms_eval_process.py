"""lmms-eval in an environment of its own: finding it, asking what it has, running it as a process that is watched.

It cannot be installed beside the lab: 0.7.3 wants av below 16 and one version of wandb. What it says goes to a log; a
process that fails, or says nothing for too long, ends in an error that holds its last lines.
"""

import contextlib
import importlib.util
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import Progress

VARIABLE = "OMNI_LAB_LMMS_EVAL"
"""The environment variable that names the Python which has lmms-eval."""
INSTALL = (
    "install it into an environment of its own (it wants other versions than the lab): python -m venv LMMS && "
    f"LMMS/bin/pip install lmms-eval==0.7.3, then give --option python=LMMS/bin/python or set {VARIABLE} to that"
)
_SECRETS = ("HF_TOKEN", "OPENAI_API_KEY", "AZURE_API_KEY", "AZURE_OPENAI_API_KEY")  # it logs the first as it starts
_PROBE_SECONDS = 300  # its first import of a large environment, from a slow disk
_ENDING_SECONDS = 10
_LAST_LINES = 8
_LINE_LETTERS = 400
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_BAR = re.compile(r"(\d+)/(\d+) \[")
_ANSWERING = "Model Responding"  # what its model classes call their bar
_PACKAGE = re.compile(r"^(torch|transformers|vllm) *(\d\S*)$", re.MULTILINE)
_MODEL_CLASS = re.compile(r"^(\S+) +(?:chat\+simple|chat|simple)\b *(.*)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class LmmsEval:
    """An lmms-eval that answers."""

    command: tuple[str, ...]
    version: str
    packages: Mapping[str, str]
    """Those that decide how a model answers -> their versions."""

    def model_classes(self) -> dict[str, str]:
        """Every name that `--model` takes -> the class's first name.

        Raises:
            LabError: it cannot say.
        """
        said = _ask([*self.command, "models", "--aliases"])
        found: dict[str, str] = dict(_MODEL_CLASS.findall(said))
        if not found:
            raise LabError(f"{' '.join(self.command)} models lists no model class; {INSTALL}")
        names = {name: name for name in found}
        for name, aliases in found.items():
            names.update({alias.strip(): name for alias in aliases.split(",") if alias.strip()})
        return names


def find_lmms_eval(python: str | None = None) -> LmmsEval:
    """The lmms-eval of a Python: the given one, that of `VARIABLE`, else `lmms-eval` on the PATH, else this Python's.

    Raises:
        LabError: there is none, or it does not answer; the message says how to install it.
    """
    command = _command(python or os.environ.get(VARIABLE))
    said = _ask([*command, "version"])
    version = re.search(r"^lmms-eval (\S+)", said, re.MULTILINE)
    if version is None:
        raise LabError(f"{' '.join(command)} version does not say which lmms-eval it is, but {said[:200]!r}; {INSTALL}")
    return LmmsEval(command=tuple(command), version=version[1], packages=dict(_PACKAGE.findall(said)))


def _command(python: str | None) -> list[str]:
    if python:
        # No resolve(): the link of a virtual environment is what makes it that environment.
        found = shutil.which(os.path.expanduser(python))
        if found is None:
            raise LabError(f"{python!r} is no Python that can be run; {INSTALL}")
        return [found, "-m", "lmms_eval"]
    if found := shutil.which("lmms-eval"):
        return [found]
    if importlib.util.find_spec("lmms_eval") is not None:
        return [sys.executable, "-m", "lmms_eval"]
    raise LabError(f"lmms-eval is not installed; {INSTALL}")


def _ask(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(command)} did not answer within {_PROBE_SECONDS} seconds") from None
    except OSError as error:
        raise LabError(f"{' '.join(command)} cannot be run: {error}; {INSTALL}") from error
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)} failed: {last_lines(done.stderr or done.stdout)}; {INSTALL}")
    return done.stdout


def run_lmms_eval(
    command: Sequence[str],
    *,
    log: Path,
    silence_seconds: float,
    progress: Progress,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run it to its end; its bar over the model's answers becomes `progress`. What it started ends with this process.

    Args:
        environment: variables that it gets beside this process's.

    Exit status 0 is no proof of success: without `--verbosity DEBUG` it prints its error and ends with 0.

    Raises:
        LabError: it ends with another status, cannot be started, or says nothing for `silence_seconds`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as written:
        try:
            process = subprocess.Popen(
                command,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",  # and text: the returns of a bar are ends of lines
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise LabError(f"lmms-eval cannot be started: {error}; {INSTALL}") from error
        try:
            for line in _lines(process, silence_seconds, log):
                written.write(_without_secrets(line))
                written.flush()
                if _ANSWERING in line and (bar := _BAR.search(line)):
                    progress(int(bar[1]), int(bar[2]))
            status = process.wait()
        finally:
            _end(process)
    if status != 0:
        raise LabError(f"lmms-eval ended with status {status}: {last_lines(read_log(log))} (all of it: {log})")


def _without_secrets(line: str) -> str:
    for name in _SECRETS:
        if value := os.environ.get(name):
            line = line.replace(value, f"[{name}]")
    return line


def _lines(process: "subprocess.Popen[str]", silence_seconds: float, log: Path) -> Iterator[str]:
    """Its lines as they come; a thread reads them, for a pipe has no time limit of its own."""
    said: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        with process.stdout as lines, contextlib.suppress(ValueError):  # closed under the reader
            for line in lines:
                said.put(line)
        said.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = said.get(timeout=silence_seconds)
        except queue.Empty:
            raise LabError(
                f"lmms-eval has said nothing for {silence_seconds / 60:g} minutes and was ended; its last lines: "
                f"{last_lines(read_log(log))} (--option silence_minutes=... waits longer)"
            ) from None
        if line is None:
            return
        yield line


def read_log(log: Path) -> str:
    """What a run has said."""
    return log.read_text(encoding="utf-8", errors="replace")


def last_lines(said: str) -> str:
    """The end of an output in one line, without colours, bars and empty lines."""
    lines = [_COLOUR.sub("", line).strip() for line in said.splitlines()]
    kept = [line for line in lines if line and not _BAR.search(line)][-_LAST_LINES:] or ["nothing"]
    # An error of lmms-eval that lists all its model classes stands in one line; its beginning is what counts.
    return " | ".join(line if len(line) <= _LINE_LETTERS else f"{line[:_LINE_LETTERS]}..." for line in kept)


def _end(process: "subprocess.Popen[str]") -> None:
    """End what is still running, with the processes it started."""
    if process.poll() is not None:
        return
    _signal(process, signal.SIGTERM, process.terminate)
    try:
        process.wait(timeout=_ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        _signal(process, getattr(signal, "SIGKILL", signal.SIGTERM), process.kill)
        process.wait()


def _signal(process: "subprocess.Popen[str]", sent: signal.Signals, alone: Callable[[], None]) -> None:
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, sent)
        else:
            alone()
