"""The paper's benchmarks of images, video, judged answers and speech translation, through lmms-eval (Tables 2 to 5, 7).

Tasks, prompts, judges and scoring are lmms-eval's (0.7.3); which tasks they are stands in `benchmarks.toml`. It runs as
a process of a Python of its own: it wants av below 16 and one version of wandb. A run that has ended is kept whole in
`cache_dir()/lmms-eval`, and read from there when asked again. lmms-eval keeps the answers of its model once they are
all given: a run that stops while it scores them goes on from there, and one that stops before begins again.

A score is lmms-eval's own number. Its interval is the bootstrap's over the items where they average to that number;
else 1.96 of lmms-eval's standard errors to each side; without these either, there is none.

Not offered: M3GIA and MSVD-QA, for which lmms-eval has no task.

Differs from the paper: its images were scored by VLMEvalKit, whose prompts and readings of an answer are others. The
splits of MMBench, EgoSchema and Perception-Test are not found; those with public answers are taken (dev, the subset of
500, val). AIR-Bench's judge and prompts are not found: AIR-Bench's script asks gpt-4-0125-preview, lmms-eval by default
GPT-4o, with AIR-Bench's prompt and one more sentence; to the question it adds "Give a detail answer to the question in
English." It has the answers drawn (temperature 0.2), and keeps none that is: another run's answers are others. The
paper's prompt, segmentation and settings for BLEU are not found.
"""

import json
import math
import os
import re
import shutil
import signal
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lab import paths
from lab.data.hub import data_state, weights_key
from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import (
    Benchmark,
    Identity,
    Options,
    Progress,
    Score,
    Unanswered,
    Unit,
    mean_score,
    model_arguments,
    reply_text,
    unanswered,
    whole_number,
)

if TYPE_CHECKING:
    import pandas

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
# Classes that ask an endpoint: there are no weights to be known.
_ENDPOINTS = ("async_openai", "claude", "gemini", "gpt4v", "litellm", "openai", "openai_compatible")
# Classes that do not call the model `pretrained`.
_ARGUMENTS = {
    **dict.fromkeys(_ENDPOINTS, "model_version"),
    **dict.fromkeys(("longvila", "sglang", "vllm", "vllm_generate"), "model"),
}
_SECRETS = ("HF_TOKEN", "OPENAI_API_KEY", "AZURE_API_KEY", "AZURE_OPENAI_API_KEY")  # it logs the first as it starts
# Its tasks differ in what they take it to be where it is not set (AIR-Bench: azure), so that it is always set for them.
_API = "API_TYPE"
_LAST_LINES, _LINE_LETTERS = 8, 400
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_BAR = re.compile(r"(\d+)/(\d+) \[")
_ANSWERING = "Model Responding"  # what its model classes call their bar
_VERSION = re.compile(r"^(lmms-eval|torch|transformers|vllm) *(\d\S*)$", re.MULTILINE)
# Tasks write files of their own beside it (submissions/mmbench_en_dev_static_results.json).
_RESULTS = re.compile(r"\d{8}_\d{6}_results\.json")
_ROUNDED = 1e-4  # MathVista's number has two decimals of a percent
# Where lmms-eval gives a mapping for an item: the field that is its number, or two that are equal where it is right.
_RIGHT = ("score", "correct", "true_false")
_SAME = (("pred", "answer"), ("pred", "ground_truth"))
# Items that are no independent witnesses: questions on one video.
_GROUPS = ("videoID", "video_name")
_TWO_MARKS = re.compile(r"(10|[1-9])[.,]?\s+(10|[1-9])\.?")
_Z = statistics.NormalDist().inv_cdf(0.975)

