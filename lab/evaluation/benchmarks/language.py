"""Language benchmarks through lm-eval: MMLU, CMMLU, AGIEval and C-Eval, zero-shot (section 4, Table 1 of the paper).

Tasks, prompts, splits, scoring and the file of kept likelihoods are lm-eval's own; the accuracy is that over all
questions, as lm-eval's groups have it. The kept file's name holds all that likelihoods depend on (weights, precision,
lm-eval's version), so two tasks that ask the same share answers and two models never do.

Differs from the paper: its prompts, and whether it reads the answer from a generated text or from likelihoods, are not
found. lm-eval's tasks compare the likelihoods of the four letters, but for two sets of mathematics in AGIEval.
"""

import hashlib
import importlib.util
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import (
    Benchmark,
    Identity,
    Kind,
    Progress,
    Score,
    sampled,
    whole_number,
)
from lab.evaluation.benchmarks.revisions import data_revision
from lab.evaluation.benchmarks.text_models import language_checkpoint, load_checkpoint
from lab.paths import cache_dir

if TYPE_CHECKING:
    import pandas
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager

ASKING_VERSION = 1  # raise it when the same weights and request would give another likelihood
PRECISIONS = ("float32", "bfloat16")
_OPTIONS = {
    "data": "a folder that holds the task's data sets as the hub has them, OWNER/NAME (default: the hub)",
    "device": "cpu, cuda or auto (default: auto)",
    "precision": "float32, bfloat16 or auto: float32 on cpu, bfloat16 on cuda where it is fast (default: auto)",
    "batch_size": "questions at once (default: 1 on cpu, 8 on cuda)",
}


@dataclass(frozen=True, kw_only=True)
class LanguageBenchmark(Benchmark):
    """A task or group of lm-eval, asked zero-shot."""

    task: str
    """Its name in lm-eval, or one of `OWN_TASKS`."""
    datasets: tuple[str, ...] = ()
    """The hub's data sets that its tasks read."""
    kind: Kind = "language"
    models: str = "a causal language model: smollm2_135m, a local folder, or OWNER/NAME on the hub"
    options: Mapping[str, str] = field(default_factory=lambda: _OPTIONS)

    def identify(self, model: str, options: Mapping[str, str]) -> Identity:
        """Name the weights, lm-eval's version, the precision and the data.

        Raises:
            LabError: lm-eval is missing, the model is unknown, or an option is wrong.
        """
        if importlib.util.find_spec("lm_eval") is None:
            raise LabError(
                f"benchmark {self.name!r} needs lm-eval, which is not installed; install the extra: "
                "pip install 'omni-lab[evaluate]'"
            )
        whole_number(options, "batch_size", "1")
        from lab.training.loop import choose_device, choose_precision

        device = choose_device(options.get("device", "auto"))
        precision = options.get("precision", "auto")
        if precision not in (*PRECISIONS, "auto"):
            raise LabError(f"option precision is {precision!r}; choose one of: {', '.join(PRECISIONS)}, auto")
        if precision == "auto" and device.type == "cpu":
            # Likelihoods in bfloat16 come in steps of 1/32 at 4 nats: choices tie.
            precision = "float32"
        settings = {
            "task": self.task,
            "lm_eval": version("lm-eval"),
            "num_fewshot": "0",
            "precision": choose_precision(precision, device),
            "data": "; ".join(f"{name} @ {state}" for name, state in self._revisions(options).items()) or self.source,
        }
        return Identity(model_key=language_checkpoint(model).key, settings=settings)

    def ask(
        self, model: str, identity: Identity, options: Mapping[str, str], limit: int | None, progress: Progress
    ) -> "tuple[tuple[Score, ...], pandas.DataFrame, Mapping[str, str]]":
        """Ask lm-eval's questions; what a stopped run has asked is not asked again.

        Raises:
            LabError: the model cannot be loaded, or a data set not be had.
        """
        import pandas as pd
        from lm_eval import evaluate

        from lab.evaluation.benchmarks.scores import accuracy_score

        tasks = load_tasks(self.task, options.get("data"), self._revisions(options))
        # A sample over the questions of all tasks together.
        places = [(name, number) for name, task in tasks.items() for number in range(len(list(task.eval_docs)))]
        chosen: dict[str, list[int]] = {}
        for place in sampled(len(places), limit):
            chosen.setdefault(places[place][0], []).append(places[place][1])
        for name in chosen:
            tasks[name].set_config(key="num_fewshot", value=0)
            tasks[name].set_fewshot_seed(seed=0)  # it wants one, though nothing is drawn
        num_items = len(places) if limit is None else min(limit, len(places))
        with _quiet():
            # Not `simple_evaluate`: it asks pip and the machine for all they have, which can take minutes.
            found = evaluate(
                lm=_opened(model, identity, options, lambda asked: progress(min(asked, num_items), num_items)),
                task_dict={"tasks": {name: tasks[name] for name in chosen}},
                samples=chosen,
                bootstrap_iters=0,
            )
        assert found is not None  # None is what ranks above 0 get
        answers = pd.DataFrame([_line(name, sample) for name, part in found["samples"].items() for sample in part])
        progress(len(answers), len(answers))
        return (accuracy_score(answers["score"].tolist()),), answers, {}

    def _revisions(self, options: Mapping[str, str]) -> dict[str, str]:
        """The state of each data set, of the hub or of the folder that holds them."""
        folder = options.get("data")
        if folder is None:
            return {name: data_revision(name) for name in self.datasets}
        for name in self.datasets:
            if not (Path(folder) / name).is_dir():
                raise LabError(f"the folder {folder} has no {name}/, which benchmark {self.name!r} reads")
        return {name: data_revision(str(Path(folder) / name)) for name in self.datasets}


