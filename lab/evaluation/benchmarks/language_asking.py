"""Asking a causal language model the questions of an lm-eval task, answers kept so that a stopped run goes on.

lm-eval keeps each request's likelihoods in a SQLite file as it gets them; the file's name holds all that they depend
on (weights, precision, lm-eval's version), so two tasks that ask the same share answers and two models never do.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from lm_eval import evaluate
from lm_eval import tasks as tasks_module
from lm_eval.api.model import CachingLM
from lm_eval.api.task import Task
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import Identity, Progress, Score, sampled
from lab.evaluation.benchmarks.checkpoints import Checkpoint
from lab.evaluation.benchmarks.intervals import accuracy_score
from lab.evaluation.benchmarks.multiple_choice import few_shot_questions
from lab.paths import cache_dir

ASKING_VERSION = 1  # raise it when the same weights and request would give another likelihood

MMLU_PROMPT = (
    "The following are multiple choice questions (with answers) about {{subject}}.\n\n"
    "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:"
)
"""What lm-eval's `mmlu` asks: the subject's description, then its question."""


def ask(
    task: str,
    checkpoint: Checkpoint,
    identity: Identity,
    *,
    data: str | None,
    revisions: Mapping[str, str],
    device: str,
    batch_size: int | None,
    limit: int | None,
    progress: Progress,
) -> tuple[tuple[Score, ...], pd.DataFrame]:
    """The scores of a task and a line for every question.

    Raises:
        LabError: a data set or the model cannot be opened.
    """
    tasks = load_tasks(task, data, revisions)
    chosen = _chosen(tasks, limit)
    lm = _load(checkpoint, identity, device, batch_size, progress)
    path = answers_path(identity)
    path.parent.mkdir(parents=True, exist_ok=True)
    lm.expect(sum(len(places) for places in chosen.values()))
    asked = {name: tasks[name] for name in chosen}
    for one in asked.values():
        one.set_config(key="num_fewshot", value=0)
        one.set_fewshot_seed(seed=0)  # it wants one, though nothing is drawn
    with _quiet():
        # Not `simple_evaluate`: it asks pip and the machine for all they have, which can take minutes.
        found = evaluate(
            lm=CachingLM(lm, str(path)),  # type: ignore[arg-type]  # as lm-eval itself hands it on
            task_dict={"tasks": asked},
            samples=chosen,
            bootstrap_iters=0,
        )
    assert found is not None  # None is what ranks above 0 get
    answers = pd.DataFrame([_line(name, sample) for name, part in found["samples"].items() for sample in part])
    progress(len(answers), len(answers))
    return (accuracy_score(answers["score"].tolist()),), answers


def answers_path(identity: Identity) -> Path:
    """Where the likelihoods lie."""
    named = [identity.model_key, identity.settings["precision"], identity.settings["lm_eval"], ASKING_VERSION]
    return cache_dir() / "answers" / f"lm-eval-{hashlib.sha256(json.dumps(named).encode()).hexdigest()[:32]}_rank0.db"


def load_tasks(task: str, data: str | None, revisions: Mapping[str, str]) -> dict[str, Task]:
    """The single tasks of a task or group of lm-eval by name, each with its data set read.

    Args:
        data: a folder with the data sets as `OWNER/NAME`, in place of the hub.
        revisions: the commit of each of the hub's.

    Raises:
        LabError: a data set that is not among `revisions`, or that cannot be had.
    """
    if task == "mmlu_few_shot_questions":
        with _quiet():
            return dict(TaskManager(include_defaults=False).load([_few_shot_config()])["tasks"])
    manager = manager_of(task)
    changes = {name: _place_of_data(manager, name, data, revisions) for name in _leaves(manager, task)}
    try:
        with _quiet():
            return {name: _build(manager, name, changed) for name, changed in changes.items()}
    except Exception as error:  # `datasets` raises whatever its readers and the network raise
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        where = f"the folder {data}" if data else "the Hugging Face hub"
        raise LabError(
            f"the data of lm-eval's task {task!r} cannot be read from {where}: {why}; give access and network, or a "
            "folder that holds them as OWNER/NAME: --option data=FOLDER"
        ) from error


def manager_of(task: str) -> TaskManager:
    """lm-eval's tasks of the folder that a task stands in: there are 14,000 files in all."""
    folder = Path(tasks_module.__file__).parent / task.partition("-")[0]
    return TaskManager(include_defaults=False, include_path=str(folder))


