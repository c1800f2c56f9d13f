"""Benchmarks through lmms-eval, which runs as a process of an environment of its own (section 4, Tables 2 to 4 and 7).

Tasks, prompts and scoring are lmms-eval's; `vision_tasks` and `air_bench`, beside this, say which, and what the paper
did otherwise. A run that has ended is kept whole in `cache_dir()/lmms-eval`, and read from there when asked again.
lmms-eval keeps the answers of its model once they are all given: a run that stops while it scores them goes on from
there, and one that stops before begins again. A larger sample asks only what the smaller one has not. Answers that are
drawn (AIR-Bench's) it does not keep.

A limit takes lmms-eval's first items of a task, not a sample spread over all of them.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab import paths
from lab.errors import LabError
from lab.evaluation.benchmarks.air_bench import AIR_BENCH_TASKS
from lab.evaluation.benchmarks.benchmark import (
    Benchmark,
    Evaluated,
    Identity,
    Kind,
    Progress,
    Score,
    check_limit,
    check_options,
    whole_number,
)
from lab.evaluation.benchmarks.checkpoints import find_checkpoint
from lab.evaluation.benchmarks.data_revisions import data_revision
from lab.evaluation.benchmarks.lmms_eval_models import (
    MODEL_CLASSES,
    endpoint_of,
    model_arguments,
    model_class_of,
    more_arguments,
)
from lab.evaluation.benchmarks.lmms_eval_process import VARIABLE, find_lmms_eval, last_lines, read_log, run_lmms_eval
from lab.evaluation.benchmarks.lmms_eval_results import read_output
from lab.evaluation.benchmarks.lmms_eval_tasks import LmmsEvalTask
from lab.evaluation.benchmarks.vision_tasks import VISION_TASKS

_OPTIONS = {
    "python": f"the Python that has lmms-eval (default: {VARIABLE}, else lmms-eval on the PATH)",
    "model_class": "lmms-eval's class, its --model: `lmms-eval models` lists them (default: known for "
    f"{', '.join(MODEL_CLASSES)})",
    "model_args": "further arguments of that class, NAME=VALUE,NAME=VALUE (default: none)",
    "batch_size": "items at once (default: 1)",
    "device": "cpu, cuda or cuda:0 (default: lmms-eval's)",
    "silence_minutes": "after so long without a line from lmms-eval it is ended (default: 60)",
}
# Its tasks differ in what they take it to be where it is not set (AIR-Bench: azure), so that it is always set for them.
_API = "API_TYPE"


@dataclass(frozen=True, kw_only=True)
class LmmsEvalBenchmark(Benchmark):
    """A benchmark of lmms-eval."""

    task: LmmsEvalTask
    kind: Kind = "multimodal"
    models: str = "OWNER/NAME on the hub or a folder that a model class of lmms-eval loads, or an endpoint's model"
    options: Mapping[str, str] = field(default_factory=lambda: _OPTIONS)

    def check(self, model: str, *, options: Mapping[str, str]) -> Identity:
        """Name the weights, lmms-eval with what it runs on, the class, the judge and the data.

        Raises:
            LabError: lmms-eval is not installed, the model or its class is unknown, an option is wrong, the judge has
                no key, or the data set cannot be found.
        """
        check_options(self, options)
        whole_number(options, "batch_size", "1")
        whole_number(options, "silence_minutes", "60")
        judge = self._judge()
        found = find_lmms_eval(options.get("python"))
        model_class = model_class_of(model, options.get("model_class"), found)
        settings = {
            "tasks": self.task.tasks[0] if len(self.task.tasks) == 1 else f"{len(self.task.tasks)}: {self.name}",
            "lmms_eval": found.version,
            **found.packages,
            "model_class": model_class,
            "model_args": more_arguments(options),
            "batch_size": options.get("batch_size", "1"),
            "data": self._data(),
        }
        if judge:
            settings["judge"] = judge
        if endpoint := endpoint_of(model_class):
            settings["endpoint"] = endpoint
            return Identity(model_key=f"{model_class}:{model}", settings=settings)
        return Identity(model_key=find_checkpoint(model, {}).key, settings=settings)

    def evaluate(self, model: str, *, options: Mapping[str, str], limit: int | None, progress: Progress) -> Evaluated:
        """Let lmms-eval ask and score, unless this evaluation has ended before; read what it has written.

        Raises:
            LabError: as `check`; the limit is smaller than what belongs together, lmms-eval fails, or what it has
                written lacks the task.
        """
        check_limit(limit)
        of_each = self._of_each_task(limit)
        identity = self.check(model, options=options)
        kept = paths.cache_dir() / "lmms-eval"
        folder = kept / identity.key(self, limit)
        log = folder.with_name(f"{folder.name}.log")
        command = self._command(model, options, of_each, responses=kept / "responses" / identity.key(self, None))

        def ask(output: Path) -> None:
            run_lmms_eval(
                [*command, "--output_path", str(output)],
                log=log,
                silence_seconds=60.0 * whole_number(options, "silence_minutes", "60"),
                progress=progress,
                environment={_API: _api()} if self.task.judge else {},
            )
            try:
                read_output(output, self.task, whole=limit is None)
            except LabError as error:
                raise LabError(
                    f"benchmark {self.name!r}: {error}; lmms-eval's last lines: {last_lines(read_log(log))} "
                    f"(all of it: {log})"
                ) from error

        paths.make_folder(folder, ask)
        scores, answers = read_output(folder, self.task, whole=limit is None)
        progress(len(answers), len(answers))
        left_out = _left_out(limit, of_each, len(self.task.tasks))
        return self.evaluated(model, identity, scores, answers, left_out=left_out, **_unjudged(scores))

    def _command(
        self, model: str, options: Mapping[str, str], of_each: int | None, *, responses: Path
    ) -> tuple[str, ...]:
        found = find_lmms_eval(options.get("python"))
        model_class = model_class_of(model, options.get("model_class"), found)
        arguments = model_arguments(model, model_class, more_arguments(options))
        return (
            *found.command,
            *("--model", model_class, "--model_args", arguments, "--tasks", ",".join(self.task.tasks)),
            *("--batch_size", options.get("batch_size", "1"), "--log_samples", "--timezone", "UTC"),
            *("--use_cache", str(responses)),
            *(("--device", options["device"]) if "device" in options else ()),
            *(("--limit", str(of_each)) if of_each is not None else ()),
        )

    def _judge(self) -> str:
        """The judge that lmms-eval will ask, in words; without its key it would mark all as wrong, or guess."""
        if not self.task.judge:
            return ""
        kind = _api()
        key = {"openai": "OPENAI_API_KEY", "azure": "AZURE_API_KEY"}.get(kind)
        if key is None:
            raise LabError(f"{_API} is {kind!r}, which says what lmms-eval's judge is; choose one of: azure, openai")
        if not os.environ.get(key):
            raise LabError(
                f"benchmark {self.name!r} has its answers read by a judge ({self.task.judge} by lmms-eval's default), "
                f"and {key} is not set; set it, and OPENAI_API_URL for an endpoint of your own"
            )
        model = os.environ.get(self.task.judge_variable, self.task.judge) if self.task.judge_variable else ""
        place = os.environ.get("OPENAI_API_URL" if kind == "openai" else "AZURE_ENDPOINT", "its default address")
        return f"{model or self.task.judge} ({kind}) at {place}"

    def _data(self) -> str:
        name, _, branch = self.task.dataset.partition("@")
        if not branch:
            return f"{name} ({self.task.split}) @ {data_revision(name)}"
        return f"{name} ({self.task.split}), branch {branch} @ {data_revision(name, branch)}"

    def _of_each_task(self, limit: int | None) -> int | None:
        if limit is None:
            return None
        least = len(self.task.tasks) * self.task.together
        if limit < least:
            raise LabError(
                f"limit is {limit}, and benchmark {self.name!r} asks at least {least}: {len(self.task.tasks)} tasks, "
                f"{self.task.together} items of each"
            )
        return limit // least * self.task.together


def _api() -> str:
    return os.environ.get(_API, "openai")


def _left_out(limit: int | None, of_each: int | None, num_tasks: int) -> str:
    return "nothing" if limit is None else f"all but the first {of_each} of {num_tasks} task{'s' * (num_tasks > 1)}"


def _unjudged(scores: Sequence[Score]) -> dict[str, str]:
    found = [one for one in scores if one.metric == "unjudged"]
    return {one.metric: f"{one.value * one.num_items:.0f} of {one.num_items}" for one in found}


LMMS_EVAL_BENCHMARKS: dict[str, Benchmark] = {
    name: LmmsEvalBenchmark(name=name, task=task, source=f"hub: {task.dataset}, {task.split}", cells=task.cells)
    for name, task in {**VISION_TASKS, **AIR_BENCH_TASKS}.items()
}