Line = Mapping[str, Any]  # an item, of DATE_samples_TASK.jsonl


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number that lmms-eval gives a task, and how each item of its samples comes to it."""

    key: str
    """lmms-eval's name of it, in its results and in each sample."""
    full: float = 1.0
    """What it calls everything right, 1 or 100; 0 for points, which have no such number."""
    of_items: bool = False
    """Whether lmms-eval divides by the whole benchmark's size, so that a sample's share has to be counted here."""
    yes_is: str = ""
    """The field of an item that says "yes" where it is right, where no other does."""
    marked_twice: bool = False
    """Whether a judge marks each item as AIR-Bench's does."""

    @property
    def unit(self) -> Unit:
        """Of the score."""
        return "fraction" if self.full else "points"

    def item(self, line: Line) -> float | None:
        """How right an item is, 0 to 1, or its points; None where its sample does not say so, or a judge has not."""
        value = line[self.key]
        if not isinstance(value, Mapping):
            return _number(value)
        if self.marked_twice:
            return mean_mark([str(reply) for reply in value.get("eval_answer") or ()])
        if self.yes_is:
            return float(value.get(self.yes_is) == "yes")
        for given, expected in _SAME:
            if given in value and expected in value and "score" not in value:
                return float(str(value[given]).strip().lower() == str(value[expected]).strip().lower())
        found = next((value[name] for name in _RIGHT if name in value), None)
        return float(found) if isinstance(found, bool) else _number(found)


def mean_mark(replies: Sequence[str]) -> float | None:
    """An answer's mark of AIR-Bench, whose judge sees it once after the reference and once before; None without both.

    >>> mean_mark(["9 6", "7 9"]), mean_mark(["9 6", ""]), mean_mark(["9 0", "7 9"])
    (6.5, None, None)
    """
    marks = [_TWO_MARKS.fullmatch(reply.strip()) for reply in replies]
    if len(marks) != 2 or marks[0] is None or marks[1] is None:
        return None
    return (int(marks[0][2]) + int(marks[1][1])) / 2


