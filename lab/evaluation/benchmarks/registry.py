"""Every benchmark by name, joined from the dicts at the foot of each kind's module."""

from collections.abc import Sequence

from lab.errors import LabError, choose
from lab.evaluation.benchmarks.benchmark import Benchmark
from lab.evaluation.benchmarks.language import LANGUAGE_BENCHMARKS
from lab.evaluation.benchmarks.lmms_eval_benchmarks import LMMS_EVAL_BENCHMARKS
from lab.evaluation.benchmarks.open_answers import OPEN_BENCHMARKS
from lab.evaluation.benchmarks.speech import SPEECH_BENCHMARKS
from lab.evaluation.benchmarks.translation import TRANSLATION_BENCHMARKS

BENCHMARKS: dict[str, Benchmark] = {
    **LANGUAGE_BENCHMARKS,
    **SPEECH_BENCHMARKS,
    **TRANSLATION_BENCHMARKS,
    **OPEN_BENCHMARKS,
    **LMMS_EVAL_BENCHMARKS,
}


def chosen(tasks: str) -> list[Benchmark]:
    """The benchmarks of a list of names separated by commas; each once.

    Raises:
        LabError: no name, or an unknown one; the message lists the choices.
    """
    names: Sequence[str] = list(dict.fromkeys(part.strip() for part in tasks.split(",") if part.strip()))
    if not names:
        raise LabError(f"no benchmark was named; choose from: {', '.join(sorted(BENCHMARKS))}")
    return [choose(BENCHMARKS, name, "benchmark") for name in names]
