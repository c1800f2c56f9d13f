"""Every public benchmark by name, as `benchmarks.toml` tells them; what asks is a class here."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.evaluation.benchmarks.benchmark import Benchmark, Fills
from lab.evaluation.benchmarks.language import LanguageBenchmark
from lab.evaluation.benchmarks.multimodal import MultimodalBenchmark
from lab.evaluation.benchmarks.samples import SampleBenchmark

KINDS: dict[str, type[Benchmark]] = {
    "language": LanguageBenchmark,
    "speech": SampleBenchmark,
    "multimodal": MultimodalBenchmark,
}


def _benchmark(name: str, table: Mapping[str, Any]) -> Benchmark:
    told: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    cells = tuple(Fills(*places) for places in told.pop("fills", ()))
    return KINDS[told.pop("kind")](name=name, cells=cells, **told)


_TABLES = tomllib.loads(Path(__file__).with_name("benchmarks.toml").read_text(encoding="utf-8"))
BENCHMARKS = {name: _benchmark(name, table) for name, table in _TABLES.items()}