@dataclass(frozen=True, kw_only=True)
class MultimodalBenchmark(Benchmark):
    """A benchmark as lmms-eval 0.7.3 runs it."""

    tasks: tuple[str, ...]
    datasets: tuple[str, ...]
    """Of the hub; a branch after `@`."""
    metrics: Mapping[str, Mapping[str, Any]]
    """Our names of the scores -> the fields of a `Metric`; the mean of the tasks, where there are several."""
    combined: Literal["", "mean", "sum"] = ""
    """How the score that fills the paper's cells is made of several metrics."""
    judge: str = ""
    """The model that reads or marks answers at an endpoint, as lmms-eval names it by default; empty for none."""
    judge_variable: str = "MODEL_VERSION"
    """The environment variable that names another judge; empty where lmms-eval asks always this one."""

    kind = "multimodal"
    models = "OWNER/NAME on the hub or a folder that a model class of lmms-eval loads, or an endpoint's model"
    options: ClassVar[Options] = {
        "python": f"the Python that has lmms-eval (default: {VARIABLE}, else lmms-eval on the PATH)",
        "model_class": "lmms-eval's class, its --model: `lmms-eval models` lists them (default: known for "
        f"{', '.join(MODEL_CLASSES)})",
        "model_args": "further arguments of that class, NAME=VALUE,NAME=VALUE (default: none)",
        "batch_size": "items at once (default: 1)",
        "device": "cpu, cuda or cuda:0 (default: lmms-eval's)",
    }

    def identify(self, model: str, options: Options) -> Identity:
        """Name the weights, lmms-eval with what it runs on, the class, the judge and the data."""
        if "," in model:
            raise LabError(f"model {model!r} has a comma, which parts lmms-eval's arguments; expected a name without")
        judge = self._judge()
        command, versions = find_lmms_eval(options.get("python"))
        if (model_class := options.get("model_class") or MODEL_CLASSES.get(model)) is None:
            raise LabError(
                f"which model class of lmms-eval loads {model!r} is not known here; give --option model_class=..., as "
                f"qwen2_vl (`{' '.join(command)} models` lists them); known for {', '.join(MODEL_CLASSES)}"
            )
        settings = {
            "tasks": self.tasks[0] if len(self.tasks) == 1 else f"{len(self.tasks)}: {self.name}",
            **versions,
            "model_class": model_class,
            "model_args": model_arguments(options),
            "batch_size": str(whole_number(options, "batch_size", 1)),
            "data": data_state(self.datasets),
            **({"judge": judge} if judge else {}),
        }
        if model_class not in _ENDPOINTS:
            return Identity(model_key=weights_key(model, {}), settings=settings)
        places = [f"{name}={os.environ[name]}" for name in ("OPENAI_API_BASE", "OPENAI_API_URL") if name in os.environ]
        endpoint = ", ".join(places) or "as in model_args, or the class's default"
        return Identity(model_key=f"{model_class}:{model}", settings={**settings, "endpoint": endpoint})

    def _judge(self) -> str:
        """The judge that lmms-eval will ask, in words; without its key it would mark all as wrong, or guess."""
        if not self.judge:
            return ""
        kind = os.environ.get(_API, "openai")
        key = {"openai": "OPENAI_API_KEY", "azure": "AZURE_API_KEY"}.get(kind)
        if key is None:
            raise LabError(f"{_API} is {kind!r}, which says what lmms-eval's judge is; choose one of: azure, openai")
        if not os.environ.get(key):
            raise LabError(
                f"benchmark {self.name!r} has its answers read by a judge ({self.judge} by lmms-eval's default), "
                f"and {key} is not set; set it, and OPENAI_API_URL for an endpoint of your own"
            )
        model = os.environ.get(self.judge_variable) if self.judge_variable else None
        place = os.environ.get("OPENAI_API_URL" if kind == "openai" else "AZURE_ENDPOINT", "its default address")
        return f"{model or self.judge} ({kind}) at {place}"

    def ask(
        self, model: str, identity: Identity, options: Options, limit: int | None, progress: Progress
    ) -> "tuple[tuple[Score, ...], pandas.DataFrame, Options]":
        """Let lmms-eval ask and score, unless this evaluation has ended before; read what it has written."""
        kept = paths.cache_dir() / "lmms-eval"
        folder = kept / identity.key(self, limit)
        log = folder.with_name(f"{folder.name}.log")
        responses = kept / "responses" / identity.key(self, None)
        asked, asks = identity.settings, identity.settings["model_class"] in _ENDPOINTS
        named = str(Path(model).resolve()) if Path(model).is_dir() else model
        argument = _ARGUMENTS.get(asked["model_class"], "pretrained")
        command = [
            *find_lmms_eval(options.get("python"))[0],
            *("--model", asked["model_class"]),
            *("--model_args", ",".join(filter(None, (f"{argument}={named}", asked["model_args"])))),
            *("--tasks", ",".join(self.tasks), "--batch_size", asked["batch_size"]),
            *("--log_samples", "--timezone", "UTC"),
            *("--use_cache", str(responses)),
            *(("--device", options["device"]) if "device" in options else ()),
            *(("--limit", str(limit)) if limit is not None else ()),
        ]

        def run(output: Path) -> None:
            environment = {_API: os.environ.get(_API, "openai")} if self.judge else {}
            run_lmms_eval([*command, "--output_path", str(output)], log, progress, environment)
            try:
                self._read(output, whole=limit is None, asks=asks)
            except LabError as error:
                if isinstance(error, Unanswered):  # what failed would be taken for the answers when it is asked again
                    for one in responses.parent.glob(f"{responses.name}*"):
                        shutil.rmtree(one) if one.is_dir() else one.unlink()
                raise LabError(
                    f"benchmark {self.name!r}: {error}; lmms-eval's last lines: "
                    f"{last_lines(log.read_text(encoding='utf-8'))} (all of it: {log})"
                ) from error

        paths.make_folder(folder, run)
        scores, answers, told = self._read(folder, whole=limit is None, asks=asks)
        progress(len(answers), len(answers))
        return scores, answers, told

    def _read(self, folder: Path, *, whole: bool, asks: bool) -> "tuple[tuple[Score, ...], pandas.DataFrame, Options]":
        """Scores, the one that fills the paper's cells first, answers, and how many a judge has not marked.

        Of an endpoint's (`asks`) also how many it left without a text.
        """
        import pandas as pd

        results, samples = read_output(folder, self.tasks)
        metrics = {name: Metric(**fields) for name, fields in self.metrics.items()}
        found = [_score(name, metric, results, samples, whole=whole) for name, metric in metrics.items()]
        scores = [score for score in found if score is not None]
        if not scores:
            keys = ", ".join(metric.key for metric in metrics.values())
            raise LabError(f"lmms-eval's sample of {', '.join(self.tasks)} holds no item that {keys} counts; ask more")
        if self.combined and len(scores) == len(metrics):
            # Metrics of one item (HallusionBench) or each of its own (MME): items are counted once.
            values, counts = [score.value for score in scores], [score.num_items for score in scores]
            value, count = (
                (sum(values), sum(counts)) if self.combined == "sum" else (statistics.fmean(values), counts[0])
            )
            [metric] = {fills.score for fills in self.cells}
            scores.insert(0, Score(metric=metric, value=value, unit=scores[0].unit, num_items=count))
        lines = []
        for task, line in ((name, line) for name in self.tasks for line in samples[name]):
            there = [metric for metric in metrics.values() if metric.key in line]
            lines.append(
                {
                    "id": str(line.get("doc_id")) if len(self.tasks) == 1 else f"{task}/{line.get('doc_id')}",
                    "asked": reply_text(line.get("input")),
                    "answer": reply_text(line.get("target")),
                    "given": reply_text(line.get("filtered_resps")),
                    "score": there[0].item(line) if there else None,
                    "task": task,
                    "found": reply_text(
                        json.dumps({metric.key: line[metric.key] for metric in there}, ensure_ascii=False)
                    ),
                }
            )
        answers = pd.DataFrame(lines)
        told = unanswered(answers["given"].tolist()) if asks else {}
        if not any(metric.marked_twice for metric in metrics.values()):
            return tuple(scores), answers, told
        unmarked = int(answers["score"].isna().sum())
        if 2 * unmarked > len(answers):
            raise LabError(
                f"the judge gave no mark to {unmarked} of {len(answers)} answers, and lmms-eval counts these as 0; a "
                "score over the rest would say nothing of the model: take another judge"
            )
        return tuple(scores), answers, {**told, "unmarked": f"{unmarked} of {len(answers)}, counted as 0"}


