"""lmms-eval in an environment of its own: finding it, asking what it has, running it as a process that is watched.

It cannot be installed beside the lab: 0.7.3 wants av below 16 and one version of wandb. What it says goes to a log; a
process that fails, or says nothing for too long, ends in an error that holds its last lines.
"""

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError, choose
from lab.evaluation.benchmarks.benchmark import Progress

VARIABLE = "OMNI_LAB_LMMS_EVAL"
"""The environment variable that names the Python which has lmms-eval."""
INSTALL = (
    "install it into an environment of its own (it wants other versions than the lab): python -m venv LMMS && "
    f"LMMS/bin/pip install lmms-eval==0.7.3, then give --option python=LMMS/bin/python or set {VARIABLE} to that"
)
MODEL_CLASSES = {
    "LanguageBind/Video-LLaVA-7B-hf": "video_llava",
    "OpenGVLab/VideoChat2_HD_stage4_Mistral_7B_hf": "videochat2",
    "Qwen/Qwen2-Audio-7B-Instruct": "qwen2_audio",
    "Qwen/Qwen2-VL-7B-Instruct": "qwen2_vl",
    "Qwen/Qwen2.5-VL-3B-Instruct": "qwen2_5_vl",
    "VITA-MLLM/VITA-1.5": "vita",
    "baichuan-inc/Baichuan-Omni-1d5": "baichuan_omni",
    "llava-hf/llava-1.5-7b-hf": "llava_hf",
    "lmms-lab/llava-onevision-qwen2-7b-ov": "llava_onevision",
    "openbmb/MiniCPM-o-2_6": "minicpm_o",
}
"""Checkpoints that a class of lmms-eval 0.7.3 has as its default, as `pretrained` -> that class."""
# They ask an endpoint, so that there are no weights to be known.
_ENDPOINTS = ("async_openai", "claude", "gemini", "gpt4v", "litellm", "openai")
_ADDRESSES = ("OPENAI_API_BASE", "OPENAI_API_URL")
# Classes that do not call the model `pretrained`.
_ARGUMENTS = {
    **dict.fromkeys(_ENDPOINTS, "model_version"),
    **dict.fromkeys(("longvila", "sglang", "vllm", "vllm_generate"), "model"),
}
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

    def model_class_of(self, model: str, given: str | None) -> str:
        """The model class (its `--model`: what loads the weights) that was asked for, by its first name, or the known.

        Raises:
            LabError: neither is there, this lmms-eval has no such class, or the model's name cannot be an argument.
        """
        if "," in model:
            raise LabError(f"model {model!r} has a comma, which parts lmms-eval's arguments; expected a name without")
        command = " ".join(self.command)
        if (name := given or MODEL_CLASSES.get(model)) is None:
            raise LabError(
                f"which model class of lmms-eval loads {model!r} is not known here; give --option model_class=..., as "
                f"qwen2_vl (`{command} models` lists them); known for {', '.join(MODEL_CLASSES)}"
            )
        listed = _MODEL_CLASS.findall(_said([*self.command, "models", "--aliases"]))
        if not listed:
            raise LabError(f"{command} models lists no model class; {INSTALL}")
        first = {alias.strip(): one for one, aliases in listed for alias in (one, *aliases.split(",")) if alias.strip()}
        return choose(first, name, f"model class of lmms-eval {self.version}")


def find_lmms_eval(python: str | None = None) -> LmmsEval:
    """The lmms-eval of a Python: the given one, that of `VARIABLE`, else `lmms-eval` on the PATH, else this Python's.

    Raises:
        LabError: there is none, or it does not answer; the message says how to install it.
    """
    if python := python or os.environ.get(VARIABLE):
        # No resolve(): the link of a virtual environment is what makes it that environment.
        found = shutil.which(os.path.expanduser(python))
        if found is None:
            raise LabError(f"{python!r} is no Python that can be run; {INSTALL}")
        command = [found, "-m", "lmms_eval"]
    elif found := shutil.which("lmms-eval"):
        command = [found]
    elif importlib.util.find_spec("lmms_eval") is not None:
        command = [sys.executable, "-m", "lmms_eval"]
    else:
        raise LabError(f"lmms-eval is not installed; {INSTALL}")
    said = _said([*command, "version"])
    version = re.search(r"^lmms-eval (\S+)", said, re.MULTILINE)
    if version is None:
        raise LabError(f"{' '.join(command)} version does not say which lmms-eval it is, but {said[:200]!r}; {INSTALL}")
    return LmmsEval(command=tuple(command), version=version[1], packages=dict(_PACKAGE.findall(said)))


