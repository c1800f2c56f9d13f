"""Language benchmarks through lm-eval: MMLU, CMMLU, AGIEval and C-Eval, zero-shot (section 4, Table 1 of the paper).

Tasks, prompts, splits and scoring are lm-eval's own; the accuracy is that over all questions, as lm-eval's groups
have it. Asking is in `lab.evaluation.benchmarks.language_asking`, which imports lm-eval and torch.

Differs from the paper: its prompts, and whether it reads the answer from a generated text or from likelihoods, are not
found. lm-eval's tasks compare the likelihoods of the four letters, but for two sets of mathematics in AGIEval.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import (
    Benchmark,
    Evaluated,
    Fills,
    Identity,
    Kind,
    Progress,
    check_limit,
    check_options,
    whole_number,
)
from lab.evaluation.benchmarks.checkpoints import Checkpoint, find_checkpoint
from lab.evaluation.benchmarks.data_revisions import data_revision

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
    """Its name in lm-eval; `mmlu_few_shot_questions` is our own."""
    datasets: tuple[str, ...] = ()
    """The hub's data sets that its tasks read."""
    kind: Kind = "language"
    models: str = "a causal language model: smollm2_135m, a local folder, or OWNER/NAME on the hub"
    options: Mapping[str, str] = field(default_factory=lambda: _OPTIONS)

    def check(self, model: str, *, options: Mapping[str, str]) -> Identity:
        """Name the weights, lm-eval's version, the precision and the data.

        Raises:
            LabError: lm-eval is missing, the model is unknown, or an option is wrong.
        """
        check_options(self, options)
        if importlib.util.find_spec("lm_eval") is None:
            raise LabError(
                f"benchmark {self.name!r} needs lm-eval, which is not installed; install the extra: "
                "pip install 'omni-lab[evaluate]'"
            )
        _batch_size(options)
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
        return Identity(model_key=_checkpoint(model).key, settings=settings)

    def evaluate(self, model: str, *, options: Mapping[str, str], limit: int | None, progress: Progress) -> Evaluated:
        """Ask lm-eval's questions; what a stopped run has asked is not asked again.

        Raises:
            LabError: as `check`; the model cannot be loaded, or a data set not be had.
        """
        check_limit(limit)
        identity = self.check(model, options=options)
        from lab.evaluation.benchmarks.language_asking import ask

        scores, answers = ask(
            self.task,
            _checkpoint(model),
            identity,
            data=options.get("data"),
            revisions=self._revisions(options),
            device=options.get("device", "auto"),
            batch_size=_batch_size(options),
            limit=limit,
            progress=progress,
        )
        return self.evaluated(model, identity, scores, answers)

    def _revisions(self, options: Mapping[str, str]) -> dict[str, str]:
        """The state of each data set, of the hub or of the folder that holds them."""
        folder = options.get("data")
        if folder is None:
            return {name: data_revision(name) for name in self.datasets}
        for name in self.datasets:
            if not (Path(folder) / name).is_dir():
                raise LabError(f"the folder {folder} has no {name}/, which benchmark {self.name!r} reads")
        return {name: data_revision(str(Path(folder) / name)) for name in self.datasets}


def _batch_size(options: Mapping[str, str]) -> int | None:
    return whole_number(options, "batch_size", "") if "batch_size" in options else None


def _checkpoint(model: str) -> Checkpoint:
    from lab.parts.language_models import LANGUAGE_MODELS

    if model == "character":
        raise LabError("model 'character' reads only the letters of its alphabet; expected a model that reads any text")
    return find_checkpoint(model, {name: (known.source,) for name, known in LANGUAGE_MODELS.items() if known.source})


def _accuracy(column: str) -> tuple[Fills, ...]:
    return (Fills(table="table_1", place=column, metric="accuracy", score="accuracy"),)


_AGIEVAL = (
    *("aqua-rat", "gaokao-biology", "gaokao-chemistry", "gaokao-chinese", "gaokao-english", "gaokao-geography"),
    *("gaokao-history", "gaokao-mathcloze", "gaokao-mathqa", "gaokao-physics", "jec-qa-ca", "jec-qa-kd"),
    *("logiqa-en", "logiqa-zh", "lsat-ar", "lsat-lr", "lsat-rc", "math", "sat-en", "sat-en-without-passage"),
    "sat-math",
)

LANGUAGE_BENCHMARKS: dict[str, Benchmark] = {
    "mmlu": LanguageBenchmark(
        name="mmlu",
        task="mmlu",
        source="hub: cais/mmlu, test",
        datasets=("cais/mmlu",),
        cells=_accuracy("MMLU"),
    ),
    "cmmlu": LanguageBenchmark(
        name="cmmlu",
        task="cmmlu",
        source="hub: haonan-li/cmmlu, test",
        datasets=("haonan-li/cmmlu",),
        cells=_accuracy("CMMLU"),
    ),
    "agieval": LanguageBenchmark(
        name="agieval",
        task="agieval",
        source="hub: hails/agieval-*, test",
        datasets=tuple(f"hails/agieval-{name}" for name in _AGIEVAL),
        cells=_accuracy("AGIEval"),
    ),
    "ceval": LanguageBenchmark(
        name="ceval",
        task="ceval-valid",
        source="hub: ceval/ceval-exam, val (the answers of its test are not public; the paper's split is not found)",
        datasets=("ceval/ceval-exam",),
        cells=_accuracy("C-Eval"),
    ),
    "mmlu_few_shot_questions": LanguageBenchmark(
        name="mmlu_few_shot_questions",
        task="mmlu_few_shot_questions",
        source="PyPI: lm-eval 0.4.13, the few-shot questions of MMLU that it carries",
        options={name: said for name, said in _OPTIONS.items() if name != "data"},
    ),
}