def _score(
    name: str,
    metric: Metric,
    results: Mapping[str, Mapping[str, Any]],
    samples: Mapping[str, Sequence[Line]],
    *,
    whole: bool,
) -> Score | None:
    """The mean of the tasks' numbers; None where a sample (not `whole`) has no item: MME's cognition comes last."""
    values: list[float] = []
    lines: list[Line] = []
    error = None
    for task, there in samples.items():
        given = results.get(task, {})
        key = next((key for key in given if key.partition(",")[0] == metric.key), None)
        if key is None and given and not whole:
            return None
        if key is None or (value := _number(given[key])) is None:
            raise LabError(f"lmms-eval's task {task!r} has no number {metric.key!r}; it has: {dict(given) or 'none'}")
        values.append(value / (metric.full or 1.0))
        error = _number(given.get(key.replace(",", "_stderr,", 1)))
        lines += [line for line in there if metric.key in line]
    value, unit = statistics.fmean(values), metric.unit
    items = [metric.item(line) for line in lines]
    known = [item or 0.0 for item in items if item is not None or metric.marked_twice]
    if known and len(known) == len(items):
        first = lines[0][metric.key]
        group = next((one for one in _GROUPS if isinstance(first, Mapping) and one in first), None)
        groups = [str(line[metric.key].get(group)) for line in lines] if group else None
        scored = mean_score(known, groups, metric=name, unit=unit)
        if metric.of_items or abs(scored.value - value) <= _ROUNDED:
            return scored
    plain = Score(metric=name, value=value, unit=unit, num_items=len(lines))
    if error is None or len(values) > 1:
        return plain
    reach = _Z * error / (metric.full or 1.0)
    return replace(plain, low=value - reach, high=value + reach)


