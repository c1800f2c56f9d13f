"""The paper's image, video and AIR-Bench benchmarks, through lmms-eval (section 4, Tables 2 to 4 and 7).

Tasks, prompts and scoring are lmms-eval's; which tasks they are stands in `benchmarks.toml`. A run that has
ended is kept whole in `cache_dir()/lmms-eval`, and read from there when asked again. lmms-eval keeps the answers of its
model once they are all given: a run that stops while it scores them goes on from there, and one that stops before
begins again. A larger sample asks only what the smaller one has not. A limit takes lmms-eval's first items of a task,
not a sample spread over all of them.

Not offered: M3GIA, for which lmms-eval has no task. ActivityNet-QA and MSVD-QA (Table 5) are open answers, marked by a
judge of one's own (`lab.evaluation.benchmarks.open_answers`); lmms-eval has no task for MSVD-QA.

AIR-Bench's judge is asked twice for each answer, which stands once after the reference and once before it, and marks
both from 1 to 10; an answer's mark is the mean of its two. A reply that is not two whole numbers from 1 to 10 marks
nothing, and so does a judge that lmms-eval has asked three times in vain. lmms-eval 0.7.3 counts such an answer as 0 in
its mean; AIR-Bench's own script leaves it out, and so does the score here, beside how many they are. A 0 is on no scale
of theirs: lmms-eval drops it, and would then read the reference's mark in its place.

Differs from the paper: its images were scored by VLMEvalKit, whose prompts and readings of an answer are others. The
splits of MMBench, EgoSchema and Perception-Test are not found; those with public answers are taken (dev, the subset of
500, val). AIR-Bench's judge and prompts are not found: AIR-Bench's script asks gpt-4-0125-preview, lmms-eval by default
GPT-4o, with AIR-Bench's prompt and one more sentence; to the question it adds "Give a detail answer to the question in
English." It has the answers drawn (temperature 0.2), and keeps none that is: another run's answers are others.
"""

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lab import paths
from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import Benchmark, Identity, Kind, Progress, Score, whole_number
from lab.evaluation.benchmarks.lmms_eval import (
    MODEL_CLASSES,
    VARIABLE,
    endpoint_of,
    find_lmms_eval,
    last_lines,
    model_arguments,
    run_lmms_eval,
)
from lab.evaluation.benchmarks.lmms_eval_results import Metric, Output, marked, read_output, score_of_items
from lab.evaluation.benchmarks.revisions import data_revision, find_checkpoint