def mmlu_few_shot_questions() -> dict[str, Any]:
    """The few-shot questions of MMLU that lm-eval carries, asked as its task `mmlu` asks the others."""
    from standins.instructions import mmlu

    return mmlu.task()


OWN_TASKS: dict[str, Callable[[], dict[str, Any]]] = {"mmlu_few_shot_questions": mmlu_few_shot_questions}
"""Tasks that lm-eval does not have, in its own form."""


def load_tasks(task: str, data: str | None, revisions: Mapping[str, str]) -> "dict[str, Task]":
    """The single tasks of a task or group of lm-eval by name, each with its data set read.

    Args:
        task: lm-eval's name.
        data: a folder with the data sets as `OWNER/NAME`, in place of the hub.
        revisions: the commit of each of the hub's.

    Raises:
        LabError: a data set that is not among `revisions`, or that cannot be had.
    """
    from lm_eval.tasks import TaskManager

    if task in OWN_TASKS:
        with _quiet():
            return dict(TaskManager(include_defaults=False).load([OWN_TASKS[task]()])["tasks"])
    manager = manager_of(task)
    changes = {name: place_of_data(manager, name, data, revisions) for name in leaves(manager, task)}
    # The manager's own way from a name to a task; its `load` changes nothing in a registered one.
    build = partial(manager._factory.build, registry=manager.task_index)
    try:
        with _quiet():
            return {name: build(manager.task_index[name], overrides=changed) for name, changed in changes.items()}
    except Exception as error:  # `datasets` raises whatever its readers and the network raise
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        where = f"the folder {data}" if data else "the Hugging Face hub"
        raise LabError(
            f"the data of lm-eval's task {task!r} cannot be read from {where}: {why}; give access and network, or a "
            "folder that holds them as OWNER/NAME: --option data=FOLDER"
        ) from error


def manager_of(task: str) -> "TaskManager":
    """lm-eval's tasks of the folder that a task stands in: there are 14,000 files in all."""
    from lm_eval import tasks as tasks_module

    folder = Path(tasks_module.__file__).parent / task.partition("-")[0]
    return tasks_module.TaskManager(include_defaults=False, include_path=str(folder))