def _few_shot_config() -> dict[str, Any]:
    return {
        "task": "mmlu_few_shot_questions",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(few_shot_questions())}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": MMLU_PROMPT,
        "doc_to_choice": ["A", "B", "C", "D"],
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }


def _leaves(manager: TaskManager, name: str) -> Iterator[str]:
    """The single tasks of a group, through groups and tags."""
    entry = manager.task_index[name]
    if entry.kind.name == "TAG":
        members: Sequence[Any] = sorted(entry.tags)
    elif entry.kind.name == "GROUP":
        members = (entry.cfg or {})["task"]
    else:
        yield name
        return
    for member in members:
        yield from _leaves(manager, member if isinstance(member, str) else member.get("group") or member["task"])


def _place_of_data(manager: TaskManager, name: str, data: str | None, revisions: Mapping[str, str]) -> dict[str, Any]:
    """What is changed in a task's configuration, so that it reads the state that the settings name."""
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


def _build(manager: TaskManager, name: str, changed: Mapping[str, Any]) -> Task:
    # The manager's own way from a name to a task; its `load` changes nothing in a registered one.
    factory: Any = manager._factory
    task: Task = factory.build(manager.task_index[name], overrides=dict(changed), registry=manager.task_index)
    return task


def _chosen(tasks: dict[str, Task], limit: int | None) -> dict[str, list[int]]:
    """Which questions of each task: a sample over all of them together."""
    places = [(name, number) for name, task in tasks.items() for number in range(len(list(task.eval_docs)))]
    chosen: dict[str, list[int]] = {}
    for place in sampled(len(places), limit):
        name, number = places[place]
        chosen.setdefault(name, []).append(number)
    return chosen


class _Asked(HFLM):
    """lm-eval's model, which says how far it is instead of drawing bars."""

    def __init__(self, progress: Progress, **options: Any) -> None:
        super().__init__(**options)
        self._progress, self._num_items, self._num_asked = progress, 0, 0

    def expect(self, num_items: int) -> None:
        """Say how many questions will come."""
        self._num_items = num_items

    def set_cache_hook(self, cache_hook: Any) -> None:
        """Count what is kept: each request as it is answered."""
        super().set_cache_hook(cache_hook)
        keep: Callable[..., None] = cache_hook.add_partial
        contexts: set[str] = set()

        def add_partial(kind: str, request: Any, answer: Any) -> None:
            keep(kind, request, answer)
            contexts.add(request[0])
            self._progress(min(len(contexts), self._num_items), self._num_items)

        cache_hook.add_partial = add_partial

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
        return super().loglikelihood(requests, disable_tqdm=True)

    def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
        return super().generate_until(requests, disable_tqdm=True)


def _load(
    checkpoint: Checkpoint, identity: Identity, device: str, batch_size: int | None, progress: Progress
) -> _Asked:
    import torch

    from lab.parts.language_models import LANGUAGE_MODELS, SubwordCodec, load_language_model
    from lab.training.loop import choose_device

    where = choose_device(device)
    [folder] = checkpoint.open()
    dtype = getattr(torch, identity.settings["precision"])
    own = checkpoint.name in LANGUAGE_MODELS
    loaded = load_language_model(checkpoint.name if own else str(folder), folder=folder, dtype=dtype)
    assert isinstance(loaded.codec, SubwordCodec)
    network: Any = loaded.model
    return _Asked(
        progress,
        pretrained=network.to(where),
        tokenizer=loaded.codec.tokenizer,
        batch_size=batch_size or (1 if where.type == "cpu" else 8),
    )


def _line(task: str, sample: dict[str, Any]) -> dict[str, Any]:
    """A question as it was asked; the answer is the choice that the model finds most likely, or what it wrote."""
    first = sample["arguments"][0]
    if len(sample["arguments"]) > 1:
        likelihoods = [float(response[0]) for response in sample["filtered_resps"]]
        answer = str(sample["arguments"][max(range(len(likelihoods)), key=likelihoods.__getitem__)][1]).strip()
    else:
        likelihoods, answer = [], str(sample["filtered_resps"][0])
    return {
        "id": f"{task}/{sample['doc_id']}",
        "prompt": first[0],
        "reference": str(sample["target"]),
        "answer": answer,
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
