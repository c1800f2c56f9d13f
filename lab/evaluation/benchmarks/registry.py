"""Every public benchmark by name, as `benchmarks.toml` tells them; a kind of questions is a class here."""

import tomllib
from pathlib import Path

from lab.errors import LabError, choose
from lab.evaluation.benchmarks.benchmark import Benchmark
from lab.evaluation.benchmarks.language import LanguageBenchmark
from lab.evaluation.benchmarks.lmms_eval_benchmarks import LmmsEvalBenchmark
from lab.evaluation.benchmarks.open_answers import OpenAnswers
from lab.evaluation.benchmarks.speech import SpeechBenchmark
from lab.evaluation.benchmarks.translation import Translation

KINDS: dict[str, type[Benchmark]] = {
    "language": LanguageBenchmark,
    "speech": SpeechBenchmark,
    "translation": Translation,
    "open": OpenAnswers,
    "multimodal": LmmsEvalBenchmark,
}
_TABLES = tomllib.loads(Path(__file__).with_name("benchmarks.toml").read_text(encoding="utf-8"))
BENCHMARKS = {name: choose(KINDS, table["kind"], "kind").from_table(name, table) for name, table in _TABLES.items()}


def names_of(tasks: str) -> list[str]:
    """The names of a list separated by commas; each once.

    Raises:
        LabError: no name.
    """
    names = list(dict.fromkeys(part.strip() for part in tasks.split(",") if part.strip()))
    if not names:
        raise LabError(f"no benchmark was named; choose from: {', '.join(sorted(BENCHMARKS))}")
    return names


def chosen(tasks: str) -> list[Benchmark]:
    """The benchmarks of a list of names.

    Raises:
        LabError: no name, or an unknown one; the message lists the choices.
    """
    return [choose(BENCHMARKS, name, "benchmark") for name in names_of(tasks)]