def _said(command: Sequence[str]) -> str:
    how = {"stdin": subprocess.DEVNULL, "capture_output": True, "encoding": "utf-8", "errors": "replace"}
    try:
        done = subprocess.run(command, timeout=_PROBE_SECONDS, check=False, **how)  # type: ignore[call-overload]
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(command)} did not answer within {_PROBE_SECONDS} seconds") from None
    except OSError as error:
        raise LabError(f"{' '.join(command)} cannot be run: {error}; {INSTALL}") from error
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)} failed: {last_lines(done.stderr or done.stdout)}; {INSTALL}")
    return str(done.stdout)


def endpoint_of(model_class: str) -> str:
    """Where a class that asks an endpoint will ask, in words; empty for one that loads weights."""
    if model_class not in _ENDPOINTS:
        return ""
    places = [f"{name}={os.environ[name]}" for name in _ADDRESSES if os.environ.get(name)]
    return ", ".join(places) or "as in model_args, or the class's default"


def model_arguments(model: str, model_class: str, more: str) -> str:
    """lmms-eval's `--model_args`."""
    named = str(Path(model).resolve()) if Path(model).is_dir() else model
    return f"{_ARGUMENTS.get(model_class, 'pretrained')}={named}{',' if more else ''}{more}"


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
        command: with all its arguments.
        log: gets all that it says, but for keys and tokens.
        silence_seconds: how long it may say nothing.
        progress: told how far it is.
        environment: variables that it gets beside this process's.

    Exit status 0 is no proof of success: without `--verbosity DEBUG` it prints its error and ends with 0.

    Raises:
        LabError: it ends with another status, cannot be started, or says nothing for `silence_seconds`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    secrets = {value: f"[{name}]" for name in _SECRETS if (value := os.environ.get(name))}
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
    watched = _Watched(process, silence_seconds)
    assert process.stdout is not None
    with log.open("w", encoding="utf-8") as written, process.stdout as lines, watched:
        for line in lines:
            watched.heard = time.monotonic()
            for value, name in secrets.items():
                line = line.replace(value, name)
            written.write(line)
            written.flush()
            if _ANSWERING in line and (bar := _BAR.search(line)):
                progress(int(bar[1]), int(bar[2]))
        status = process.wait()
    said = last_lines(log.read_text(encoding="utf-8"))
    if watched.silent:
        raise LabError(
            f"lmms-eval has said nothing for {silence_seconds / 60:g} minutes and was ended; its last lines: {said} "
            "(--option silence_minutes=... waits longer)"
        )
    if status != 0:
        raise LabError(f"lmms-eval ended with status {status}: {said} (all of it: {log})")


class _Watched:
    """Ends a process, with all that it started, when it says nothing for too long and when who waits for it leaves."""

    def __init__(self, process: "subprocess.Popen[str]", silence_seconds: float) -> None:
        self.heard, self.silent = time.monotonic(), False
        self._process, self._silence_seconds = process, silence_seconds
        self._left = threading.Event()

    def __enter__(self) -> None:
        threading.Thread(target=self._watch, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._end()

    def _watch(self) -> None:
        while (seconds := self.heard + self._silence_seconds - time.monotonic()) > 0:
            if self._left.wait(seconds):
                return
        self.silent = True
        self._end()

    def _end(self) -> None:
        if self._process.poll() is not None:
            return
        for sent in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, sent)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=_ENDING_SECONDS)
                return


def last_lines(said: str) -> str:
    """The end of an output in one line, without colours, bars and empty lines."""
    lines = [_COLOUR.sub("", line).strip() for line in said.splitlines()]
    kept = [line for line in lines if line and not _BAR.search(line)][-_LAST_LINES:] or ["nothing"]
    # An error of lmms-eval that lists all its model classes stands in one line; its beginning is what counts.
    return " | ".join(line if len(line) <= _LINE_LETTERS else f"{line[:_LINE_LETTERS]}..." for line in kept)