if TYPE_CHECKING:
    import pandas

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
    """A benchmark as lmms-eval 0.7.3 runs it."""

    tasks: tuple[str, ...]
    dataset: str
    """Of the hub; a branch after `@`."""
    split: str = "test"
    metrics: Mapping[str, Metric]
    """Our names of the scores -> lmms-eval's."""
    combined: Literal["", "mean", "sum"] = ""
    """How the score that fills the paper's cells is made of several metrics; of one metric's tasks it is the mean."""
    judge: str = ""
    """The model that reads or marks answers at an endpoint, as lmms-eval names it by default; empty for none."""
    judge_variable: str = "MODEL_VERSION"
    """The environment variable that names another judge; empty where lmms-eval asks always this one."""
    together: int = 1
    """Items of one question, which a sample must not part."""
    kind: Kind = "multimodal"
    models: str = "OWNER/NAME on the hub or a folder that a model class of lmms-eval loads, or an endpoint's model"
    options: Mapping[str, str] = field(default_factory=lambda: _OPTIONS)

    @classmethod
    def from_table(cls, name: str, table: Mapping[str, Any]) -> Benchmark:
        """As any benchmark's; `source` is the data set's, and `metrics` are tables of their own."""
        metrics = {ours: Metric(**theirs) for ours, theirs in table["metrics"].items()}
        source = f"hub: {table['dataset']}, {table.get('split', 'test')}"
        return super().from_table(name, {**table, "source": source, "metrics": metrics})

    def identify(self, model: str, options: Mapping[str, str]) -> Identity:
        """Name the weights, lmms-eval with what it runs on, the class, the judge and the data.

        Raises:
            LabError: lmms-eval is not installed, the model or its class is unknown, an option is wrong, the judge has
                no key, or the data set cannot be found.
        """
        whole_number(options, "batch_size", "1")
        whole_number(options, "silence_minutes", "60")
        judge = self._judge()
        found = find_lmms_eval(options.get("python"))
        model_class = found.model_class_of(model, options.get("model_class"))
        name, at, branch = self.dataset.partition("@")
        data = f"{name} ({self.split}){', branch ' if at else ''}{branch} @ {data_revision(name, branch or None)}"
        settings = {
            "tasks": self.tasks[0] if len(self.tasks) == 1 else f"{len(self.tasks)}: {self.name}",
            "lmms_eval": found.version,
            **found.packages,
            "model_class": model_class,
            "model_args": _more_arguments(options),
            "batch_size": options.get("batch_size", "1"),
            "data": data,
            **({"judge": judge} if judge else {}),
        }
        if endpoint := endpoint_of(model_class):
            return Identity(model_key=f"{model_class}:{model}", settings={**settings, "endpoint": endpoint})
        return Identity(model_key=find_checkpoint(model, {}).key, settings=settings)

    def ask(
        self, model: str, identity: Identity, options: Mapping[str, str], limit: int | None, progress: Progress
    ) -> "tuple[tuple[Score, ...], pandas.DataFrame, Mapping[str, str]]":
        """Let lmms-eval ask and score, unless this evaluation has ended before; read what it has written.

        Raises:
            LabError: the limit is smaller than what belongs together, lmms-eval fails, what it has written lacks the
                task, or a judge has marked less than half of the answers.
        """
        of_each = self._of_each_task(limit)
        kept = paths.cache_dir() / "lmms-eval"
        folder = kept / identity.key(self, limit)
        log = folder.with_name(f"{folder.name}.log")
        model_class = identity.settings["model_class"]
        command = (
            *find_lmms_eval(options.get("python")).command,
            *("--model", model_class),
            *("--model_args", model_arguments(model, model_class, identity.settings["model_args"])),
            *("--tasks", ",".join(self.tasks), "--batch_size", identity.settings["batch_size"]),
            *("--log_samples", "--timezone", "UTC"),
            *("--use_cache", str(kept / "responses" / identity.key(self, None))),
            *(("--device", options["device"]) if "device" in options else ()),
            *(("--limit", str(of_each)) if of_each is not None else ()),
        )

        def run(output: Path) -> None:
            run_lmms_eval(
                [*command, "--output_path", str(output)],
                log=log,
                silence_seconds=60.0 * whole_number(options, "silence_minutes", "60"),
                progress=progress,
                environment={_API: _api()} if self.judge else {},
            )
            try:
                self.scores(read_output(output, self.tasks), whole=limit is None)
            except LabError as error:
                raise LabError(
                    f"benchmark {self.name!r}: {error}; lmms-eval's last lines: "
                    f"{last_lines(log.read_text(encoding='utf-8'))} (all of it: {log})"
                ) from error

        paths.make_folder(folder, run)
        output = read_output(folder, self.tasks)
        scores = self.scores(output, whole=limit is None)
        answers = output.answers(list(self.metrics.values()))
        progress(len(answers), len(answers))
        tasks = f"{len(self.tasks)} task{'s' * (len(self.tasks) > 1)}"
        told = {"left_out": "nothing" if limit is None else f"all but the first {of_each} of {tasks}"}
        for score in scores:
            if score.metric == "unjudged":
                told["unjudged"] = f"{score.value * score.num_items:.0f} of {score.num_items}"
        return scores, answers, told

    def scores(self, output: Output, *, whole: bool) -> tuple[Score, ...]:
        """The scores of a finished run, the one that fills the paper's cells first.

        Args:
            output: what lmms-eval has written.
            whole: whether every item was asked.

        Raises:
            LabError: as `Output.score` and `marked`, or a sample without an item that counts.
        """
        scores: list[Score] = []
        for name, metric in self.metrics.items():
            labels = {task: name if len(self.tasks) == 1 else f"{name}.{task}" for task in self.tasks}
            found = {task: output.score(label, metric, task, whole=whole) for task, label in labels.items()}
            parts = [score for score in found.values() if score]
            lines = metric.counted([line for task in self.tasks for line in output.samples[task]])
            if len(self.tasks) > 1 and len(parts) == len(self.tasks):
                mean = statistics.fmean(part.value for part in parts)
                plain = Score(metric=name, value=mean, better="higher", num_items=len(lines))
                scores.append(score_of_items(name, metric, lines, mean) or plain)
            scores += parts if not metric.in_points else marked(metric, parts[0], lines) if parts and lines else []
        if self.combined and len(scores) == len(self.metrics):
            scores.insert(0, self._combined(scores))
        if not scores:
            asked = ", ".join(metric.key for metric in self.metrics.values())
            raise LabError(f"lmms-eval's sample of {', '.join(self.tasks)} holds no item that {asked} counts; ask more")
        return tuple(scores)

    def _combined(self, scores: Sequence[Score]) -> Score:
        values = [score.value for score in scores]
        value = sum(values) if self.combined == "sum" else statistics.fmean(values)
        # Metrics of one item (HallusionBench) or each of its own (MME): items are counted once.
        num_items = sum(score.num_items for score in scores) if self.combined == "sum" else scores[0].num_items
        [metric] = {fills.score for fills in self.cells}
        return Score(metric=metric, value=value, unit=scores[0].unit, better="higher", num_items=num_items)

    def _judge(self) -> str:
        """The judge that lmms-eval will ask, in words; without its key it would mark all as wrong, or guess."""
        if not self.judge:
            return ""
        kind = _api()
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

    def _of_each_task(self, limit: int | None) -> int | None:
        if limit is None:
            return None
        least = len(self.tasks) * self.together
        if limit < least:
            raise LabError(
                f"limit is {limit}, and benchmark {self.name!r} asks at least {least}: {len(self.tasks)} tasks, "
                f"{self.together} items of each"
            )
        return limit // least * self.together


def _api() -> str:
    return os.environ.get(_API, "openai")


def _more_arguments(options: Mapping[str, str]) -> str:
    given = options.get("model_args", "")
    parts = [one.partition("=") for one in given.split(",")] if given else []
    if "api_key" in [name for name, _, _ in parts]:  # all options are recorded, in a file that git has
        raise LabError("option model_args holds an api_key; set the environment variable OPENAI_API_KEY instead")
    if not all(name and equals for name, equals, _ in parts):
        raise LabError(f"option model_args is {given!r}; expected NAME=VALUE,NAME=VALUE")
    return given