def leaves(manager: "TaskManager", name: str) -> Iterator[str]:
    """The single tasks of a group, through groups and tags."""
    entry = manager.task_index[name]
    if entry.kind.name not in ("TAG", "GROUP"):
        yield name
        return
    for member in sorted(entry.tags) if entry.kind.name == "TAG" else (entry.cfg or {})["task"]:
        yield from leaves(manager, member if isinstance(member, str) else member.get("group") or member["task"])


def place_of_data(manager: "TaskManager", name: str, data: str | None, revisions: Mapping[str, str]) -> dict[str, Any]:
    """What is changed in a task's configuration, so that it reads the state that the settings name.

    Raises:
        LabError: the task reads a data set that is not among `revisions`.
    """
    cfg = manager.task_index[name].cfg or {}
    path = str(cfg.get("dataset_path"))
    if path not in revisions:
        raise LabError(
            f"lm-eval's task {name!r} reads {path}, of which no revision is known; this lm-eval is newer than the lab: "
            f"its data sets were {', '.join(revisions)}"
        )
    if data is not None:
        return {"dataset_path": str(Path(data) / path)}
    return {"dataset_kwargs": {**(cfg.get("dataset_kwargs") or {}), "revision": revisions[path]}}


def answers_path(identity: Identity) -> Path:
    """Where the likelihoods lie."""
    named = [identity.model_key, identity.settings["precision"], identity.settings["lm_eval"], ASKING_VERSION]
    return cache_dir() / "answers" / f"lm-eval-{hashlib.sha256(json.dumps(named).encode()).hexdigest()[:32]}_rank0.db"


def _opened(model: str, identity: Identity, options: Mapping[str, str], asked: Any) -> Any:
    """lm-eval's model, behind its own file of kept likelihoods; `asked` is told how many questions it was asked."""
    import torch
    from lm_eval.api.model import CachingLM
    from lm_eval.models.huggingface import HFLM

    from lab.training.loop import choose_device

    device = choose_device(options.get("device", "auto"))
    loaded = load_checkpoint(language_checkpoint(model), getattr(torch, identity.settings["precision"]))
    network, codec = loaded.model, loaded.codec
    lm: Any = HFLM(
        pretrained=network.to(device),  # type: ignore[arg-type]
        tokenizer=codec.tokenizer,  # type: ignore[attr-defined]
        batch_size=whole_number(options, "batch_size", "1" if device.type == "cpu" else "8"),
    )
    for name in ("loglikelihood", "generate_until"):  # one bar is enough
        setattr(lm, name, partial(getattr(lm, name), disable_tqdm=True))
    kept = CachingLM(lm, str(answers_path(identity)))
    contexts: set[str] = set()
    keep = lm.cache_hook.add_partial

    def add_partial(kind: str, request: Any, answer: Any) -> None:
        keep(kind, request, answer)
        contexts.add(request[0])
        asked(len(contexts))

    lm.cache_hook.add_partial = add_partial
    return kept


def _line(task: str, sample: dict[str, Any]) -> dict[str, Any]:
    """A question as it was asked; the answer is the choice that the model finds most likely, or what it wrote."""
    asked = sample["arguments"]
    likelihoods = [float(response[0]) for response in sample["filtered_resps"]] if len(asked) > 1 else []
    likeliest = max(range(len(likelihoods)), key=likelihoods.__getitem__, default=0)
    return {
        "id": f"{task}/{sample['doc_id']}",
        "asked": asked[0][0],
        "answer": str(sample["target"]),
        "given": str(asked[likeliest][1]).strip() if likelihoods else str(sample["filtered_resps"][0]),
        "score": float(sample["acc"]),
        "log_likelihoods": json.dumps(likelihoods),
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """lm-eval's warnings of few-shot settings and chat templates say nothing of what is asked here."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