def read_output(
    folder: Path, tasks: Sequence[str]
) -> tuple[Mapping[str, Mapping[str, Any]], Mapping[str, Sequence[Line]]]:
    """Read what `--output_path` named: task -> METRIC,FILTER -> its number, and task -> its items.

    Raises:
        LabError: there is no results file, no samples of a task, or a file cannot be read.
    """
    found = sorted(path for path in folder.rglob("*_results.json") if _RESULTS.fullmatch(path.name))
    if not found:
        raise LabError("lmms-eval has written no results: there is no DATE_results.json in its output")
    path = found[-1]
    try:
        results = json.loads(path.read_text(encoding="utf-8"))["results"]
        samples = {}
        for task in tasks:
            path = found[-1].with_name(found[-1].name.replace("_results.json", f"_samples_{task}.jsonl"))
            # Not `splitlines`, which parts a line at signs that JSON lets stand in a text.
            lines = path.read_text(encoding="utf-8").split("\n")
            samples[task] = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LabError(f"lmms-eval's file {path.name} cannot be read: {error!r}") from error
    return results, samples


def find_lmms_eval(python: str | None = None) -> tuple[list[str], dict[str, str]]:
    """The command that runs lmms-eval, of the given Python or that of `VARIABLE`, and the versions of what it uses.

    Raises:
        LabError: there is none, or it does not answer; the message says how to install it.
    """
    python = python or os.environ.get(VARIABLE)
    # No resolve(): the link of a virtual environment is what makes it that environment.
    found = shutil.which(os.path.expanduser(python or "lmms-eval"))
    if found is None:
        missing = f"{python!r} is no Python that can be run" if python else "lmms-eval is not installed"
        raise LabError(f"{missing}; {INSTALL}")
    command = [found, "-m", "lmms_eval"] if python else [found]
    try:  # its first import of a large environment, from a slow disk, takes minutes
        how = {"capture_output": True, "text": True, "timeout": 300, "check": True}
        said = subprocess.run([*command, "version"], stdin=subprocess.DEVNULL, **how).stdout  # type: ignore[call-overload]
    except (OSError, subprocess.SubprocessError) as error:
        why = last_lines(getattr(error, "stderr", None) or str(error))
        raise LabError(f"{' '.join(command)} version fails: {why}; {INSTALL}") from error
    versions = {name.replace("-", "_"): number for name, number in _VERSION.findall(said)}
    if "lmms_eval" not in versions:
        raise LabError(f"{' '.join(command)} version does not say which lmms-eval it is, but {said[:200]!r}; {INSTALL}")
    return command, versions


def run_lmms_eval(command: Sequence[str], log: Path, progress: Progress, environment: Mapping[str, str]) -> None:
    """Run it to its end; its bar over the model's answers becomes `progress`. What it started ends with this process.

    `log` gets all that it says, but for keys and tokens; `environment` has variables beside this process's own. Exit
    status 0 is no proof of success: without `--verbosity DEBUG` it prints its error and ends with 0.

    Raises:
        LabError: it ends with another status, or cannot be started.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    secrets = {value: f"[{name}]" for name in _SECRETS if (value := os.environ.get(name))}
    try:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",  # and text: the returns of a bar are ends of lines
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise LabError(f"lmms-eval cannot be started: {error}; {INSTALL}") from error
    with process, log.open("w", encoding="utf-8") as written:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                for value, name in secrets.items():
                    line = line.replace(value, name)
                written.write(line)
                written.flush()
                if _ANSWERING in line and (bar := _BAR.search(line)):
                    progress(int(bar[1]), int(bar[2]))
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        said = last_lines(log.read_text(encoding="utf-8"))
        raise LabError(f"lmms-eval ended with status {process.returncode}: {said} (all of it: {log})")


def last_lines(said: str) -> str:
    """The end of an output in one line, without colours, bars and empty lines."""
    lines = [_COLOUR.sub("", line).strip() for line in said.splitlines()]
    kept = [line for line in lines if line and not _BAR.search(line)][-_LAST_LINES:] or ["nothing"]
    # An error of lmms-eval that lists all its model classes stands in one line; its beginning is what counts.
    return " | ".join(line if len(line) <= _LINE_LETTERS else f"{line[:_LINE_LETTERS]}..." for line in kept)


def _number(value: object) -> float | None:
    """A finite number; MathVista's is a text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
